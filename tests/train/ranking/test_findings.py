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
from jepa_train.ranking.embedding import NOT_FINITE
from jepa_train.ranking.findings import Facts, warnings_of
from jepa_train.ranking.reasons import ALONE, NO_JACOBIAN, NOT_MEASURED
from jepa_train.ranking.references import RankingReference, fit_reference

COUNT = 200


def reference(z: Tensor) -> RankingReference:
    return fit_reference(z.float().numpy(), np.arange(len(z)), images="a", encoder="e", source="s")


def facts(z: Tensor | None = None, scores: list[str] | None = None, **columns: Any) -> Facts:
    """Facts of a ranking that has nothing to warn of, but for the given embeddings and columns; ``None`` is no column.

    The columns are there whatever ``scores`` asks for.
    """
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
        "nearest_difference": 10.0 + draws.random(COUNT),
        "clipped": np.zeros(COUNT),
        "imprecise": np.zeros(COUNT),
        "reason": pa.nulls(COUNT, pa.string()),
        **columns,
    }
    table = {name: column for name, column in table.items() if column is not None}
    z = torch.randn(COUNT, 6) if z is None else z
    return Facts(pa.table(table), wanted_columns(scores), reference(z))


def with_subspace(found: Facts, spearman: float) -> Facts:
    assert found.reference is not None
    subspace = Subspace(2, 4, found.reference.z, torch.eye(6).double(), spearman)
    return replace(found, reference=replace(found.reference, subspace=subspace))


def without_volumes(count: int, reason: str) -> Facts:
    return facts(reason=some(count, reason), clipped=some(count, None, 0.0))


def some(count: int, value: Any, others: Any = None) -> pa.Array:
    return pa.array([value] * count + [others] * (COUNT - count))


def copies(count: int) -> Facts:
    return facts(nearest_distance=some(count, 0.0, 1.0), nearest_difference=some(count, 0.0, 10.0))


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
        (
            findings.empty,
            lambda: facts(mahalanobis=pa.nulls(COUNT, pa.float64()), log_density=pa.nulls(COUNT, pa.float64())),
            ["No image has a value of log_density and mahalanobis: reason says why."],
        ),
        (findings.few_embeddings, lambda: facts(torch.randn(7, 6)), ["7 different embeddings", "12"]),
        (
            findings.few_embeddings,
            lambda: facts(torch.randn(30, 40)),
            ["30 embeddings", "K = 40 coordinates", "is shrunk by "],
        ),
        (
            findings.follows_complexity,
            lambda: facts(log_density=np.arange(COUNT) + 0.5, compressed_size=np.arange(COUNT)[::-1]),
            ["log_density (-1.00) follows the complexity", "from 0.7 on"],
        ),
        (
            findings.follows_complexity,
            lambda: facts(
                mahalanobis=-np.arange(COUNT),
                jepa_score=np.arange(COUNT),
                embedding_log_density=np.arange(COUNT),
                compressed_size=np.arange(COUNT),
            ),
            ["jepa_score (1.00), embedding_log_density (1.00) and mahalanobis (-1.00) follow the complexity"],
        ),
        (
            findings.follows_complexity,
            lambda: facts(scores=["doubt"], log_density=np.arange(COUNT), compressed_size=np.arange(COUNT)),
            ["log_density (1.00) follows"],
        ),
        (
            findings.clips,
            lambda: facts(clipped=np.arange(COUNT) % 4.0),
            ["volumes of 150 images", "up to 3 singular values", "below 1e-6"],
        ),
        (
            findings.clips,
            lambda: facts(clipped=some(1, 1.0, 0.0), scores=["doubt"]),
            ["volumes of 1 image are", "up to 1 singular value of the r largest"],
        ),
        (findings.imprecise, lambda: facts(imprecise=np.arange(COUNT) % 2), ["100 images", "0.1 nats"]),
        (findings.unfaithful, lambda: with_subspace(facts(), 0.83), ["4 rows", "0.83", "--estimator exact"]),
        (
            findings.lacks_jepa_score,
            lambda: with_subspace(facts(jepa_score=pa.nulls(COUNT, pa.float64())), 1.0),
            ["all 6 singular values", "4 rows"],
        ),
        (findings.incomplete, lambda: without_volumes(170, NOT_MEASURED), ["30 of 200 images", "--budget"]),
        (findings.incomplete, lambda: without_volumes(170, "it is text"), ["30 of 200 images", "reason says why"]),
        (findings.unreadable, lambda: facts(compressed_size=some(190, 5)), ["10 of 200 files"]),
        (findings.unreadable, lambda: facts(compressed_size=some(199, 5), scores=["mahalanobis"]), ["1 of 200 files"]),
        (findings.not_finite, lambda: facts(reason=some(3, NOT_FINITE)), ["3 of 200 images have an embedding"]),
        (findings.not_finite, lambda: facts(reason=some(1, f"{NO_JACOBIAN}; {ALONE}")), ["1 of 200 images has an"]),
        (findings.not_searched, lambda: facts(nearest_distance=None), ["200 images", "--scores nearest_distance"]),
        (findings.duplicates, lambda: copies(4), ["4 images have a copy"]),
        (findings.duplicates, lambda: replace(copies(1), reference=None), ["1 image has a copy"]),
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
    assert findings.no_gaussian(replace(without, wanted=wanted_columns(["knn_distance"]))) is None


@pytest.mark.parametrize(
    ("finding", "found"),
    [
        (  # a score that nobody asked for
            findings.follows_complexity,
            lambda: facts(scores=["mahalanobis"], log_density=np.arange(COUNT), compressed_size=np.arange(COUNT)),
        ),
        (  # by chance
            findings.follows_complexity,
            lambda: facts(log_density=pa.array([*range(19), *[None] * 181]), compressed_size=np.arange(COUNT)),
        ),
        (findings.follows_complexity, lambda: facts(compressed_size=None)),
        (findings.unreadable, lambda: facts(compressed_size=None)),  # samples that are no files
        (findings.duplicates, lambda: facts(nearest_distance=some(4, 0.0, 1.0))),  # of pictures that differ
        (findings.duplicates, lambda: replace(copies(COUNT), reference=reference(torch.ones(COUNT, 6)))),
        (findings.collapsed, lambda: facts(torch.randn(2, 6))),  # which lie on a line
        (findings.collapsed, lambda: facts(torch.randn(12, 2000))),
        (findings.unfaithful, lambda: replace(with_subspace(facts(), 0.5), wanted=wanted_columns(["mahalanobis"]))),
        (findings.lacks_jepa_score, lambda: replace(with_subspace(facts(), 1.0), wanted=wanted_columns(["doubt"]))),
    ],
)
def test_there_is_no_warning_without_reason(finding: Callable[[Facts], str | None], found: Callable[[], Facts]) -> None:
    assert finding(found()) is None


def test_a_shrinkage_that_rounds_to_nothing_is_not_named() -> None:
    found = facts(torch.randn(30, 40))
    assert found.reference is not None
    assert found.reference.mahalanobis is not None
    hardly = replace(found.reference, mahalanobis=replace(found.reference.mahalanobis, shrinkage=0.004))
    sentence = findings.few_embeddings(replace(found, reference=hardly))
    assert "coordinates: neighbours are far" in str(sentence)


def test_a_ranking_of_files_alone_has_no_reference() -> None:
    found = replace(facts(log_density=None, embedding_log_density=None, mahalanobis=None), reference=None)
    assert warnings_of(found) == []
