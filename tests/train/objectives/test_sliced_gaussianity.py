"""SIGReg against its integral and against its values at the null and at a collapse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from jepa_train.objectives import SIGReg, sigreg
from tests.train.objectives.helpers import unit_directions


def brute_force_sigreg(z: Tensor, directions: Tensor) -> float:
    """Complex exponentials and a trapezoid written out, over the whole symmetric interval."""
    t = torch.linspace(-3.0, 3.0, 33, dtype=torch.float64)
    total = 0.0
    for direction in directions.T.double():
        phi = torch.exp(1j * t * (z.double() @ direction).unsqueeze(1)).mean(0)
        integrand = (phi - torch.exp(-t.square() / 2)).abs().square() * torch.exp(-t.square() / 2)
        total += len(z) * float(torch.trapezoid(integrand, t))
    return total / directions.shape[1]


def test_sigreg_is_its_integral() -> None:
    z, directions = torch.randn(37, 5).double() * 1.3 + 0.2, unit_directions(5, 11)
    assert float(sigreg(z, directions)) == pytest.approx(brute_force_sigreg(z, directions), rel=1e-12)
    assert float(sigreg(z.float(), directions)) == pytest.approx(brute_force_sigreg(z, directions), rel=1e-5)


def test_sigreg_null_and_collapse() -> None:
    draws = torch.stack([sigreg(torch.randn(256, 8), unit_directions(8, 64, seed)) for seed in range(40)])
    assert float(draws.mean()) == pytest.approx(1.0525, abs=4 * float(draws.std()) / math.sqrt(40))
    assert float(sigreg(torch.zeros(256, 8), unit_directions(8, 64))) == pytest.approx(0.402 * 256, rel=5e-3)


def test_sigreg_moves_a_cloud_towards_a_gaussian() -> None:
    z = (3.0 * torch.rand(256, 2) - 1.0).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.05)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=400)
    term = SIGReg(num_slices=32)
    for step in range(400):
        optimizer.zero_grad()
        term(z, z, step).backward()
        optimizer.step()
        decay.step()
    assert float(sigreg(z.detach(), unit_directions(2, 256))) < 0.1
    torch.testing.assert_close(torch.cov(z.detach().T), torch.eye(2), atol=0.05, rtol=0.0)


def test_sigreg_slices_are_those_of_the_seed() -> None:
    z, term = torch.randn(64, 4), SIGReg(num_slices=8)
    assert torch.equal(term(z, z, 3), term(z, z, 3))
    assert not torch.equal(term(z, z, 3), term(z, z, 4))


def test_both_views_are_seen_along_the_same_slices() -> None:
    z = torch.randn(64, 4)
    both = SIGReg(num_slices=8)(z, z.clone(), 3)
    torch.testing.assert_close(both, SIGReg(num_slices=8)(z, z.flip(0), 3))
    mean = 0.5 * (SIGReg(8)(z, z, 3) + SIGReg(8)(2 * z, 2 * z, 3))
    torch.testing.assert_close(SIGReg(8)(z, 2 * z, 3), mean)
