"""Tags that are logged together, and lost together: of a truth, of a reference, of a set, or in any case."""

from __future__ import annotations

from collections.abc import Iterable

from .tags import TAGS

TRUTH = (
    "density/spearman",
    "density/spearman_gaussian_embedding",
    "density/spearman_jepa_score",
    "density/spearman_gaussian",
)
REFERENCE_TAGS = tuple(tag.name for tag in TAGS if tag.needs == "a reference" and not tag.is_beginning)
OF_SETS = tuple(tag for tag in TAGS if tag.name.startswith("density/ood_"))
HEADLINE_TAGS = tuple(tag.name for tag in TAGS if tag.needs == "a truth")
QUANTILES = {"q10": 0.1, "median": 0.5, "q90": 0.9}


def quantile_tags(score: str) -> tuple[str, ...]:
    """Tags of the quantiles of ``log_density`` or ``jepa_score``."""
    return tuple(f"scores/{score}_{label}" for label in QUANTILES)


USUAL_TAGS = (
    *(
        tag.name
        for tag in TAGS
        if tag.name.startswith(("density/", "gaussianity/", "jacobian/", "monitor/", "scores/"))
        and not tag.is_beginning
        and not tag.needs
    ),
    *(f"jacobian/intrinsic_dimension_{end}" for end in ("low", "high")),
    *quantile_tags("log_density"),
    *quantile_tags("jepa_score"),
)


def truth_tags(name: str, *, headline: bool) -> tuple[str, ...]:
    """Tags of a true log density; the headline's have no name."""
    return HEADLINE_TAGS if headline else tuple(f"{tag}_{name}" for tag in TRUTH)


def set_tags(name: str, *, has_reference: bool = True) -> tuple[str, ...]:
    """Tags of a set of samples from elsewhere."""
    return tuple(f"{tag.name}{name}" for tag in OF_SETS if has_reference or not tag.needs)


def reference_tags(sets: Iterable[str]) -> tuple[str, ...]:
    """Tags that need a reference, where there are further sets of these names."""
    return (*REFERENCE_TAGS, *(f"{tag.name}{name}" for name in sets for tag in OF_SETS if tag.needs))
