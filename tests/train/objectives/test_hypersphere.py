"""Uniformity against scipy's pairwise distances and its closed values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from jepa_train.objectives import Uniformity, uniformity
from tests.train.objectives.helpers import rotation, two_views


def oracle(z: np.ndarray, t: float) -> float:
    on_sphere = z / np.linalg.norm(z, axis=1, keepdims=True)
    return float(np.log(np.mean(np.exp(-t * pdist(on_sphere, "sqeuclidean")))))


@pytest.mark.parametrize("t", [0.5, 2.0, 8.0])
def test_uniformity_is_its_formula(t: float) -> None:
    first, second = two_views(23, 4)
    expected = oracle(first.numpy(), t)
    assert float(uniformity(first, t=t)) == pytest.approx(expected, rel=1e-10)
    assert float(uniformity(first.float(), t=t)) == pytest.approx(expected, rel=1e-5)
    both = 0.5 * (expected + oracle(second.numpy(), t))
    assert float(Uniformity(t)(first, second, 0)) == pytest.approx(both, rel=1e-10)


def test_uniformity_at_its_ends() -> None:
    assert float(uniformity(torch.ones(5, 3))) == pytest.approx(0.0, abs=1e-6)
    assert float(uniformity(torch.tensor([[3.0, 0.0], [-2.0, 0.0]]))) == pytest.approx(-8.0)


def test_uniformity_of_uniform_samples() -> None:
    """E exp(2 t cos) on the sphere of K dimensions is the 0F1 of K / 2 and t^2."""
    potential = sum(math.gamma(32.0) / math.gamma(32.0 + j) * 4.0**j / math.factorial(j) for j in range(40))
    expected = -4.0 + math.log(potential)
    assert expected == pytest.approx(-4.0 + 8.0 / 64, rel=1e-2)
    assert float(uniformity(torch.randn(2000, 64).double())) == pytest.approx(expected, rel=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(1, 5))
def test_rotations_and_lengths_do_not_count(seed: int, count: int, size: int) -> None:
    z = two_views(count, size, seed)[0]
    lengths = torch.linspace(0.5, 4.0, count).double().unsqueeze(1)
    torch.testing.assert_close(uniformity(lengths * z @ rotation(size, seed)), uniformity(z))
