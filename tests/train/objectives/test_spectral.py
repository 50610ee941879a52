"""The spectral penalty against numpy's singular vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from jepa_train.errors import ConfigurationError
from jepa_train.objectives import spectral_penalty


class Several(nn.Module):
    """Wide, tall, square and frozen linear layers, one weight that two layers share, and what is not linear."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.tall, self.square = nn.Linear(9, 4), nn.Linear(3, 7), nn.Linear(5, 5, bias=False)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.twin = nn.Linear(9, 4)
        self.twin.weight = self.wide.weight
        self.others = nn.Sequential(nn.Conv2d(3, 4, 2), nn.LayerNorm(4), nn.Embedding(5, 6))

    @property
    def counted(self) -> list[nn.Parameter]:
        return [self.wide.weight, self.tall.weight, self.square.weight]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_value_and_gradient_are_those_of_the_first_singular_triple(dtype: torch.dtype, tolerance: float) -> None:
    module = Several().to(dtype)
    penalty = spectral_penalty(module)
    penalty.backward()
    expected = 0.0
    for weight in module.counted:
        left, values, right = np.linalg.svd(weight.detach().double().numpy())
        expected += 0.5 * values[0] ** 2
        assert weight.grad is not None
        np.testing.assert_allclose(
            weight.grad.numpy(), values[0] * np.outer(left[:, 0], right[0]), rtol=tolerance, atol=tolerance
        )
    assert float(penalty.detach()) == pytest.approx(expected, rel=tolerance)
    touched = {id(p) for p in module.parameters() if p.grad is not None}
    assert touched == {id(weight) for weight in module.counted}


def test_gradient_agrees_with_finite_differences() -> None:
    layer = nn.Linear(4, 3).double()

    def penalty(weight: torch.Tensor) -> torch.Tensor:
        layer.weight = nn.Parameter(weight)
        value = spectral_penalty(layer)
        (gradient,) = torch.autograd.grad(value, layer.weight)
        return value.detach() + (gradient * (weight - weight.detach())).sum()

    assert torch.autograd.gradcheck(penalty, (torch.randn(3, 4).double().requires_grad_(),))


def test_only_the_largest_singular_value_shrinks() -> None:
    layer = nn.Linear(6, 6, bias=False).double()
    before = torch.linalg.svdvals(layer.weight.detach())
    spectral_penalty(layer).backward()
    assert layer.weight.grad is not None
    after = torch.linalg.svdvals(layer.weight.detach() - 0.01 * layer.weight.grad)
    torch.testing.assert_close(after[0], 0.99 * before[0])
    torch.testing.assert_close(after[1:], before[1:])


def test_gradient_is_finite_at_zero() -> None:
    layer = nn.Linear(4, 4)
    nn.init.zeros_(layer.weight)
    spectral_penalty(layer).backward()
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, torch.zeros(4, 4))


def test_penalty_stays_in_float32_under_autocast() -> None:
    module = Several()
    plain = spectral_penalty(module)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(spectral_penalty(module), plain)
    assert torch.isfinite(spectral_penalty(module.bfloat16()))


def test_a_module_without_trainable_linear_layers_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="has none that are trained"):
        spectral_penalty(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Linear(2, 2).requires_grad_(False)))
