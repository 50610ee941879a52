"""Values that tags had in runs, which ``benchmarks/reading.py`` writes, and advice on what to do.

Each is the range, over trainings, of the median of three seeds: short runs on Fashion-MNIST, K = 32 and N = 256.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """Values of one tag in three kinds of runs.

    Attributes:
        healthy: range where a term pushes the embeddings towards N(0, I).
        off_scale: range in runs as good, in which none does: their embeddings have another scale.
        collapsing: range in runs in which nothing keeps the embeddings apart.
    """

    healthy: str
    off_scale: str
    collapsing: str

    @property
    def cells(self) -> str:
        """The three cells of the page, in Markdown."""
        return f"{self.healthy} | {self.off_scale} | {self.collapsing}"


UNKNOWN = Measured("-", "-", "-")
MEASURED = {
    "density/stability": Measured("1", "1", "0.98 to 1"),
    "features/lidar": Measured("8.7 to 11", "8 to 10", "5 to 6.1"),
    "features/lidar_ratio": Measured("0.069 to 0.087", "0.063 to 0.079", "0.039 to 0.048"),
    "features/rank_ratio": Measured("0.19", "0.07 to 0.27", "0.15 to 0.21"),
    "features/recovery": Measured("0.5 to 0.52", "0.44 to 0.54", "0.29 to 0.4"),
    "features/std_l2_normalised_ratio": Measured("0.45 to 0.52", "0.045 to 0.41", "0.0062 to 0.13"),
    "features/std_mean": Measured("0.35 to 0.38", "0.044 to 0.4", "0.0063 to 0.11"),
    "features/std_min": Measured("0.13 to 0.14", "0.017 to 0.081", "0.0022 to 0.027"),
    "gaussianity/axis_ep_ratio_max": Measured("11 to 15", "6.2 to 12", "8.9 to 21"),
    "gaussianity/covariance_error_ratio": Measured("7.4 to 8.4", "7.6 to 9", "7.7"),
    "gaussianity/effective_rank_ratio": Measured("0.65 to 0.66", "0.23 to 0.77", "0.69 to 0.94"),
    "gaussianity/kurtosis_z": Measured("13 to 18", "28 to 56", "46 to 69"),
    "gaussianity/mean_error_ratio": Measured("1.7 to 2.7", "0.2 to 6.2", "2.3 to 2.6"),
    "gaussianity/norm_ks": Measured("10", "16", "16"),
    "gaussianity/norm_variance_ratio": Measured("0.3 to 0.37", "3.4e-06 to 0.18", "1.9e-06 to 4.3e-06"),
    "gaussianity/skewness_z": Measured("80 to 85", "72 to 147", "59 to 81"),
    "gaussianity/sliced_ep_ratio": Measured("10 to 12", "73 to 98", "100"),
    "gaussianity/sliced_ep_ratio_max": Measured("8.5 to 9.3", "18 to 21", "21 to 22"),
    "gaussianity/variance_share": Measured("0.98 to 0.99", "0.36 to 0.84", "0.0067 to 0.014"),
    "jacobian/clipped_fraction": Measured("0", "0", "0"),
    "jacobian/condition_log10": Measured("0.19 to 0.26", "0.2 to 0.42", "0.23 to 0.4"),
    "jacobian/intrinsic_dimension": Measured("4.2", "2.8 to 9.3", "11 to 18"),
    "jacobian/intrinsic_dimension_high": Measured("4.2 to 4.3", "2.8 to 9.5", "11 to 18"),
    "jacobian/intrinsic_dimension_low": Measured("4 to 4.1", "2.7 to 9.1", "11 to 17"),
    "jacobian/rank": Measured("4", "3 to 9", "11 to 18"),
    "monitor/alarm_collapse": Measured("0", "0", "0"),
    "monitor/keep": Measured("0.41 to 0.45", "0.36 to 0.44", "0.24 to 0.32"),
    "scores/complexity_spearman": Measured("-0.41 to -0.11", "-0.65 to -0.38", "-0.42 to -0.36"),
    "scores/jepa_score_median": Measured("-40 to -38", "-130 to -61", "-116 to -96"),
    "scores/jepa_score_q10": Measured("-46 to -45", "-140 to -67", "-118 to -101"),
    "scores/jepa_score_q90": Measured("-35 to -34", "-124 to -58", "-111 to -87"),
    "scores/knn_spearman": Measured("0.32 to 0.7", "0.83 to 0.9", "0.83 to 0.9"),
    "scores/knn_spearman_given_complexity": Measured("0.32 to 0.66", "0.7 to 0.89", "0.79 to 0.87"),
    "scores/log_density_median": Measured("-5.7 to -5", "-5.4 to 1.4", "4.5 to 14"),
    "scores/log_density_q10": Measured("-7.2 to -6.7", "-6.9 to -1.8", "0.96 to 8.8"),
    "scores/log_density_q90": Measured("-4.7 to -3.9", "-4.1 to 3.9", "7 to 18"),
    "scores/subspace_spearman": Measured("0.99", "0.96 to 1", "0.99 to 1"),
    "train/loss": Measured("0.83 to 0.93", "-1.1 to 0.45", "0.00033 to 0.039"),
    "train/loss_embedding": Measured("0.24 to 0.33", "0.0016 to 0.028", "0.00013 to 0.00029"),
    "train/loss_tokens": Measured("0.12 to 0.13", "0.0087 to 0.052", "0.00017 to 0.035"),
}

# what to do where a tag is not as it should be
ADVICE = {
    "density/spearman": "below `density/spearman_gaussian` it ranks worse than a Gaussian of the pixels: train on",
    "density/spearman_jepa_score": "where it falls while `density/spearman` rises, follow the latter: the volume alone "
    "says less as training makes the embeddings Gaussian",
    "density/stability": "while it rises the ranking still changes: train on",
    "scores/complexity_spearman": "far from 0, the ranking is largely one of file sizes: look at `pictures/gallery`",
    "density/ood_auroc/": "below 0.5 the other set ranks as denser: compare `density/ood_auroc_embedding/*`, which "
    "leaves the volume out, and `density/ood_auroc_knn/*`",
    "gaussianity/sliced_ep_ratio": "at 0.38 N, look at `gaussianity/variance_share`, which has no scale: near 0 the "
    "embeddings have collapsed; else only their scale is another, as where nothing pushes them towards N(0, I)",
    "scores/knn_spearman": "near 1, a distance would have ranked alike; lower does not say which of them is right",
    "gaussianity/kurtosis_z": "beyond 2, the tails differ from a Gaussian's by more than chance: scores that assume a "
    "Gaussian, as `density/spearman_gaussian_embedding` does, rank worse; others need nothing",
    "gaussianity/skewness_z": "as for `gaussianity/kurtosis_z`",
    "gaussianity/effective_rank_ratio": "falling towards 1 / K, the embeddings shrink to a line: raise the weight of "
    "the term against collapse, or lower the learning rate",
    "gaussianity/variance_share": "near 0, or falling: raise the weight of the term against collapse",
    "jacobian/imprecise_fraction": "above 0, rank by `log_density`, or measure a float64 module",
    "jacobian/nonfinite_fraction": "above 0, look for inputs and weights that are not finite",
    "knn/accuracy": "below `knn/accuracy_pixels` the features are worth less than the pixels: train on",
    "linear_probe/accuracy": "below `linear_probe/accuracy_pixels` the features are worth less than the pixels",
    "monitor/keep": "keep the checkpoint where it is highest; the last one where images are noisy",
    "monitor/alarm_collapse": "stop, and raise the weight of the term against collapse",
    "monitor/alarm_nonfinite_jacobian": "look for inputs and weights that are not finite",
    "monitor/alarm_turned_over": "look at `pictures/gallery_over_training`, and lower the learning rate",
    "monitor/failed": "read the text `JEPA-SCORE/failures`",
    "monitor/overhead_percent": "give a smaller `budget`",
}
