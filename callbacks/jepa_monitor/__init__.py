"""See what an encoder learns: density, Gaussianity, useful features; formulas, and Lightning callbacks for them."""

from .density import (
    EmbeddingReference,
    IntrinsicDimension,
    Sketch,
    Subspace,
    aggregate_views,
    auto_rank,
    encoder_volume,
    intrinsic_dimension,
    jacobian_gram,
    jepa_score,
    log_density,
    log_volume,
)
from .errors import SettingError
from .evaluation import FeatureStatistics, LiDAR, OnlineKNN, OnlineLinearProbe
from .gaussianity import (
    EmbeddingGaussianity,
    axis_epps_pulley,
    covariance_error,
    effective_rank,
    gaussianity_statistics,
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
    "FeatureStatistics",
    "IntrinsicDimension",
    "JEPAScoreMonitor",
    "LiDAR",
    "OODDetection",
    "OnlineKNN",
    "OnlineLinearProbe",
    "SettingError",
    "Sketch",
    "Subspace",
    "aggregate_views",
    "auto_rank",
    "axis_epps_pulley",
    "covariance_error",
    "effective_rank",
    "encoder_volume",
    "gaussianity_statistics",
    "intrinsic_dimension",
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
