"""Mixtures of latents against torch.distributions."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from jepa_train.data.latents import random_mixture
from jepa_train.errors import ConfigurationError

SETTINGS = {"num_components": 3, "separation": 2.0, "narrowest": 0.4, "seed": 1}


def test_the_density_is_that_of_a_mixture_of_normals() -> None:
    mixture = random_mixture(4, **SETTINGS)
    latents, component = mixture.sample(500, torch.Generator().manual_seed(0))
    widths = mixture.widths.unsqueeze(1).expand(-1, 4)
    oracle = MixtureSameFamily(Categorical(mixture.weights), Independent(Normal(mixture.means, widths), 1))
    torch.testing.assert_close(mixture.log_density(latents), oracle.log_prob(latents), rtol=0.0, atol=1e-12)
    distances = (latents - mixture.means[component]).square().mean(1)
    for m, width in enumerate(mixture.widths):
        torch.testing.assert_close(distances[component == m].mean(), width**2, rtol=0.2, atol=0.0)


def test_means_and_widths_are_what_was_asked_for() -> None:
    mixture = random_mixture(2, **SETTINGS)
    torch.testing.assert_close(mixture.means.norm(dim=1), torch.full((3,), 2.0, dtype=torch.float64))
    assert mixture.widths[0] == pytest.approx(0.4)
    assert mixture.widths[-1] == pytest.approx(1.0)
    assert mixture.weights.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("wrong", [{"num_components": 0}, {"separation": -1.0}, {"narrowest": 0.0}])
def test_a_number_that_cannot_work_is_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=f"^{next(iter(wrong))} must be"):
        random_mixture(2, **(SETTINGS | wrong))  # type: ignore[arg-type]  # settings of several types
