"""Mixtures of isotropic Gaussians over few latent coordinates: what images of known density show."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from jepa_monitor.runtime.concise import Concise
from jepa_train.errors import check_above_0, check_at_least


@dataclass(frozen=True, repr=False)
class LatentMixture(Concise):
    """Mixture of M isotropic Gaussians in R^r; all tensors are float64.

    Attributes:
        means: (M, r) of the components.
        widths: (M,) standard deviations of the components.
        weights: (M,) probabilities of the components.
    """

    means: Tensor
    widths: Tensor
    weights: Tensor

    def sample(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draw latents (count, r) in float64, and the components (count,) they came from."""
        component = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], generator=generator, dtype=torch.float64)
        return self.means[component] + self.widths[component].unsqueeze(1) * noise, component

    def log_density(self, latents: Tensor) -> Tensor:
        """log p in nats: (N, r) -> (N,)."""
        squared = (latents.unsqueeze(1) - self.means).square().sum(-1)
        variances = self.widths.square()
        log_normal = -0.5 * (squared / variances + latents.shape[1] * torch.log(2.0 * math.pi * variances))
        return torch.logsumexp(self.weights.log() + log_normal, dim=1)


def random_mixture(
    latent_size: int, *, num_components: int, separation: float, narrowest: float, seed: int
) -> LatentMixture:
    """A mixture with random means on a sphere and widths from ``narrowest`` to 1, in geometric steps.

    A narrow component beside wide ones puts the mode away from the mean, which one Gaussian cannot rank.

    Args:
        latent_size: r.
        num_components: M, equally likely.
        separation: distance of the component means from the origin.
        narrowest: standard deviation of the narrowest component.
        seed: seed of the means.

    Raises:
        ConfigurationError: for a number that cannot work.
    """
    check_at_least(1, latent_size=latent_size, num_components=num_components)
    check_at_least(0, separation=separation, seed=seed)
    check_above_0(narrowest=narrowest)
    generator = Generator().manual_seed(seed)
    means = torch.randn(num_components, latent_size, generator=generator, dtype=torch.float64)
    return LatentMixture(
        means=separation * means / means.norm(dim=1, keepdim=True),
        widths=torch.logspace(math.log10(narrowest), 0.0, num_components, dtype=torch.float64),
        weights=torch.full((num_components,), 1.0 / num_components, dtype=torch.float64),
    )
