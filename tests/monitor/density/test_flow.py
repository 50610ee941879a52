"""The flow against a known density, and its refusals."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from jepa_monitor import GaussianDensity
from jepa_monitor.density import FlowDensity
from tests.monitor.density.helpers import embed_isometrically

TWO = MixtureSameFamily(
    Categorical(torch.tensor([0.5, 0.5])),
    MultivariateNormal(torch.tensor([[-2.0, 0.0], [2.0, 1.0]]), 0.5 * torch.eye(2)),
)


def test_a_known_mixture_is_learnt() -> None:
    z, held_out = TWO.sample((2000,)), TWO.sample((500,))
    state = torch.get_rng_state()
    with torch.inference_mode():
        fitted = FlowDensity.fit(z, transforms=1, hidden=16, max_steps=100)
    assert torch.equal(torch.get_rng_state(), state)
    truth, found = TWO.log_prob(held_out).double(), fitted.log_density(held_out)
    gaussian = GaussianDensity.fit(z).log_density(held_out)
    assert float((truth - found).mean()) == pytest.approx(0.0, abs=0.1)
    assert float((truth - gaussian).mean()) > 0.3
    assert found.dtype == torch.float64
    assert not found.requires_grad


def test_it_integrates_to_one() -> None:
    """Whatever it has learnt: over a square that holds all of it but 1e-3."""
    z = TWO.sample((400,)).double()
    fitted = FlowDensity.fit(z, transforms=1, hidden=8, max_steps=20)
    sides, step = torch.linspace(-10.0, 10.0, 201), 0.1
    square = torch.cartesian_prod(sides, sides)
    assert float(fitted.log_density(square).exp().sum()) * step**2 == pytest.approx(1.0, abs=0.01)


def test_scale_rotation_and_device_of_a_density_that_is_fitted_shortly() -> None:
    """A flow of whitened coordinates: a scale adds a constant, a flat cloud has the density of its flat."""
    z = TWO.sample((200,)).double()
    fitted = FlowDensity.fit(z, transforms=1, hidden=8, max_steps=3)
    scaled = FlowDensity.fit(2.0 * z, transforms=1, hidden=8, max_steps=3)
    expected = fitted.log_density(z) - 2 * torch.tensor(2.0).double().log()
    torch.testing.assert_close(scaled.log_density(2.0 * z), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(fitted.log_density(z), FlowDensity.fit(z, transforms=1, hidden=8, max_steps=3).log_density(z))
    cloud = embed_isometrically(z, 5)
    assert torch.isfinite(FlowDensity.fit(cloud, transforms=1, hidden=8, max_steps=1).log_density(cloud)).all()
    moved = fitted.to("meta")
    assert {tensor.device.type for tensor in moved.flow.parameters()} == {"meta"}
    assert {tensor.device.type for tensor in fitted.flow.parameters()} == {"cpu"}


def test_too_few_embeddings_and_a_missing_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="at least 20 finite embeddings, got 19"):
        FlowDensity.fit(torch.randn(19, 2))
    with pytest.raises(ValueError, match="collapsed to a point"):
        FlowDensity.fit(torch.ones(30, 2))
    monkeypatch.setitem(sys.modules, "zuko.flows", None)
    with pytest.raises(ImportError, match="FlowDensity needs zuko: pip install zuko"):
        FlowDensity.fit(torch.randn(30, 2))
