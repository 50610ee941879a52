"""See what an encoder learns of its data's density: JEPA-SCORE, Gaussianity, and a Lightning callback for both."""

from .density import (
    EmbeddingReference,
    Sketch,
    aggregate_views,
    auto_rank,
    jacobian_gram,
    jepa_score,
    log_density,
    log_volume,
)
from .gaussianity import (
    EmbeddingGaussianity,
    axis_epps_pulley,
    covariance_error,
    effective_rank,
    gaussianity,
    mardia,
    mean_error,
    norm_concentration,
    sliced_epps_pulley,
)
from .monitor import JEPAScoreMonitor
from .ranking import DensityRanking, OODDetection, rank_stability

__all__ = [
    "DensityRanking",
    "EmbeddingGaussianity",
    "EmbeddingReference",
    "JEPAScoreMonitor",
    "OODDetection",
    "Sketch",
    "aggregate_views",
    "auto_rank",
    "axis_epps_pulley",
    "covariance_error",
    "effective_rank",
    "gaussianity",
    "jacobian_gram",
    "jepa_score",
    "log_density",
    "log_volume",
    "mardia",
    "mean_error",
    "norm_concentration",
    "rank_stability",
    "sliced_epps_pulley",
]
