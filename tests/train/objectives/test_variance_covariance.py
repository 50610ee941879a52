"""VICReg's variance and covariance terms against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import yaml

from jepa_train.cli import CONFIGS
from jepa_train.objectives import VICReg, embedding_prediction, vicreg
from tests.train.objectives.helpers import two_views


def test_vicreg_is_its_formula() -> None:
    z = torch.randn(50, 4).double() * torch.tensor([0.3, 0.9, 1.5, 2.0]).double()
    covariance = np.cov(z.numpy(), rowvar=False)
    variance_loss = sum(max(0.0, 1.0 - math.sqrt(covariance[k, k] + 1e-4)) for k in range(4)) / 4
    off_diagonal = sum(covariance[i, j] ** 2 for i in range(4) for j in range(4) if i != j) / 4
    assert float(vicreg(z)) == pytest.approx(25 * variance_loss + off_diagonal)
    assert float(VICReg(1.0, 0.0)(z, z, 0)) == pytest.approx(variance_loss)
    assert float(VICReg(0.0, 1.0)(z, z, 0)) == pytest.approx(2 * off_diagonal)


def test_vicreg_is_zero_for_uncorrelated_coordinates_of_unit_variance() -> None:
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert float(vicreg(signs)) == 0.0
    assert float(vicreg(0.5 * signs)) > 1.0


def published(first: np.ndarray, second: np.ndarray) -> float:
    """25 : 25 : 1 of invariance, variance (the mean of both views) and covariance (their sum)."""
    loss = 25.0 * np.mean((first - second) ** 2)
    for z in (first, second):
        deviations = np.sqrt(z.var(axis=0, ddof=1) + 1e-4)
        loss += 25.0 * np.maximum(0.0, 1.0 - deviations).mean() / 2.0
        covariance = np.cov(z, rowvar=False)
        loss += ((covariance**2).sum() - (np.diag(covariance) ** 2).sum()) / z.shape[1]
    return float(loss)


def test_the_config_has_the_published_loss_of_two_views() -> None:
    settings = yaml.safe_load((CONFIGS / "objective" / "vicreg.yaml").read_text())["model"]
    first, second = (0.3 * view for view in two_views(20, 3))
    invariance = embedding_prediction(first.unsqueeze(1), second)
    ours = invariance + settings["anticollapse_weight"] * VICReg()(first, second, 0)
    assert 25.0 * float(ours) == pytest.approx(published(first.numpy(), second.numpy()), rel=1e-12)
