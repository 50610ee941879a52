"""``summary.json``: what was ranked by what, what was found on the way, and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from jepa_monitor.gaussianity import effective_rank
from jepa_train.ranking.columns import BY_NAME
from jepa_train.ranking.findings import Facts, warnings_of
from jepa_train.ranking.images import CODEC, EFFORT
from jepa_train.ranking.references import RankingReference
from jepa_train.ranking.table import chosen

FILE = "summary.json"
SPECTRUM = 256  # directions


def summary_of(facts: Facts, manifest: Mapping[str, Any], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Plain JSON types; None for what is not known.

    Args:
        facts: table and reference.
        manifest: manifest of the ranking.
        seconds: time of each stage in this call.
    """
    reasons = facts.known["reason"].null_count
    return {
        "images": {
            "root": manifest["root"],
            "identity": manifest["images"],
            "count": facts.count,
            "without_reason": reasons,
        },
        "encoder": {
            "name": manifest["name"],
            "identity": manifest["encoder"],
            "preparation": manifest["preparation"],
            "compressed_size": {"codec": CODEC, "level": EFFORT}
            if "compressed_size" in facts.known.column_names
            else None,
            "notes": manifest["notes"],
            "precision": manifest["precision"],
        },
        "reference": None if facts.reference is None else _of_reference(facts.reference, manifest),
        "volumes": _of_volumes(facts.reference) if facts.reference is not None and facts.wanted.volumes else None,
        "columns": {name: BY_NAME[name].meaning for name in chosen(facts.known, facts.wanted).column_names},
        "versions": manifest["versions"],
        "seed": manifest["seed"],
        "seconds": dict(seconds),
        "warnings": warnings_of(facts),
    }


def _of_reference(reference: RankingReference, manifest: Mapping[str, Any]) -> dict[str, Any]:
    z = reference.z
    dimension = None if reference.density is None else reference.density.dimension
    deviations = torch.linalg.svdvals(z - z.mean(0)) / max(len(z) - 1, 1) ** 0.5
    return {
        "source": reference.source,
        "identity": manifest["reference"],
        "count": len(z),
        "embedding_size": z.shape[1],
        "intrinsic_dimension": None
        if dimension is None
        else {"estimate": dimension.estimate, "low": dimension.low, "high": dimension.high},
        "effective_rank": None if reference.density is None else effective_rank(z),
        "spectrum": deviations[:SPECTRUM].tolist(),
        "shrinkage": None if reference.mahalanobis is None else reference.mahalanobis.shrinkage,
    }


def _of_volumes(reference: RankingReference) -> dict[str, Any] | None:
    if reference.density is None:
        return None
    subspace = reference.subspace
    size, rank = reference.z.shape[1], reference.density.rank
    if subspace is None:
        return {"estimator": "exact", "rank": rank, "rows": size, "spearman_with_exact": 1.0}
    return {
        "estimator": "subspace",
        "rank": rank,
        "rows": subspace.directions,
        "spearman_with_exact": subspace.held_out_spearman,
    }
