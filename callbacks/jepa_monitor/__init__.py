"""See what an encoder learns of its data's density: JEPA-SCORE, Gaussianity, and a Lightning callback for both."""

from .density import (
    EmbeddingReference,
    aggregate_views,
    auto_rank,
    jacobian_gram,
    jepa_score,
    log_density,
    log_volume,
)
from .gaussianity import gaussianity, sliced_epps_pulley
from .monitor import JEPAScoreMonitor

__all__ = [
    "EmbeddingReference",
    "JEPAScoreMonitor",
    "aggregate_views",
    "auto_rank",
    "gaussianity",
    "jacobian_gram",
    "jepa_score",
    "log_density",
    "log_volume",
    "sliced_epps_pulley",
]
