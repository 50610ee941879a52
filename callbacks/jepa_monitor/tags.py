"""Tags, one record each: meaning, value for a Gaussian, value after a collapse, chart."""

from __future__ import annotations

from dataclasses import dataclass

from .gaussianity.dashboard import DEVIATIONS, RATIOS, STATISTICS

# titles of charts; those of Gaussianity stand beside its statistics
TRUTHS = "rank correlation with the true log density"
OTHER_SETS = "out-of-distribution AUROC (0.5 = chance)"
LOG_DENSITY = "log density of the probe, nats"
SCORE = "JEPA-SCORE of the probe, nats"
CONFOUNDS = "confounds and stability"
JACOBIAN = "Jacobian"
ALARMS = "alarms"

# a value without information, logged with each measurement so that a chart has something to be read against
NULL_OF_CHART = {
    TRUTHS: ("reference/uncorrelated", 0.0),
    OTHER_SETS: ("reference/chance", 0.5),
    CONFOUNDS: ("reference/uncorrelated", 0.0),
    RATIOS: ("reference/gaussian_ratio", 1.0),
    DEVIATIONS: ("reference/gaussian_deviation", 0.0),
}
NULLS = dict(NULL_OF_CHART.values())


@dataclass(frozen=True)
class Tag:
    """A row of the page of tags, and a line of a chart.

    Attributes:
        name: the tag; ending in ``/`` or ``_``, the beginning of several.
        meaning: text that says what is measured.
        gaussian: value for a Gaussian embedding.
        collapsed: value after a collapse.
        better: ``higher``, ``lower``, or near a value; ``-`` where neither is better.
        chart: title of the chart that has its line, if any.
        needs: condition for the tag to be logged.
        none_for: inputs for which there is no such tag.
    """

    name: str
    meaning: str
    gaussian: str = "-"
    collapsed: str = "-"
    better: str = "-"
    chart: str | None = None
    needs: str = ""
    none_for: str = ""

    @property
    def is_beginning(self) -> bool:
        """Several tags begin with the name, and none is the name alone."""
        return self.name.endswith(("/", "_"))

    def lines(self, logged: list[str]) -> list[str]:
        """Those of the logged tags that are this one, of whichever monitor."""
        names = [self.name]
        if self.is_beginning:
            names = sorted({tag[tag.index(self.name) :] for tag in logged if self.name in tag})
        return [tag for name in names for tag in logged if tag == name or tag.endswith(f"/{name}")]


TAGS = (
    Tag(
        "density/spearman",
        "rank correlation of `log_density`, of the density that embeddings have, with the true log density",
        gaussian="1 if the map is right",
        collapsed="NaN",
        better="higher",
        chart=TRUTHS,
        needs="a truth",
    ),
    Tag(
        "density/spearman_gaussian_embedding",
        "the same with N(0, I) for the density of whitened embeddings and the volume of all K directions; the gap to "
        "`density/spearman` is the cost of assuming a Gaussian",
        gaussian="as `density/spearman`",
        collapsed="NaN",
        better="higher",
        chart=TRUTHS,
        needs="a truth",
    ),
    Tag(
        "density/spearman_jepa_score",
        "the same for JEPA-SCORE, Eq. 5 of arXiv 2510.05949",
        gaussian="below 1",
        collapsed="NaN",
        better="higher",
        chart=TRUTHS,
        needs="a truth",
    ),
    Tag(
        "density/spearman_gaussian",
        "the same for one Gaussian fitted to the inputs: the line to beat",
        chart=TRUTHS,
        needs="a truth",
    ),
    Tag(
        "density/spearman_", "the same against a further truth, such as `with_noise`", collapsed="NaN", better="higher"
    ),
    Tag(
        "density/ood_auroc/",
        "how often a probe sample outranks one of the other set, by `log_density`",
        collapsed="NaN",
        better="higher",
        chart=OTHER_SETS,
    ),
    Tag(
        "density/ood_auroc_jepa_score/",
        "the same by JEPA-SCORE",
        collapsed="0.5 or NaN",
        better="higher",
        chart=OTHER_SETS,
    ),
    Tag(
        "density/ood_auroc_typicality/",
        "the same by -abs(log_density - median): two-sided",
        collapsed="NaN",
        better="higher",
        chart=OTHER_SETS,
    ),
    Tag(
        "density/ood_auroc_embedding/",
        "the same by the density of embeddings alone, without the volume: of all samples, as it needs no Jacobian",
        collapsed="NaN",
        better="higher",
        chart=OTHER_SETS,
    ),
    Tag(
        "density/ood_auroc_knn/",
        "the same by minus the distance to the nearest training embeddings, which needs no density: the bar",
        collapsed="NaN",
        better="higher",
        chart=OTHER_SETS,
        needs="a reference",
    ),
    Tag(
        "density/ood_fpr95_ood_positive/",
        "share of probe samples below the `log_density` that 95 % of the other set stay below: OpenOOD's FPR95",
        collapsed="NaN",
        better="lower",
    ),
    Tag(
        "density/stability",
        "rank correlation of `log_density` with that of the measurement before",
        gaussian="towards 1",
        collapsed="NaN",
        chart=CONFOUNDS,
        needs="an earlier measurement",
    ),
    Tag(
        "scores/kendall",
        "Kendall's tau-b of `log_density` and truth",
        gaussian="1 if the map is right",
        collapsed="NaN",
        better="higher",
        needs="a truth",
    ),
    Tag(
        "scores/auroc_low_density",
        "AUROC of finding the tenth of lowest true density",
        gaussian="1 if the map is right",
        collapsed="NaN",
        better="higher",
        needs="a truth",
    ),
    Tag(
        "scores/complexity_spearman",
        "rank correlation of `log_density` with the compressed size of the input",
        collapsed="NaN",
        better="near 0",
        chart=CONFOUNDS,
    ),
    Tag(
        "scores/knn_spearman",
        "rank correlation of `log_density` with minus the distance to the nearest training embeddings",
        collapsed="NaN",
        chart=CONFOUNDS,
        needs="a reference",
    ),
    Tag(
        "scores/knn_spearman_given_complexity",
        "the same as `scores/knn_spearman` of what complexity leaves of the ranks",
        collapsed="NaN",
        needs="a reference",
    ),
    Tag(
        "scores/subspace_spearman",
        "volumes in the subspace: rank correlation with exact ones of the samples that have them, held out",
        collapsed="NaN",
        better="higher",
        needs="a subspace",
    ),
    Tag("scores/log_density_", "quantiles of `log_density` in nats", collapsed="NaN", chart=LOG_DENSITY),
    Tag(
        "scores/jepa_score_",
        "quantiles of JEPA-SCORE in nats; moves with the scale of z",
        collapsed="K log 1e-6",
        chart=SCORE,
    ),
    *(Tag(f"gaussianity/{s.name}", s.meaning, s.gaussian, s.collapsed, s.better, chart=s.chart) for s in STATISTICS),
    Tag("gaussianity/variance_share", "total variance over mean square", gaussian="1", collapsed="0", better="near 1"),
    Tag(
        "jacobian/intrinsic_dimension",
        "directions in which embeddings vary, from distances to their neighbours",
        gaussian="K",
        collapsed="NaN",
        chart=JACOBIAN,
    ),
    Tag("jacobian/intrinsic_dimension_", "ends of its interval of 95 %", collapsed="NaN", chart=JACOBIAN),
    Tag(
        "jacobian/rank",
        "r: directions that `log_density` counts, by default as many as its density has: on a manifold the intrinsic "
        "dimension, rounded",
        gaussian="the data's own",
        collapsed="NaN",
        chart=JACOBIAN,
    ),
    Tag("jacobian/condition_log10", "spread of the mean spectrum up to r", collapsed="NaN", chart=JACOBIAN),
    Tag(
        "jacobian/clipped_fraction",
        "singular values below the clip of Eq. 5",
        gaussian="0",
        collapsed="1",
        better="lower",
        chart=JACOBIAN,
    ),
    Tag(
        "jacobian/imprecise_fraction",
        "samples whose JEPA-SCORE rounding may move by more than 0.1 nats",
        gaussian="0",
        collapsed="0",
        better="lower",
    ),
    Tag(
        "jacobian/nonfinite_fraction", "samples without a finite Jacobian", gaussian="0", collapsed="0", better="lower"
    ),
    Tag(
        "knn/accuracy",
        "accuracy of a nearest-neighbour vote of labelled training features, whitened",
        collapsed="NaN",
        better="higher",
    ),
    Tag("knn/accuracy_unwhitened", "the same of features as they are", collapsed="NaN", better="higher"),
    Tag("knn/accuracy_pixels", "the same of the inputs themselves: the line to beat"),
    Tag("knn/accuracy_pixels_whitened", "the same of whitened inputs"),
    Tag("knn/accuracy_", "the same of a further encoder, as it is, by its name", collapsed="NaN", better="higher"),
    Tag(
        "linear_probe/accuracy",
        "accuracy of logistic regression on labelled training features",
        collapsed="NaN",
        better="higher",
    ),
    Tag("linear_probe/train_accuracy", "the same of the samples that it was fitted to", collapsed="NaN"),
    Tag("linear_probe/accuracy_pixels", "the same on the inputs themselves: the line to beat"),
    Tag("linear_probe/accuracy_", "the same on a further encoder, by its name", collapsed="NaN", better="higher"),
    Tag(
        "features/lidar",
        "directions in which images differ by more than their views do",
        gaussian="about K",
        collapsed="NaN or 1",
        better="higher",
    ),
    Tag(
        "features/lidar_ratio",
        "the same over its upper bound, min(K, N - 1)",
        gaussian="about 1",
        collapsed="NaN or 1 / K",
        better="higher",
    ),
    Tag("features/std_mean", "standard deviation over the samples, mean of the K", gaussian="1", collapsed="0"),
    Tag("features/std_min", "the smallest of them", gaussian="1", collapsed="0"),
    Tag(
        "features/std_l2_normalised_ratio",
        "the mean of them for z / norm(z), times sqrt(K)",
        gaussian="1",
        collapsed="0",
        better="higher",
    ),
    Tag(
        "features/rank_ratio",
        "RankMe over its value for a Gaussian",
        gaussian="1",
        collapsed="NaN or 1 / K",
        better="higher",
    ),
    Tag(
        "features/recovery",
        "share of the inputs' principal components that a linear map finds in the features: which checkpoint to keep",
        collapsed="NaN or 0",
        better="higher",
    ),
    Tag(
        "monitor/alarm_collapse",
        "1 while the embeddings use hardly any direction or hardly vary",
        gaussian="0",
        collapsed="1",
        better="lower",
        chart=ALARMS,
    ),
    Tag(
        "monitor/alarm_nonfinite_jacobian",
        "1 while some Jacobian is not finite",
        gaussian="0",
        better="lower",
        chart=ALARMS,
    ),
    Tag(
        "monitor/alarm_turned_over",
        "1 if the ranking has turned over since the last measurement",
        gaussian="0",
        better="lower",
        chart=ALARMS,
    ),
    Tag(
        "monitor/keep",
        "which checkpoint to keep: share of the inputs' principal components that a linear map finds in the features, "
        "those before a projector where the module has a method features. Over 63 short runs on Fashion-MNIST, 36 of "
        "them with settings that were spoiled on purpose, this checkpoint had 0.3 points of linear-probe accuracy less "
        "than the best of its run on average, and the last one 4.6; in the 27 others 0.2 and 0.3. Noise in the inputs "
        "counts as theirs: do not follow it where images are noisy",
        collapsed="NaN or 0",
        better="higher",
        none_for="token ids, and inputs of more than 1,024 numbers that are no images",
    ),
    Tag("monitor/reference", "reference embeddings that the density is fitted to; 0 if it is fitted to the probe's"),
    Tag("monitor/samples", "samples with a Jacobian, the same for the whole run"),
    Tag("monitor/subspace_rows", "rows of a Jacobian that estimate a volume; 0 if it is exact"),
    Tag("monitor/failed", "1 if the measurement failed: every other value is NaN then", better="lower", chart=ALARMS),
    Tag("monitor/seconds", "duration of the measurement, without pictures"),
    Tag(
        "monitor/overhead_percent",
        "time measured so far, with pictures, over time trained so far: about 5 % of the training time by default, "
        "at least 2 s a run",
        better="lower",
        needs="time trained",
    ),
    Tag("reference/", "what chance, or a Gaussian, would give: lines to read the custom scalars against"),
)


def meaning_of(name: str) -> Tag | None:
    """The record of a tag: its own, else that of the longest beginning; ``None`` for a tag that is not ours."""
    own = next((tag for tag in TAGS if tag.name == name), None)
    beginnings = [tag for tag in TAGS if tag.is_beginning and name.startswith(tag.name)]
    return own or max(beginnings, key=lambda tag: len(tag.name), default=None)
