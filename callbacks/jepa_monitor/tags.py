"""What each tag means, as the text page says it, and the one-page layout of TensorBoard."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple


class Meaning(NamedTuple):
    """A row of the page of tags.

    Attributes:
        tag: the tag, or the beginning of several.
        text: what it is.
        gaussian: value for a Gaussian embedding.
        collapsed: value after a collapse.
        better: which way is better: ``higher``, ``lower``, or near a value; ``-`` where neither is.
        needs: what has to be there for the tag to be.
    """

    tag: str
    text: str
    gaussian: str
    collapsed: str
    better: str = "-"
    needs: str = ""


MEANINGS = (
    Meaning(
        "density/spearman",
        "rank correlation of `log_density` with the true log density",
        "1 if the map is right",
        "NaN",
        "higher",
        needs="a truth",
    ),
    Meaning(
        "density/spearman_jepa_score",
        "the same for JEPA-SCORE, Eq. 5 of arXiv 2510.05949",
        "below 1",
        "NaN",
        "higher",
        needs="a truth",
    ),
    Meaning(
        "density/spearman_gaussian",
        "the same for one Gaussian fitted to the inputs: the line to beat",
        "-",
        "-",
        "-",
        needs="a truth",
    ),
    Meaning("density/spearman_", "the same three against each further truth, by its name", "-", "NaN", "higher"),
    Meaning(
        "density/kendall",
        "Kendall's tau-b of `log_density` and truth",
        "1 if the map is right",
        "NaN",
        "higher",
        needs="a truth",
    ),
    Meaning(
        "density/auroc_low_density",
        "AUROC of finding the tenth of lowest true density",
        "1 if the map is right",
        "NaN",
        "higher",
        needs="a truth",
    ),
    Meaning(
        "density/ood_auroc/",
        "how often a probe sample outranks one of the other set, by `log_density`",
        "-",
        "NaN",
        "higher",
    ),
    Meaning("density/ood_auroc_jepa_score/", "the same by JEPA-SCORE", "-", "0.5 or NaN", "higher"),
    Meaning("density/ood_auroc_typicality/", "the same by -abs(log_density - median): two-sided", "-", "NaN", "higher"),
    Meaning(
        "density/stability",
        "rank correlation with the measurement before",
        "towards 1",
        "NaN",
        "-",
        needs="an earlier measurement",
    ),
    Meaning(
        "density/complexity_spearman", "rank correlation with the compressed size of the input", "-", "NaN", "near 0"
    ),
    Meaning(
        "density/knn_spearman_given_complexity",
        "the same as `density/knn_spearman` of what complexity leaves of the ranks",
        "-",
        "NaN",
        "-",
        needs="a reference",
    ),
    Meaning(
        "density/sketch_spearman",
        "of a sketch: rank correlation with exact volumes, cross-validated",
        "-",
        "NaN",
        "higher",
        needs="a sketch",
    ),
    Meaning(
        "density/knn_spearman",
        "rank correlation with minus the distance to the nearest training embeddings",
        "-",
        "NaN",
        "-",
        needs="a reference",
    ),
    Meaning("density/log_density_", "quantiles of `log_density` in nats, up to a constant", "-", "NaN"),
    Meaning("density/jepa_score_", "quantiles of JEPA-SCORE in nats; moves with the scale of z", "-", "K log 1e-6"),
    Meaning("gaussianity/sliced_ep_ratio", "mean Epps-Pulley statistic over random directions", "1", "0.38 N", "lower"),
    Meaning("gaussianity/sliced_ep_ratio_max", "the largest of them", "1", "far above 1", "lower"),
    Meaning("gaussianity/axis_ep_ratio_max", "the largest along whitened principal axes", "1", "NaN", "lower"),
    Meaning(
        "gaussianity/covariance_error_ratio",
        "squared distance of the covariance from I",
        "1",
        "(N - 1) / (K + 1)",
        "lower",
    ),
    Meaning("gaussianity/mean_error_ratio", "squared length of the mean", "1", "any", "lower"),
    Meaning("gaussianity/norm_variance_ratio", "variance of the squared norm", "1", "0", "near 1"),
    Meaning(
        "gaussianity/norm_ks",
        "sqrt(N) Kolmogorov-Smirnov distance of the squared norm",
        "0.86 +- 0.26",
        "sqrt(N)",
        "lower",
    ),
    Meaning("gaussianity/skewness_z", "Mardia's skewness, in standard deviations", "0 +- 2", "NaN", "near 0"),
    Meaning("gaussianity/kurtosis_z", "Mardia's kurtosis, in standard deviations", "0 +- 2", "NaN", "near 0"),
    Meaning("gaussianity/effective_rank_ratio", "RankMe over its value for a Gaussian", "1", "NaN or 1 / K", "higher"),
    Meaning("gaussianity/variance_share", "total variance over mean square", "1", "0", "near 1"),
    Meaning("jacobian/rank", "r: directions that `log_density` counts", "the data's own", "absent"),
    Meaning("jacobian/clipped_fraction", "singular values below the clip of Eq. 5", "0", "1", "lower"),
    Meaning(
        "jacobian/imprecise_fraction",
        "samples whose JEPA-SCORE rounding may move by more than 0.1 nats",
        "0",
        "0",
        "lower",
    ),
    Meaning("jacobian/condition_log10", "spread of the mean spectrum up to r", "-", "absent"),
    Meaning("jacobian/nonfinite_fraction", "samples without a finite Jacobian", "0", "0", "lower"),
    Meaning(
        "knn/accuracy",
        "accuracy of a nearest-neighbour vote of labelled training features, whitened",
        "-",
        "NaN",
        "higher",
    ),
    Meaning("knn/accuracy_unwhitened", "the same of features as they are", "-", "NaN", "higher"),
    Meaning("knn/accuracy_pixels", "the same of the inputs themselves: the line to beat", "-", "-"),
    Meaning("knn/accuracy_pixels_whitened", "the same of whitened inputs", "-", "-"),
    Meaning("knn/accuracy_", "the same of a further encoder, as it is, by its name", "-", "NaN", "higher"),
    Meaning(
        "linear_probe/accuracy", "accuracy of logistic regression on labelled training features", "-", "NaN", "higher"
    ),
    Meaning("linear_probe/train_accuracy", "the same of the samples that it was fitted to", "-", "NaN"),
    Meaning("linear_probe/accuracy_pixels", "the same on the inputs themselves: the line to beat", "-", "-"),
    Meaning("linear_probe/accuracy_", "the same on a further encoder, by its name", "-", "NaN", "higher"),
    Meaning(
        "features/lidar",
        "directions in which images differ by more than their views do",
        "about K",
        "NaN or 1",
        "higher",
    ),
    Meaning(
        "features/lidar_ratio", "the same over its upper bound, min(K, N - 1)", "about 1", "NaN or 1 / K", "higher"
    ),
    Meaning("features/std_mean", "standard deviation over the samples, mean of the K", "1", "0"),
    Meaning("features/std_min", "the smallest of them", "1", "0"),
    Meaning("features/std_l2_normalised_ratio", "the mean of them for z / norm(z), times sqrt(K)", "1", "0", "higher"),
    Meaning("features/rank_ratio", "RankMe over its value for a Gaussian", "1", "NaN or 1 / K", "higher"),
    Meaning("alarm/collapse", "1 while the embeddings use hardly any direction or hardly vary", "0", "1", "lower"),
    Meaning("alarm/nonfinite_jacobian", "1 while some Jacobian is not finite", "0", "-", "lower"),
    Meaning("alarm/turned_over", "1 if the ranking has turned over since the last measurement", "0", "-", "lower"),
    Meaning("monitor/samples", "samples with a Jacobian, the same for the whole run", "-", "-"),
    Meaning("monitor/sketch_rows", "rows of a sketch, the same for the whole run; 0 if Jacobians are exact", "-", "-"),
    Meaning("monitor/failed", "1 if the measurement failed: every other value is NaN then", "-", "-", "lower"),
    Meaning("monitor/seconds(s)", "duration of the measurement, without pictures", "-", "-"),
    Meaning(
        "monitor/overhead(%)",
        "time measured so far, with pictures, over time trained so far: about 5 % of the training time by default, "
        "at least 2 s a run",
        "-",
        "-",
        "lower",
        needs="time trained",
    ),
    Meaning("null/", "values without information, drawn as lines", "-", "-"),
)

TRUTH = ("density/spearman", "density/spearman_jepa_score", "density/spearman_gaussian")
OF_REFERENCE = tuple(row.tag for row in MEANINGS if row.needs == "a reference")
OF_HEADLINE = tuple(row.tag for row in MEANINGS if row.needs == "a truth")
QUANTILES = {"q10": 0.1, "median": 0.5, "q90": 0.9}


def of_quantiles(score: str) -> tuple[str, ...]:
    """Tags of the quantiles of ``log_density`` or ``jepa_score``."""
    return tuple(f"density/{score}_{label}(nats)" for label in QUANTILES)


OF_ANY = (
    *(
        row.tag
        for row in MEANINGS
        if row.tag.startswith(("density/", "gaussianity/", "jacobian/", "alarm/", "monitor/"))
        and not row.tag.endswith(("/", "_"))
        and not row.needs
    ),
    *of_quantiles("log_density"),
    *of_quantiles("jepa_score"),
)


def of_truth(name: str, *, headline: bool) -> tuple[str, ...]:
    """Tags of a true log density; the headline's have no name."""
    return OF_HEADLINE if headline else tuple(f"{tag}_{name}" for tag in TRUTH)


def of_set(name: str) -> tuple[str, ...]:
    """Tags of a set of samples from elsewhere."""
    return tuple(f"density/ood_auroc{kind}/{name}" for kind in ("", "_jepa_score", "_typicality"))


def meaning_of(tag: str) -> Meaning | None:
    """The row of a tag: its own, else that of the longest beginning; ``None`` for a tag that is not ours."""
    own = next((row for row in MEANINGS if row.tag == tag), None)
    beginnings = [row for row in MEANINGS if row.tag.endswith(("/", "_")) and tag.startswith(row.tag)]
    return own or max(beginnings, key=lambda row: len(row.tag), default=None)


RATIOS = (
    "sliced_ep_ratio",
    "sliced_ep_ratio_max",
    "covariance_error_ratio",
    "norm_variance_ratio",
    "effective_rank_ratio",
)

# constants that are logged with each measurement, so that charts have something to be read against
NULLS = {"null/ratio": 1.0, "null/deviation": 0.0, "null/correlation": 0.0, "null/auroc": 0.5}


def explanation(tags: Iterable[str]) -> str:
    """A Markdown page on those of the tags that were logged."""
    present = {meaning_of(tag) for tag in tags}
    rows = [
        f"| `{row.tag}{'*' if row.tag.endswith(('/', '_')) else ''}` | {row.text} | {row.better} | {row.gaussian} | "
        f"{row.collapsed} |"
        for row in MEANINGS
        if row in present
    ]
    head = (
        "N probe samples, K embedding dimensions; natural logarithms. A ratio is divided by its value under N(0, I) "
        "for the same N and K. A value without meaning is NaN, with one warning that says why. Where higher is better, "
        '`ModelCheckpoint` and `EarlyStopping` need `mode="max"`.\n\n'
        "| tag | what it is | better | Gaussian embedding | collapsed |\n|---|---|---|---|---|\n"
    )
    return head + "\n".join(rows)


def layout(tags: Iterable[str]) -> dict[str, dict[str, list[object]]]:
    """TensorBoard's custom-scalars layout: density ranking, Gaussianity, Jacobian and alarms on one page.

    Tags with a unit in parentheses are not on it: TensorBoard 2.21 finds them and draws no line.

    Args:
        tags: as logged; those of a named monitor begin with its name, and share the chart.
    """
    present = sorted(set(tags))
    ood = sorted({tag[tag.index("density/ood_auroc") :] for tag in present if "density/ood_auroc" in tag})
    charts = {
        "rank correlation with the true log density": (
            ["density/spearman", "density/spearman_jepa_score", "density/spearman_gaussian"],
            "null/correlation",
        ),
        "out-of-distribution AUROC (0.5 = chance)": (ood, "null/auroc"),
        "confounds and stability": (
            ["density/stability", "density/complexity_spearman", "density/knn_spearman"],
            "null/correlation",
        ),
        "Gaussianity ratios (1 = Gaussian)": ([f"gaussianity/{name}" for name in RATIOS], "null/ratio"),
        "Mardia, standard deviations (0 = Gaussian)": (
            ["gaussianity/skewness_z", "gaussianity/kurtosis_z"],
            "null/deviation",
        ),
        "Jacobian": (["jacobian/rank", "jacobian/condition_log10", "jacobian/clipped_fraction"], None),
        "alarms": (["alarm/collapse", "alarm/nonfinite_jacobian", "alarm/turned_over", "monitor/failed"], None),
    }
    shown = {}
    for title, (wanted, null) in charts.items():
        lines = [tag for name in wanted for tag in present if tag == name or tag.endswith(f"/{name}")]
        if lines:
            # TensorBoard takes each entry as a regular expression that may match anywhere in a tag
            shown[title] = [f"^{re.escape(tag)}$" for tag in [*lines, *([null] if null else [])]]
    return {"JEPA-SCORE": {title: ["Multiline", patterns] for title, patterns in shown.items()}}
