"""The density of samples behind an encoder: Jacobian -> Gram -> spectrum -> log volume -> score."""

from .checks import finite_rows, require_embeddings, require_real
from .densities import EmbeddingDensity, GaussianDensity, NeighbourDensity
from .embedding import DensityChoice, EmbeddingReference, require_choice
from .flow import FlowDensity
from .intrinsic import IntrinsicDimension, intrinsic_dimension
from .jacobian import differentiable, gram_and_embedding, jacobian_gram, map_grams
from .manifold import ManifoldDensity
from .mixtures import MixtureDensity
from .neighbours import knn_distance, nearest
from .score import aggregate_views, jepa_score, log_density, log_density_from_volume
from .strategies import Encode, Strategy
from .subspace import Subspace, encoder_volume, subspace_rows
from .volume import counts_rounding, is_imprecise, leading_volume, log_singular_values, log_volume, rounding_error

__all__ = [
    "DensityChoice",
    "EmbeddingDensity",
    "EmbeddingReference",
    "Encode",
    "FlowDensity",
    "GaussianDensity",
    "IntrinsicDimension",
    "ManifoldDensity",
    "MixtureDensity",
    "NeighbourDensity",
    "Strategy",
    "Subspace",
    "aggregate_views",
    "counts_rounding",
    "differentiable",
    "encoder_volume",
    "finite_rows",
    "gram_and_embedding",
    "intrinsic_dimension",
    "is_imprecise",
    "jacobian_gram",
    "jepa_score",
    "knn_distance",
    "leading_volume",
    "log_density",
    "log_density_from_volume",
    "log_singular_values",
    "log_volume",
    "map_grams",
    "nearest",
    "require_choice",
    "require_embeddings",
    "require_real",
    "rounding_error",
    "subspace_rows",
]
