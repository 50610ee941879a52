"""Ways to compute Jacobian rows of a batch of independent samples; all give the same numbers at different costs.

Each maps ``(encode, x (B, ...), rows)`` to J (B, M, D) and the embeddings z (B, K), in the encoder's precision, with
D = numel of a sample; rows are (M, K), or (B, M, K) where each sample has its own, or ``None`` for all K outputs.
Independent samples let one pass serve the whole batch: the gradient of a sum over the batch has each sample's own
gradient in its place.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

Encode: TypeAlias = Callable[[Tensor], Tensor]
Strategy: TypeAlias = Literal["auto", "loop", "replicate", "jacrev", "forward", "patches"]


def on_a_copy(encode: Encode) -> Encode:
    """Let the encoder write into its input: it gets a copy, so the caller's input or a leaf of autograd stays whole."""
    return lambda x: encode(x.clone())


@contextmanager
def full_float32() -> Generator[None, None, None]:
    """Switch TF32 and bfloat16 stand-ins for float32 off: the small singular values would be their rounding."""
    backends: Any = torch.backends  # its type information lacks them
    backends = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def agrees_with_autograd(jacobian: Tensor, encode: Encode, x: Tensor, rows: Tensor | None) -> bool:
    """Compare one combination of a Jacobian's rows (B, M, D) with a plain backward pass.

    Vectorised rules of torch can be wrong without an error (``torch.cdist`` has such rules, and which are taken depends
    on the number of samples). A combination of all rows sees each of them. Samples whose plain gradient is not finite
    do not count. They may differ by as much as the coarsest precision that the encoder computes in explains, such as
    bfloat16 under an autocast of its own.
    """
    # weights that half precision has too
    weights = torch.arange(1, jacobian.shape[1] + 1, dtype=torch.float64).cos().to(torch.bfloat16).to(x)
    with torch.enable_grad(), _CoarsestPrecision(x.dtype) as computed:
        x = x.detach().requires_grad_(True)
        z = encode(x)
        of_outputs = weights if rows is None else weights @ rows.to(weights)
        (gradient,) = torch.autograd.grad((z * of_outputs.to(z)).sum(), x)
    expected, found = gradient.flatten(1), weights @ jacobian
    tolerance = computed.eps**0.5
    # gradients as small as that, beside a sample's embedding and input, are rounding themselves
    rounding = max(computed.eps, min(computed.eps, torch.finfo(torch.float32).eps) ** 0.5)
    nothing = 32.0 * rounding * _largest_of_each(z) / _largest_of_each(x).clamp_min(1.0)
    close = (found - expected).abs().amax(1) <= tolerance * expected.abs().amax(1).maximum(nothing.to(x))
    return bool((close | ~torch.isfinite(expected).all(1)).all())


class _CoarsestPrecision(TorchFunctionMode):
    """Watches what torch's functions return: ``eps`` becomes that of its coarsest floating-point type."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.eps = torch.finfo(dtype).eps

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, and look at what it returns."""
        returned = func(*args, **(kwargs or {}))
        for value in returned if isinstance(returned, (tuple, list)) else (returned,):
            if isinstance(value, Tensor) and value.is_floating_point():
                self.eps = max(self.eps, torch.finfo(value.dtype).eps)
        return returned


def _largest_of_each(values: Tensor) -> Tensor:
    return values.detach().flatten(1).abs().nan_to_num(0.0, 0.0, 0.0).amax(1)


def jacobian_by_loop(encode: Encode, x: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
    """Take one forward pass, then one backward pass a row into a preallocated buffer: works where autograd does."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        z = encode(x)
        outputs = (z if rows is None else (rows.to(z) @ z[:, :, None])[..., 0]).sum(0)
    jacobian = x.new_empty(len(x), len(outputs), x[0].numel())
    for k in range(len(outputs)):
        (gradient,) = torch.autograd.grad(outputs[k], x, retain_graph=k + 1 < len(outputs))
        jacobian[:, k] = gradient.flatten(1)
    return jacobian, z.detach()


def jacobian_by_replication(
    encode: Encode, x: Tensor, rows: Tensor | None, *, embedding_size: int, rows_per_pass: int
) -> tuple[Tensor, Tensor]:
    """Repeat each sample and ask each copy for another row: ``rows_per_pass`` rows a forward and backward pass."""
    cotangents = _cotangents(rows, embedding_size, x)
    jacobian = x.new_empty(*cotangents.shape[:2], x[0].numel())
    for start in range(0, cotangents.shape[1], rows_per_pass):
        part = cotangents[:, start : start + rows_per_pass]
        count = part.shape[1]
        with torch.enable_grad():
            copies = x.detach().repeat_interleave(count, 0).requires_grad_(True)
            z = encode(copies)
        (gradient,) = torch.autograd.grad(z, copies, part.flatten(0, 1).to(z))
        jacobian[:, start : start + count] = gradient.reshape(len(x), count, -1)
    return jacobian, z.detach()[::count]


def jacobian_by_jacrev(
    encode: Encode, x: Tensor, rows: Tensor | None, *, embedding_size: int, rows_per_pass: int
) -> tuple[Tensor, Tensor]:
    """Take one forward pass, then vectorised backward passes of ``rows_per_pass`` rows each."""
    cotangents = _cotangents(rows, embedding_size, x)
    jacobian = x.new_empty(*cotangents.shape[:2], x[0].numel())
    # fused attention has no vmap rule and falls back to a slow loop; without grad mode nothing is kept for weights
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        with _SavedDerivatives():
            z, backward = torch.func.vjp(encode, x)[:2]
        for start in range(0, cotangents.shape[1], rows_per_pass):
            part = cotangents[:, start : start + rows_per_pass].to(z)
            (gradients,) = torch.func.vmap(backward)(part.transpose(0, 1))
            jacobian[:, start : start + part.shape[1]] = gradients.flatten(2).transpose(0, 1)
    return jacobian, z


def jacobian_by_forward_mode(
    encode: Encode, x: Tensor, rows: Tensor | None, *, columns_per_pass: int
) -> tuple[Tensor, Tensor]:
    """Compute columns, not rows: the cheaper side when a sample has fewer numbers than rows are asked for."""
    directions = torch.eye(x[0].numel(), dtype=x.dtype, device=x.device)

    def embedding_and_column(direction: Tensor) -> tuple[Tensor, Tensor]:
        tangent = direction.view(1, *x.shape[1:]).expand_as(x)
        return cast("tuple[Tensor, Tensor]", torch.func.jvp(encode, (x,), (tangent,)))

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        # torch compiles its own forward-mode rules at the first use, with what it has itself deprecated
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        passes = [
            torch.func.vmap(embedding_and_column, out_dims=(None, 0))(part)  # type: ignore[arg-type]  # its hint lacks the None
            for part in directions.split(columns_per_pass)
        ]
    jacobian = torch.cat([columns for _, columns in passes]).permute(1, 2, 0).to(x.dtype)
    return jacobian if rows is None else rows.to(jacobian) @ jacobian, passes[0][0]


def _cotangents(rows: Tensor | None, size: int, x: Tensor) -> Tensor:
    """Rows of each sample, (B, M, K); all K outputs where none are given."""
    shared = torch.eye(size, dtype=x.dtype, device=x.device) if rows is None else rows.to(x)
    return shared.expand(len(x), -1, -1)


class _SavedDerivatives(TorchFunctionMode):
    """Makes ``torch.nn.functional.gelu`` keep its derivative: a backward pass multiplies, without erf.

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
