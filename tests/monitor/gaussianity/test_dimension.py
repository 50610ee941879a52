"""RankMe against numpy; its null value against draws, with more samples than dimensions and with fewer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from jepa_monitor.gaussianity import effective_rank, effective_rank_null


@pytest.mark.parametrize(("n", "k"), [(100, 8), (8, 100), (30, 30), (2, 5)])
def test_against_numpy(n: int, k: int) -> None:
    z = torch.randn(n, k) * torch.logspace(0, -3, k)
    array = z.double().numpy()
    singular = np.linalg.svd(array - array.mean(0), compute_uv=False)
    shares = singular[singular > 1e-12] / singular.sum()
    # the square root of rounding in the Gram matrix
    assert effective_rank(z) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-6)


def test_by_hand() -> None:
    cross = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert effective_rank(cross) == pytest.approx(2.0)
    assert effective_rank(torch.arange(5.0).outer(torch.ones(3))) == pytest.approx(1.0, abs=1e-5)


def test_rounding_in_float32_is_no_rank() -> None:
    flat = torch.randn(500, 8) @ torch.randn(8, 64)
    exact = effective_rank((flat.double() @ torch.linalg.pinv(flat.double())) @ flat.double())
    assert effective_rank(flat) == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize(
    ("n", "k"), [(2, 9), (4, 4), (20, 5), (64, 4), (10, 40), (33, 40), (65, 64), (100, 200), (512, 32), (256, 64)]
)
def test_null(n: int, k: int) -> None:
    draws = np.array([effective_rank(z) for z in torch.randn(300, n, k)])
    null = effective_rank_null(n, k)
    error = 4.0 * draws.std() * math.sqrt(1 / 300 + 1 / 1024)
    assert abs(draws.mean() - null) < error + 5e-4 * null


def test_both_forms_of_the_null_meet() -> None:
    assert effective_rank_null(1000, 31) / 31 == pytest.approx(effective_rank_null(1032, 32) / 32, rel=5e-4)


def test_null_with_few_dimensions_is_that_of_facts() -> None:
    assert effective_rank_null(100_000, 64) == pytest.approx(64 * math.exp(-64 / 8e5), rel=1e-5)
