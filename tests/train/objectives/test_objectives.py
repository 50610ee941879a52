"""Objectives against closed forms and second derivations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from jepa_train.errors import ConfigurationError
from jepa_train.objectives import (
    SIGReg,
    VICReg,
    build_anticollapse,
    embedding_prediction,
    sigreg,
    token_prediction,
    vicreg,
)


def brute_force_sigreg(z: Tensor, directions: Tensor) -> float:
    """Complex exponentials and a trapezoid written out, over the whole symmetric interval."""
    t = torch.linspace(-3.0, 3.0, 33, dtype=torch.float64)
    total = 0.0
    for direction in directions.T.double():
        phi = torch.exp(1j * t * (z.double() @ direction).unsqueeze(1)).mean(0)
        integrand = (phi - torch.exp(-t.square() / 2)).abs().square() * torch.exp(-t.square() / 2)
        total += len(z) * float(torch.trapezoid(integrand, t))
    return total / directions.shape[1]


def unit_directions(k: int, count: int) -> Tensor:
    directions = torch.randn(k, count)
    return directions / directions.norm(dim=0)


def test_sigreg_is_its_integral() -> None:
    z, directions = torch.randn(37, 5) * 1.3 + 0.2, unit_directions(5, 11)
    assert float(sigreg(z, directions)) == pytest.approx(brute_force_sigreg(z, directions), rel=1e-5)


def test_sigreg_null_and_collapse() -> None:
    draws = torch.stack([sigreg(torch.randn(256, 8), unit_directions(8, 64)) for _ in range(40)])
    assert float(draws.mean()) == pytest.approx(1.0525, abs=4 * float(draws.std()) / math.sqrt(40))
    assert float(sigreg(torch.zeros(256, 8), unit_directions(8, 64))) == pytest.approx(0.402 * 256, rel=5e-3)


def test_sigreg_moves_a_cloud_towards_a_gaussian() -> None:
    z = (3.0 * torch.rand(256, 2) - 1.0).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.05)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=400)
    term = SIGReg(num_slices=32)
    for step in range(400):
        optimizer.zero_grad()
        term(z, step).backward()
        optimizer.step()
        decay.step()
    assert float(sigreg(z.detach(), unit_directions(2, 256))) < 0.1
    torch.testing.assert_close(torch.cov(z.detach().T), torch.eye(2), atol=0.05, rtol=0.0)


def test_sigreg_slices_are_those_of_the_seed() -> None:
    z, term = torch.randn(64, 4), SIGReg(num_slices=8)
    assert torch.equal(term(z, 3), term(z, 3))
    assert not torch.equal(term(z, 3), term(z, 4))


def test_vicreg_is_its_formula() -> None:
    z = torch.randn(50, 4).double() * torch.tensor([0.3, 0.9, 1.5, 2.0]).double()
    covariance = torch.cov(z.T)
    variance_loss = sum(max(0.0, 1.0 - math.sqrt(float(covariance[k, k]) + 1e-4)) for k in range(4)) / 4
    off_diagonal = sum(float(covariance[i, j]) ** 2 for i in range(4) for j in range(4) if i != j) / 4
    assert float(vicreg(z)) == pytest.approx(25 * variance_loss + off_diagonal)
    assert float(VICReg(1.0, 0.0)(z, 0)) == pytest.approx(variance_loss)


def test_vicreg_gradient_is_finite_at_a_collapse() -> None:
    z = torch.ones(8, 3, requires_grad=True)
    vicreg(z).backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_vicreg_needs_two_samples() -> None:
    with pytest.raises(ConfigurationError, match="at least 2"):
        vicreg(torch.ones(1, 3))


def test_token_prediction_normalises_and_detaches_the_target() -> None:
    predicted, target = torch.randn(2, 3, 4, 6, requires_grad=True), torch.randn(2, 3, 4, 6, requires_grad=True)
    loss = token_prediction(predicted, target)
    normalised = (target - target.mean(-1, keepdim=True)) / (target.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    error = (predicted - normalised).abs()
    expected = torch.where(error < 1.0, 0.5 * error.square(), error - 0.5).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert target.grad is None
    assert predicted.grad is not None


def test_embedding_prediction_has_gradient_on_both_sides() -> None:
    predicted, z = torch.randn(5, 3, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    loss = embedding_prediction(predicted, z)
    assert float(loss.detach()) == pytest.approx(float((predicted - z[:, None]).detach().square().mean()))
    loss.backward()
    assert predicted.grad is not None
    assert z.grad is not None


def test_terms_stay_in_float32_under_autocast() -> None:
    z = torch.randn(64, 4)
    directions = unit_directions(4, 16)
    expected = sigreg(z, directions), vicreg(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sigreg(z, directions), expected[0])
        assert torch.equal(vicreg(z), expected[1])


def test_unknown_name_is_refused() -> None:
    assert build_anticollapse("none") is None
    with pytest.raises(ConfigurationError, match="sigreg, vicreg, none"):
        build_anticollapse("barlow")  # type: ignore[arg-type]  # the point of the test
