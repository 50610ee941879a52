"""How well scores rank: against a truth, between sets, and beside rankings that need no encoder."""

from .baselines import GaussianBaseline, compressed_size, knn_distance
from .correlation import kendall, spearman, why_unrankable
from .detection import auroc, auroc_low_density, typicality

__all__ = [
    "GaussianBaseline",
    "auroc",
    "auroc_low_density",
    "compressed_size",
    "kendall",
    "knn_distance",
    "spearman",
    "typicality",
    "why_unrankable",
]
