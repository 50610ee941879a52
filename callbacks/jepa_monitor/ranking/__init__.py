"""Ranking quality of scores: against a truth, between sets, and beside rankings that need no encoder."""

from ..density import knn_distance
from .baselines import (
    GaussianBaseline,
    Mahalanobis,
    NearestNeighbours,
    compressed_size,
    fingerprints,
    log_frobenius,
    shares_samples,
)
from .correlation import concordance, kendall, partial_spearman, rank_stability, slope, spearman, why_unrankable
from .detection import (
    auroc,
    auroc_low_density,
    auroc_null_interval,
    average_precision,
    bootstrap_interval,
    fpr_at_tpr,
    matched_pairs,
    precision_recall_area,
    typicality,
)
from .inversion import Inversion, predict_inversion
from .metrics import DensityRanking, OODDetection

__all__ = [
    "DensityRanking",
    "GaussianBaseline",
    "Inversion",
    "Mahalanobis",
    "NearestNeighbours",
    "OODDetection",
    "auroc",
    "auroc_low_density",
    "auroc_null_interval",
    "average_precision",
    "bootstrap_interval",
    "compressed_size",
    "concordance",
    "fingerprints",
    "fpr_at_tpr",
    "kendall",
    "knn_distance",
    "log_frobenius",
    "matched_pairs",
    "partial_spearman",
    "precision_recall_area",
    "predict_inversion",
    "rank_stability",
    "shares_samples",
    "slope",
    "spearman",
    "typicality",
    "why_unrankable",
]
