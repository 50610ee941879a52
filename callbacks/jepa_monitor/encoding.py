"""Which part of a Lightning module is measured, and how its output becomes one embedding per sample."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .density import Encode

Pool = Literal["auto", "mean", "cls", "flatten"] | Callable[[Tensor], Tensor]
EncoderChoice = str | Callable[[nn.Module, Tensor], Tensor] | None
USUAL_NAMES = ("target", "teacher", "encoder", "backbone", "student", "model", "net", "feature_extractor")


def resolve_encoder(module: nn.Module, encoder: EncoderChoice, pool: Pool) -> tuple[Encode, str]:
    """A function from inputs to (B, K) embeddings, and a description of it.

    Args:
        module: the Lightning module.
        encoder: dotted path to a submodule, a function ``(module, inputs) -> embeddings``, or ``None``: the first of
            target, teacher, encoder, backbone, student, model, net, feature_extractor, else the module's forward.
        pool: see :func:`pool_embedding`.

    Raises:
        ValueError: if there is no submodule at the path; the message names those there are.
    """
    if encoder is not None and not isinstance(encoder, str):
        function = encoder
        return (lambda inputs: pool_embedding(function(module, inputs), pool)), getattr(
            function, "__name__", "function"
        )
    children = {name for name, _ in module.named_children()}
    name = encoder if encoder is not None else next((usual for usual in USUAL_NAMES if usual in children), "")
    try:
        chosen = module.get_submodule(name)
    except AttributeError:
        there = ", ".join(sorted(children)) or "none"
        raise ValueError(f"{type(module).__name__} has no submodule {name!r}; its submodules are: {there}.") from None
    return partial(_encode_and_pool, chosen, pool), f"{name or 'forward'} ({type(chosen).__name__})"


def _encode_and_pool(encoder: nn.Module, pool: Pool, inputs: Tensor) -> Tensor:
    return pool_embedding(encoder(inputs), pool)


def pool_embedding(output: Any, pool: Pool) -> Tensor:
    """One vector per sample: (B, K) as it is, tokens (B, T, K) or feature maps (B, C, H, W) pooled.

    Args:
        output: what the encoder returned; of a tuple or list, the first member.
        pool: ``mean`` (and ``auto``) over tokens or positions, ``cls`` the first token, ``flatten`` everything, or a
            function of the output.

    Raises:
        ValueError: for an output that cannot be pooled that way.
    """
    if callable(pool):
        return pool(output)
    if isinstance(output, (tuple, list)):
        output = output[0]
    if not isinstance(output, Tensor):
        raise ValueError(f"the encoder returned a {type(output).__name__}: pass pool=, a function of it to (B, K).")
    if pool == "flatten" or output.ndim == 2:
        return output.flatten(1)
    if output.ndim == 3:
        return output[:, 0] if pool == "cls" else output.mean(1)
    if output.ndim == 4 and pool != "cls":
        return output.mean((2, 3))
    raise ValueError(f"cannot pool an output of shape {tuple(output.shape)} by {pool!r}: pass pool=, a function of it.")


def input_like(module: nn.Module, inputs: Tensor, device: torch.device) -> Tensor:
    """Inputs on the module's device and in the precision of its first parameter."""
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), inputs.dtype)
    return inputs.to(device=device, dtype=dtype)


@contextmanager
def evaluating(module: nn.Module) -> Generator[None, None, None]:
    """Every submodule in eval mode, and afterwards each in the mode it was in."""
    training = [(submodule, submodule.training) for submodule in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for submodule, was_training in training:
            submodule.training = was_training


@torch.no_grad()
def embed(encode: Encode, inputs: Tensor, *, chunk: int = 256) -> Tensor:
    """Embeddings (N, K) in float64 without Jacobians."""
    with torch.inference_mode(False), torch.autocast(inputs.device.type, enabled=False):
        return torch.cat([encode(part.clone()).double() for part in inputs.split(chunk)])
