"""Each warning is a sentence with its number, where there is reason for it and only there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from jepa_monitor import Subspace
from jepa_train.ranking import findings
from jepa_train.ranking.columns import wanted_columns
from jepa_train.ranking.findings import Facts, warnings_of
from jepa_train.ranking.references import RankingReference, fit_reference
from jepa_train.ranking.table import NOT_MEASURED

COUNT = 200


def reference(z: Tensor) -> RankingReference:
    return fit_reference(z.float().numpy(), np.arange(len(z)), images="a", encoder="e", source="s")


def facts(z: Tensor | None = None, **columns: Any) -> Facts:
    """Facts of a ranking that has nothing to warn of, but for the given embeddings and columns."""
    draws = np.random.default_rng(0)
    numbers = {
        name: draws.normal(size=COUNT)
        for name in ("log_density", "jepa_score", "embedding_log_density", "mahalanobis", "nearest_distance")
    }
    table = {
        "filename": [str(number) for number in range(COUNT)],
        **numbers,
        "nearest_distance": 1.0 + draws.random(COUNT),
        "compressed_size": draws.integers(100, 900, COUNT),
        "reason": pa.nulls(COUNT, pa.string()),
        **columns,
    }
    table = {name: column for name, column in table.items() if column is not None}
    nothing = np.zeros(COUNT)
    z = torch.randn(COUNT, 6) if z is None else z
    return Facts(pa.table(table), wanted_columns(None), reference(z), nothing, nothing)


def with_subspace(found: Facts, spearman: float) -> Facts:
    assert found.reference is not None
    subspace = Subspace(2, 4, found.reference.z, torch.eye(6).double(), spearman)
    return replace(found, reference=replace(found.reference, subspace=subspace))


def without_volumes(count: int, reason: str) -> Facts:
    clipped = np.where(np.arange(COUNT) < count, np.nan, 0.0)
    return replace(facts(reason=some(count, reason)), clipped=clipped)


def some(count: int, value: Any, others: Any = None) -> pa.Array:
    return pa.array([value] * count + [others] * (COUNT - count))


def test_nothing_to_warn_of() -> None:
    assert warnings_of(facts()) == []


line = torch.randn(COUNT, 1) @ torch.randn(1, 40) + 1e-4 * torch.randn(COUNT, 40)
heavy = torch.randn(COUNT, 6) * torch.tensor([1.0, 1, 1, 30, 1, 1])


@pytest.mark.parametrize(
    ("finding", "found", "expected"),
    [
        (findings.collapsed, lambda: facts(torch.ones(COUNT, 6)), ["has collapsed", "0e+00"]),
        (findings.collapsed, lambda: facts(line), ["nearly collapsed", "1.0 of 40"]),
        (findings.parallel, lambda: facts(torch.randn(COUNT, 6) + 100), ["cosine of 1.000", "--pooling"]),
        (findings.dominated, lambda: facts(heavy), ["Coordinate 3 of 6", "% of the embeddings' variance"]),
        (findings.few_embeddings, lambda: facts(torch.randn(7, 6)), ["7 different embeddings", "12"]),
        (findings.few_embeddings, lambda: facts(torch.randn(30, 40)), ["K = 40", "30 embeddings", "shrunk by"]),
        (
            findings.follows_complexity,
            lambda: facts(log_density=np.arange(COUNT) + 0.5, compressed_size=np.arange(COUNT)[::-1]),
            ["log_density follows", "-1.00"],
        ),
        (
            findings.follows_complexity,
            lambda: facts(log_density=None, embedding_log_density=np.arange(COUNT), compressed_size=np.arange(COUNT)),
            ["embedding_log_density follows", "1.00"],
        ),
        (findings.clips, lambda: replace(facts(), clipped=np.arange(COUNT) % 4.0), ["150 images", "(3 at most)"]),
        (findings.imprecise, lambda: replace(facts(), imprecise=np.arange(COUNT) % 2), ["100 images", "0.1 nats"]),
        (findings.unfaithful, lambda: with_subspace(facts(), 0.83), ["4 rows", "0.83", "--estimator exact"]),
        (
            findings.lacks_jepa_score,
            lambda: with_subspace(facts(jepa_score=pa.nulls(COUNT, pa.float64())), 1.0),
            ["all 6 singular values", "4 rows"],
        ),
        (findings.incomplete, lambda: without_volumes(170, NOT_MEASURED), ["30 of 200 images", "--budget"]),
        (findings.incomplete, lambda: without_volumes(170, "it is text"), ["30 of 200 images", "reason says why"]),
        (findings.unreadable, lambda: facts(compressed_size=some(190, 5)), ["10 of 200 files"]),
        (findings.not_finite, lambda: facts(reason=some(3, "its embedding is not finite")), ["3 of 200"]),
        (findings.not_searched, lambda: facts(nearest_distance=None), ["200 images", "--scores nearest_distance"]),
        (findings.duplicates, lambda: facts(nearest_distance=some(4, 0.0, 1.0)), ["4 images have a copy"]),
    ],
)
def test_a_warning_has_its_number(
    finding: Callable[[Facts], str | None], found: Callable[[], Facts], expected: list[str]
) -> None:
    facts_found = found()
    sentence = finding(facts_found)
    assert sentence is not None
    assert all(part in sentence for part in expected), sentence
    assert sentence.endswith(".")
    assert sentence in warnings_of(facts_found)


def test_a_singular_covariance_is_named() -> None:
    found = facts()
    assert found.reference is not None
    without = replace(found, reference=replace(found.reference, mahalanobis=None))
    assert "6 coordinates" in str(findings.no_gaussian(without))


def test_a_ranking_of_files_alone_has_no_reference() -> None:
    found = replace(facts(log_density=None, embedding_log_density=None, mahalanobis=None), reference=None)
    assert warnings_of(found) == []
