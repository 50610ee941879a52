"""Epps-Pulley statistic of 1-d projections: the distance between a sample's characteristic function and N(0, 1)'s.

T = n * integral of |phi_n(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt over [-3, 3], as in SIGReg (arXiv 2511.08544): 17
knots on [0, 3], trapezoid rule, doubled because the integrand is even. Under N(0, 1) its mean is 1.05 for every n.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

KNOTS = 17
T_MAX = 3.0


def characteristic_function(projections: Tensor) -> Tensor:
    """Sums over samples of cos(t x) and sin(t x) at the knots.

    Sums, not means, so that the sums of several processes or batches can be added.

    Args:
        projections: (N, S) samples along S directions.

    Returns:
        (2, S, KNOTS): cosine and sine sums.
    """
    knots = torch.linspace(0.0, T_MAX, KNOTS, dtype=projections.dtype, device=projections.device)
    phase = projections.unsqueeze(-1) * knots
    return torch.stack([phase.cos().sum(0), phase.sin().sum(0)])


def epps_pulley(characteristic_sums: Tensor, count: Tensor | float) -> Tensor:
    """Epps-Pulley statistic of each direction.

    Args:
        characteristic_sums: (2, S, KNOTS) from :func:`characteristic_function`.
        count: number of samples in the sums.

    Returns:
        (S,) statistics; mean 1.05 under N(0, 1), 0.402 * count for a cloud collapsed to the origin.
    """
    knots = torch.linspace(0.0, T_MAX, KNOTS, dtype=characteristic_sums.dtype, device=characteristic_sums.device)
    gaussian = torch.exp(-0.5 * knots.square())
    cosine, sine = characteristic_sums / count
    integrand = ((cosine - gaussian).square() + sine.square()) * gaussian
    integral: Tensor = torch.trapezoid(integrand, knots, dim=-1)
    return 2.0 * count * integral


def epps_pulley_null() -> float:
    """Mean of the statistic under N(0, 1): n E|phi_n - phi|^2 = 1 - exp(-t^2), integrated by the same rule."""
    knots = torch.linspace(0.0, T_MAX, KNOTS, dtype=torch.float64)
    integrand = (1.0 - torch.exp(-knots.square())) * torch.exp(-0.5 * knots.square())
    return 2.0 * float(torch.trapezoid(integrand, knots))


def random_directions(size: int, count: int, *, generator: Generator) -> Tensor:
    """(size, count) unit vectors, uniform on the sphere, drawn on the generator's device."""
    directions = torch.randn(size, count, generator=generator, device=generator.device)
    lengths: Tensor = directions.norm(dim=0, keepdim=True)
    return directions / lengths.clamp_min(math.sqrt(torch.finfo(torch.float32).tiny))


def sliced_epps_pulley(z: Tensor, *, num_slices: int = 256, seed: int = 0) -> Tensor:
    """Epps-Pulley statistics along fixed random directions.

    Args:
        z: (N, K) embeddings.
        num_slices: S, directions.
        seed: of the directions; the same seed gives the same directions, so that measurements can be compared.

    Returns:
        (S,) statistics, each with mean 1.05 under N(0, I).
    """
    directions = random_directions(z.shape[1], num_slices, generator=torch.Generator().manual_seed(seed))
    # in slices of samples: (N, S, KNOTS) at once would be gigabytes for a large probe
    sums = torch.stack([characteristic_function(part @ directions.to(z)) for part in z.split(512)]).sum(0)
    return epps_pulley(sums, float(len(z)))
