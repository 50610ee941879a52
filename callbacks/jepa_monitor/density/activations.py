"""GELU whose derivative is computed once a forward pass instead of once a row of the Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class SavedDerivatives(TorchFunctionMode):
    """While it lasts, ``torch.nn.functional.gelu`` keeps its derivative: a backward pass multiplies, without erf.

    With K backward passes behind one forward pass, PyTorch's own would evaluate erf and exp K times. The values are
    the same: the derivative comes from PyTorch's own formula.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace one function, leave all others."""
        if func is F.gelu:
            return _gelu(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _gelu(input: Tensor, approximate: str = "none") -> Tensor:
    result: Tensor = _Gelu.apply(input, approximate)[0]
    return result


class _Gelu(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, approximate: str) -> tuple[Tensor, Tensor]:
        derivative = torch.ops.aten.gelu_backward(torch.ones_like(x), x, approximate=approximate)
        return F.gelu(x, approximate=approximate), derivative

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (derivative,) = ctx.saved_tensors
        return gradients[0] * derivative, None
