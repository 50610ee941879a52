"""Gram matrices of an encoder's Jacobian, in any Lightning context."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Encode = Callable[[Tensor], Tensor]


def jacobian_gram(
    encode: Encode,
    x: Tensor,
    *,
    rows: Tensor | None = None,
    chunk: int = 64,
    gram_dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """G = J J^T for each sample, with J (K, D) the Jacobian of its embedding with respect to its input.

    One forward pass and K (or m) backward passes per chunk, into one preallocated buffer. The Jacobian keeps the
    encoder's precision (use float32 or better) and the Gram is accumulated in ``gram_dtype``: a float32 Gram is wrong
    by up to 11 nats in the log volume. Valid only if samples do not interact, so put the encoder into eval mode.

    Works under ``no_grad`` and ``inference_mode`` (where ``torch.autograd.functional.jacobian`` silently returns zeros)
    and switches autocast off.

    Args:
        encode: maps (B, ...) inputs to (B, K) embeddings.
        x: (N, ...) floating-point inputs.
        rows: (m, K) combinations of outputs to differentiate instead of all K.
        chunk: samples per forward pass.
        gram_dtype: dtype of the result.

    Returns:
        grams (N, K, K) or (N, m, m), and the embeddings (N, K) in ``gram_dtype``.

    Raises:
        ValueError: if ``encode`` does not return (B, K), or its output does not depend on its input through autograd.
    """
    grams, embeddings = [], []
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        for part in x.split(chunk):
            # a clone, because a tensor made under inference mode cannot take part in autograd
            inputs = part.clone().detach().requires_grad_(True)
            with sdpa_kernel(SDPBackend.MATH):
                z = encode(inputs)
            jacobian = _jacobian_rows(z, inputs, rows).to(gram_dtype)
            grams.append(jacobian @ jacobian.mT)
            embeddings.append(z.detach().to(gram_dtype))
    return torch.cat(grams), torch.cat(embeddings)


def _jacobian_rows(z: Tensor, inputs: Tensor, rows: Tensor | None) -> Tensor:
    """(B, m, D): one backward pass per row; the sum over the batch gives all samples at once."""
    if z.ndim != 2 or len(z) != len(inputs):
        raise ValueError(
            f"the encoder must map {len(inputs)} inputs to embeddings of shape ({len(inputs)}, K), "
            f"got {tuple(z.shape)}: pool its tokens or feature maps first."
        )
    if not z.requires_grad:
        raise ValueError("the embeddings do not depend on the inputs through autograd: is there a detach or no_grad?")
    outputs = (z if rows is None else z @ rows.to(z).T).sum(0)
    jacobian = z.new_empty(len(inputs), len(outputs), inputs[0].numel())
    for k in range(len(outputs)):
        (gradient,) = torch.autograd.grad(outputs[k], inputs, retain_graph=k + 1 < len(outputs))
        jacobian[:, k] = gradient.flatten(1)
    return jacobian
