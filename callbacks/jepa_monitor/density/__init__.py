"""Jacobian -> Gram -> log volume -> score per sample."""

from .jacobian import differentiable, gram_and_embedding, jacobian_gram, map_grams
from .rank import auto_rank
from .reference import EmbeddingReference
from .score import aggregate_views, is_imprecise, jepa_score, log_density, log_density_from_spectrum, rounding_error
from .sketch import Sketch
from .strategies import Encode, Strategy
from .survey import require_real
from .volume import log_singular_values, log_volume

__all__ = [
    "EmbeddingReference",
    "Encode",
    "Sketch",
    "Strategy",
    "aggregate_views",
    "auto_rank",
    "differentiable",
    "gram_and_embedding",
    "is_imprecise",
    "jacobian_gram",
    "jepa_score",
    "log_density",
    "log_density_from_spectrum",
    "log_singular_values",
    "log_volume",
    "map_grams",
    "require_real",
    "rounding_error",
]
