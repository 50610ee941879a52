"""What frozen features are good for, measured while an encoder trains: callbacks, and the formulas behind them."""

from .accuracies import OnlineKNN, OnlineLinearProbe
from .discriminant import lidar, lidar_bound
from .knn import weighted_knn
from .linear_probe import LinearProbe
from .spread import FeatureStatistics, LiDAR
from .statistics import feature_statistics
from .views import crop_and_flip
from .whitening import whiten

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
    "weighted_knn",
    "whiten",
]
