"""VICReg's variance and covariance terms against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from jepa_train.objectives import VICReg, vicreg
from tests.train.objectives.clouds import two_views


def test_vicreg_is_its_formula() -> None:
    z = torch.randn(50, 4).double() * torch.tensor([0.3, 0.9, 1.5, 2.0]).double()
    covariance = np.cov(z.numpy(), rowvar=False)
    variance_loss = sum(max(0.0, 1.0 - math.sqrt(covariance[k, k] + 1e-4)) for k in range(4)) / 4
    off_diagonal = sum(covariance[i, j] ** 2 for i in range(4) for j in range(4) if i != j) / 4
    assert float(vicreg(z)) == pytest.approx(25 * variance_loss + off_diagonal)
    assert float(VICReg(1.0, 0.0)(z, z, 0)) == pytest.approx(variance_loss)
    assert float(VICReg(0.0, 1.0)(z, z, 0)) == pytest.approx(off_diagonal)


def test_vicreg_is_zero_for_uncorrelated_coordinates_of_unit_variance() -> None:
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert float(vicreg(signs)) == 0.0
    assert float(vicreg(0.5 * signs)) > 1.0


def test_both_views_count_alike() -> None:
    first, second = two_views(20, 3)
    torch.testing.assert_close(VICReg()(first, 3 * second, 0), 0.5 * (vicreg(first) + vicreg(3 * second)))
