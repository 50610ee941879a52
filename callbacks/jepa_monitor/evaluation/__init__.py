"""Quality of frozen features, measured while an encoder trains: callbacks, and the formulas behind them."""

from .accuracies import OnlineKNN, OnlineLinearProbe
from .classifiers import LinearProbe, weighted_knn, whiten
from .features import feature_statistics, lidar, lidar_bound, recovery
from .images import crop_and_flip
from .spread import FeatureStatistics, LiDAR

__all__ = [
    "FeatureStatistics",
    "LiDAR",
    "LinearProbe",
    "OnlineKNN",
    "OnlineLinearProbe",
    "crop_and_flip",
    "feature_statistics",
    "lidar",
    "lidar_bound",
    "recovery",
    "weighted_knn",
    "whiten",
]
