"""Pictures of one measurement and of a whole training, for TensorBoard.

Each is (4, H, W), uint8: red, green, blue and opacity.

Drawn without pyplot, so that the user's own figures and style are left alone.
"""

from .gallery import GalleryRow, gallery_over_training_picture, gallery_picture
from .norms import norm_qq_picture
from .plots import heat_map_picture, histogram_picture, scatter_picture
from .spectrum import spectrum_over_training_picture, spectrum_picture
from .story import Chart, Line, story_picture

__all__ = [
    "Chart",
    "GalleryRow",
    "Line",
    "gallery_over_training_picture",
    "gallery_picture",
    "heat_map_picture",
    "histogram_picture",
    "norm_qq_picture",
    "scatter_picture",
    "spectrum_over_training_picture",
    "spectrum_picture",
    "story_picture",
]
