"""Epps-Pulley statistic of 1-d projections: the distance between a sample's characteristic function and N(0, 1)'s.

T = n * integral of |phi_n(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt over [-3, 3], as in SIGReg (arXiv 2511.08544): 17
knots on [0, 3], trapezoid rule, doubled because the integrand is even. Under N(0, 1) its mean is 1.05 for every n.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.autograd.function import FunctionCtx, NestedIOFunction, once_differentiable

from .cloud import Cloud, count_axes, gaussian_white

KNOTS = 17
T_MAX = 3.0
NULL_DRAWS = 256
# the law of the largest statistic is the same from 64 samples on, to the precision of 256 draws; slices are many
NULL_SAMPLES, NULL_SAMPLES_OF_SLICES = 512, 128
SLICES_TOGETHER = 512  # of several draws


def characteristic_function(projections: Tensor) -> Tensor:
    """Sums over samples of cos(t x) and sin(t x) at the knots; differentiable.

    Sums, not means, so that the sums of several processes or batches can be added. Powers of exp(i t_1 x) stand for a
    cosine and a sine at each knot, forwards and backwards, in parts that stay in a cache: several times as fast, and
    nothing of the size (N, S, KNOTS) is kept.

    Args:
        projections: (N, S) samples along S directions.

    Returns:
        (2, S, KNOTS): cosine and sine sums.
    """
    sums: Tensor = _CharacteristicSums.apply(projections)
    return sums


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


def random_directions(size: int, count: int, *, generator: Generator) -> Tensor:
    """(size, count) unit vectors in float32, uniform on the sphere, drawn on the generator's device."""
    directions = torch.randn(size, count, generator=generator, dtype=torch.float32, device=generator.device)
    lengths: Tensor = directions.norm(dim=0, keepdim=True)
    return directions / lengths.clamp_min(math.sqrt(torch.finfo(torch.float32).tiny))


def sliced_epps_pulley(z: Tensor | Cloud, *, num_slices: int = 256, seed: int = 0) -> Tensor:
    """Epps-Pulley statistics along fixed random directions, of the embeddings as they are.

    Args:
        z: (N, K) embeddings.
        num_slices: S, directions.
        seed: seed of the directions: the same directions at each measurement make values comparable.

    Returns:
        (S,) float64 statistics; 0.402 N for a cloud collapsed to the origin, NaN without samples.
    """
    z = Cloud.of(z).z
    directions = random_directions(z.shape[1], num_slices, generator=Generator().manual_seed(seed))
    return _statistics(z @ directions.to(z))


def sliced_epps_pulley_null(n: int, k: int) -> float:
    """Mean of :func:`sliced_epps_pulley` under N(0, I), 1.0525 for any N and K.

    n E|phi_n - phi|^2 = 1 - exp(-t^2), integrated by the same rule.
    """
    del n, k
    return _integral(lambda t: 1.0 - np.exp(-(t**2)))


def sliced_epps_pulley_max_null(n: int, k: int, *, num_slices: int = 256) -> float:
    """Mean of the largest of :func:`sliced_epps_pulley` under N(0, I), from draws; standard error 1.6 %."""
    return _sliced_max(min(n, NULL_SAMPLES_OF_SLICES), k, num_slices) if n else math.nan


def axis_epps_pulley(z: Tensor | Cloud) -> Tensor:
    """Epps-Pulley statistics along the whitened principal axes: sees a single odd axis that random slices miss.

    Whitened means scaled by the cloud's own mean and covariance, so location and scale do not count. An odd axis is
    found where it is a principal axis, so where its variance stands out from the others'.

    Args:
        z: (N, K) embeddings.

    Returns:
        (A,) float64 statistics, A <= 64 (:attr:`Cloud.white`), widest axis first; one NaN where there is no axis.
    """
    white = Cloud.of(z).white
    return _statistics(white) if white.shape[1] else white.new_full((1,), math.nan)


def axis_epps_pulley_null(n: int, k: int) -> float:
    """Mean of :func:`axis_epps_pulley` under any Gaussian, exactly; 0.3289 for large N, NaN where there is no axis.

    A whitened axis is a uniform unit vector without mean, times sqrt(N): each of its entries is sqrt(N - 1) times a
    coordinate of the unit sphere in N - 1 dimensions, and the difference of two of them sqrt(2 N) times one.
    """
    if not count_axes(n, k):
        return math.nan
    n = min(n, 10**5)  # beyond it, the differences below are rounding

    def excess(t: NDArray[np.float64]) -> NDArray[np.float64]:
        same = _sphere_characteristic(n - 1, t * math.sqrt(n - 1))
        pair = _sphere_characteristic(n - 1, t * math.sqrt(2 * n))
        return 1.0 + (n - 1) * pair + n * (np.exp(-(t**2)) - 2.0 * np.exp(-0.5 * t**2) * same)

    return _integral(excess)


def axis_epps_pulley_max_null(n: int, k: int) -> float:
    """Mean of the largest of :func:`axis_epps_pulley` under any Gaussian, from draws; standard error 2 %."""
    axes = count_axes(n, k)
    return _axis_max(min(n, NULL_SAMPLES), axes) if axes else math.nan


@lru_cache(maxsize=256)
def _sliced_max(n: int, k: int, num_slices: int) -> float:
    generator = Generator().manual_seed(0)
    directions = random_directions(k, num_slices, generator=generator)
    # projections of N(0, I) have the covariance D^T D = R^T R: no need for more dimensions than directions
    root = torch.linalg.qr(directions.double()).R.float()
    shape = (n, len(root))
    return _mean_largest(
        lambda: torch.randn(shape, generator=generator, dtype=root.dtype, device=root.device) @ root, num_slices
    )


@lru_cache(maxsize=256)
def _axis_max(n: int, axes: int) -> float:
    generator = Generator().manual_seed(0)
    return _mean_largest(lambda: gaussian_white(n, axes, generator=generator), axes)


def _mean_largest(draw: Callable[[], Tensor], slices: int) -> float:
    """Mean over draws (N, S) of the largest statistic; few slices leave a processor idle, so draws go together."""
    together = max(1, SLICES_TOGETHER // slices)
    largest = []
    with torch.autocast("cpu", enabled=False):  # or the draws of a bf16 run would be cached for all others
        for first in range(0, NULL_DRAWS, together):
            draws = [draw() for _ in range(first, min(first + together, NULL_DRAWS))]
            largest.append(_statistics(torch.cat(draws, dim=1)).view(len(draws), slices).amax(1))
    return float(torch.cat(largest).double().mean())


def _statistics(projections: Tensor) -> Tensor:
    """(N, S) -> (S,)."""
    return epps_pulley(characteristic_function(projections), float(len(projections)))


class _CharacteristicSums(torch.autograd.Function):
    """(N, S) -> (2, S, KNOTS), by powers of exp(i t_1 x)."""

    @staticmethod
    def forward(projections: Tensor) -> Tensor:
        sums = torch.stack([_power_sums(part) for part in projections.split(_rows(projections))]).sum(0)
        return torch.stack([sums.real, sums.imag])

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: NestedIOFunction, gradient: Tensor) -> Tensor:
        """(2, S, KNOTS) -> (N, S): the real part of sum_k t_k (g_sin + i g_cos) exp(i t_k x), by Horner's rule."""
        (projections,) = ctx.saved_tensors
        knots = torch.linspace(0.0, T_MAX, KNOTS, dtype=gradient.dtype, device=gradient.device)
        weights = torch.complex(gradient[1] * knots, gradient[0] * knots).T.contiguous()  # (KNOTS, S)
        return torch.cat([_weighted_powers(part, weights) for part in projections.split(_rows(projections))])


def _rows(projections: Tensor) -> int:
    """Rows whose powers are taken together: on a CPU what stays in its cache, elsewhere all."""
    slices = max(1, projections.shape[1])
    return max(1, 2**15 // slices if projections.device.type == "cpu" else len(projections))


def _step(projections: Tensor) -> Tensor:
    """exp(i t_1 x)."""
    phase = projections * (T_MAX / (KNOTS - 1))
    return torch.complex(phase.cos(), phase.sin())


def _power_sums(projections: Tensor) -> Tensor:
    step = _step(projections)
    power = torch.ones_like(step)
    return torch.stack([power.sum(0), *(power.mul_(step).sum(0) for _ in range(KNOTS - 1))], dim=-1)


def _weighted_powers(projections: Tensor, weights: Tensor) -> Tensor:
    step = _step(projections)
    total = weights[-1].expand_as(step).clone()
    for weight in weights[:-1].flip(0):
        total.mul_(step).add_(weight)
    return total.real


def _integral(excess: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> float:
    """The statistic whose n |phi_n - phi|^2 is this function of t."""
    knots = np.linspace(0.0, T_MAX, KNOTS)
    return 2.0 * float(np.trapezoid(excess(knots) * np.exp(-0.5 * knots**2), knots))


def _sphere_characteristic(dimensions: int, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """E exp(i t v) of a coordinate v of the unit sphere, 0F1(; dimensions / 2; -t^2 / 4), by its power series."""
    term = np.ones_like(t)
    total = term
    for j in range(80):
        term = term * (-(t**2) / 4.0) / ((dimensions / 2.0 + j) * (j + 1))
        total = total + term
    return total
