"""The statistic against its integral and against numpy; its null values against draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import Tensor

from jepa_monitor.gaussianity import (
    axis_epps_pulley,
    axis_epps_pulley_max_null,
    axis_epps_pulley_null,
    characteristic_function,
    epps_pulley,
    gaussianity_statistics,
    random_directions,
    sliced_epps_pulley,
    sliced_epps_pulley_max_null,
    sliced_epps_pulley_null,
)


def brute_force(x: np.ndarray) -> float:
    """The statistic of one direction, one knot after the other."""
    total = 0.0
    for j in range(17):
        t = 3.0 * j / 16
        distance = abs(np.exp(1j * t * x).mean() - math.exp(-t * t / 2)) ** 2
        total += (0.5 if j in (0, 16) else 1.0) * distance * math.exp(-t * t / 2) * 3.0 / 16
    return 2.0 * len(x) * total


def sums_by_autograd(x: Tensor) -> Tensor:
    """Cosine and sine sums, a cosine and a sine at each knot."""
    phase = x.unsqueeze(-1) * torch.linspace(0.0, 3.0, 17, dtype=x.dtype)
    return torch.stack([phase.cos().sum(0), phase.sin().sum(0)])


@pytest.mark.parametrize(
    ("shape", "dtype", "rounding"),
    [
        ((7, 3), torch.float64, 1e-12),
        ((400, 300), torch.float64, 1e-12),  # in several parts
        ((400, 300), torch.float32, 2e-5),
        ((2, 40_000), torch.float32, 2e-5),  # a row is larger than a part
        ((0, 3), torch.float64, 0.0),
        ((3, 0), torch.float64, 0.0),
    ],
)
def test_characteristic_sums_and_their_gradient_are_autograds(
    shape: tuple[int, int], dtype: torch.dtype, rounding: float
) -> None:
    x = 3.0 * torch.randn(shape, dtype=dtype) + 1.0
    weights = torch.randn(2, shape[1], 17, dtype=dtype)
    pairs = []
    for compute in (characteristic_function, sums_by_autograd):
        leaf = x.clone().requires_grad_()
        sums = compute(leaf)
        (gradient,) = torch.autograd.grad((sums * weights).sum(), leaf)
        pairs.append((sums.detach(), gradient))
    for found, expected in zip(*pairs, strict=True):
        assert found.shape == expected.shape
        assert found.dtype == dtype
        scale = float(expected.abs().max()) or 1.0 if expected.numel() else 1.0
        torch.testing.assert_close(found / scale, expected / scale, rtol=0.0, atol=rounding)


def test_the_sums_are_differentiated_once() -> None:
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(characteristic_function(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_epps_pulley_is_its_integral_up_to_the_knots() -> None:
    x = torch.randn(50, 1).double()

    def integrand(t: float) -> float:
        phi = np.exp(1j * t * x.numpy()).mean()
        return float(abs(phi - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2))

    exact = 50 * integrate.quad(integrand, -3.0, 3.0, limit=200)[0]
    value = float(epps_pulley(characteristic_function(x), 50.0))
    assert value == pytest.approx(exact, rel=2e-2)
    assert value == pytest.approx(brute_force(x[:, 0].numpy()), rel=1e-12)


@pytest.mark.parametrize("n", [1, 7, 300])
def test_slices_are_epps_pulley_of_projections(n: int) -> None:
    z = 1.7 * torch.randn(n, 5) + 0.4
    directions = random_directions(5, 40, generator=torch.Generator().manual_seed(3)).double()
    expected = [brute_force(column) for column in (z.double() @ directions).T.numpy()]
    values = sliced_epps_pulley(z, num_slices=40, seed=3)
    assert values.dtype == torch.float64
    np.testing.assert_allclose(values, expected, rtol=1e-9)


def test_axes_are_epps_pulley_of_whitened_principal_coordinates() -> None:
    z = torch.randn(200, 6) @ torch.randn(6, 6) + 5.0
    u = np.linalg.svd(z.double().numpy() - z.double().numpy().mean(0), full_matrices=False)[0]
    expected = [brute_force(column) for column in math.sqrt(200) * u.T]
    np.testing.assert_allclose(axis_epps_pulley(z), expected, rtol=1e-8)


@pytest.mark.parametrize(("n", "k", "axes"), [(300, 80, 64), (20, 80, 18), (300, 5, 5), (3, 2, 1)])
def test_number_of_axes(n: int, k: int, axes: int) -> None:
    assert axis_epps_pulley(torch.randn(n, k)).shape == (axes,)


def test_axes_of_a_wide_cloud_are_those_of_the_transposed_problem() -> None:
    narrow = torch.randn(30, 10).double()
    wide = narrow @ torch.linalg.qr(torch.randn(50, 50).double()).Q[:10]
    torch.testing.assert_close(axis_epps_pulley(wide), axis_epps_pulley(narrow), rtol=1e-8, atol=1e-8)


def test_collapse() -> None:
    collapsed = sliced_epps_pulley(torch.zeros(1000, 4))
    torch.testing.assert_close(collapsed, torch.full((256,), 402.0).double(), rtol=5e-3, atol=0.0)
    assert axis_epps_pulley(torch.zeros(1000, 4)).isnan().tolist() == [True]


def test_null_of_the_slices() -> None:
    assert sliced_epps_pulley_null(7, 3) == pytest.approx(1.0525, abs=5e-5)

    def integral(t_max: float) -> float:
        return float(integrate.quad(lambda t: (1 - math.exp(-t * t)) * math.exp(-t * t / 2), -t_max, t_max)[0])

    assert sliced_epps_pulley_null(7, 3) == pytest.approx(integral(3.0), rel=2e-4)
    assert integral(math.inf) == pytest.approx(1.0594, abs=5e-5)  # over the whole line


def test_null_of_the_axes_for_many_samples() -> None:
    # estimated mean and variance: the limit's covariance loses 1 + t^2 + t^4 / 2
    t = np.linspace(0.0, 3.0, 17)
    limit = (1.0 - (1.0 + t**2 + t**4 / 2) * np.exp(-(t**2))) * np.exp(-(t**2) / 2)
    assert axis_epps_pulley_null(10**9, 5) == pytest.approx(2.0 * np.trapezoid(limit, t), rel=1e-4)


def within_error(draws: Tensor, null: float, *, null_draws: float = math.inf) -> bool:
    error = float(draws.std()) * math.sqrt(1.0 / len(draws) + 1.0 / null_draws)
    return abs(float(draws.mean()) - null) < 4.0 * error


@pytest.mark.parametrize(("n", "k"), [(3, 1), (5, 2), (12, 30), (100, 8)])
def test_null_of_the_axes_is_exact(n: int, k: int) -> None:
    draws = torch.stack([axis_epps_pulley(torch.randn(n, k)) for _ in range(1500)])
    assert within_error(draws.mean(1), axis_epps_pulley_null(n, k))
    assert within_error(draws.amax(1), axis_epps_pulley_max_null(n, k), null_draws=256)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "k"), [(20, 3), (700, 64), (100, 400)])
def test_null_of_the_largest_slice(n: int, k: int) -> None:
    draws = torch.stack([sliced_epps_pulley(torch.randn(n, k)).max() for _ in range(100)])
    assert within_error(draws, sliced_epps_pulley_max_null(n, k), null_draws=256)


def test_null_of_few_slices_is_smaller() -> None:
    assert sliced_epps_pulley_max_null(64, 16, num_slices=1) == pytest.approx(1.05, abs=0.25)
    assert sliced_epps_pulley_max_null(64, 16, num_slices=8) < sliced_epps_pulley_max_null(64, 16) / 1.5


def test_null_draws_are_the_same_in_any_context_and_leave_the_generator() -> None:
    state = torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        found = sliced_epps_pulley_max_null(51, 3)  # a size of this test alone: draws are kept for the next call
    assert torch.equal(torch.get_rng_state(), state)
    generator = torch.Generator().manual_seed(0)
    root = torch.linalg.qr(random_directions(3, 256, generator=generator).double()).R.float()
    draws = [torch.randn(51, 3, generator=generator) @ root for _ in range(256)]
    largest = [float(epps_pulley(characteristic_function(draw), 51.0).max()) for draw in draws]
    assert found == pytest.approx(np.mean(largest), rel=1e-4)


def test_autocast_changes_no_statistic() -> None:
    z = torch.randn(50, 3)
    plain = gaussianity_statistics(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert gaussianity_statistics(z) == plain
