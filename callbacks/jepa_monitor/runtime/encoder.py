"""Which part of a Lightning module is measured, and how its output becomes one embedding per sample."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..density import Encode, differentiable, require_real
from ..errors import SettingError
from .layout import channel_axis
from .selection import usual_encoder

Pool = Literal["auto", "mean", "cls", "flatten"] | Callable[[Tensor], Tensor]
EncoderChoice = str | Callable[[nn.Module, Tensor], Tensor] | None
Preprocess = str | Callable[[Tensor], Tensor] | None
POOLS = ("auto", "mean", "cls", "flatten")
HALF_PRECISION = (torch.bfloat16, torch.float16)


def resolve_encoder(module: nn.Module, encoder: EncoderChoice, pool: Pool) -> tuple[Encode, str]:
    """A function from inputs to (B, K) embeddings, and a description of it with the reason for the choice.

    Args:
        module: the Lightning module.
        encoder: dotted path to a submodule, a function ``(module, inputs) -> embeddings``, or ``None``: the submodule
            that :func:`usual_encoder` finds by its name, else the module's forward.
        pool: see :func:`pool_embedding`.

    Raises:
        SettingError: if there is no submodule at the path (the message names those there are), neither a usual name
            nor a forward, or ``encoder`` is something else.
    """
    if encoder is not None and not isinstance(encoder, str):
        if not callable(encoder):
            raise SettingError(
                f"encoder must be the path of a submodule, a function (module, inputs) or None, got {encoder!r}."
            )
        function = encoder
        return (lambda inputs: pool_embedding(function(module, inputs), pool)), getattr(
            function, "__name__", "function"
        )
    name, reason = (encoder, "") if encoder is not None else usual_encoder(module)
    if encoder is None and not name and not has_forward(module):
        raise SettingError(
            f"{type(module).__name__} has no forward and no submodule with a usual name: pass encoder=, a function "
            f"(module, inputs) or the path of a submodule ({_children_of(module)})."
        )
    chosen = find_submodule(module, name)
    description = ", because ".join(filter(None, [type(chosen).__name__, reason]))
    return partial(_encode_and_pool, chosen, pool), f"{name or 'forward'} ({description})"


def has_forward(module: nn.Module) -> bool:
    """Tell whether a module has a forward of its own, and not that of PyTorch or Lightning, which only raises."""
    owner = next((base for base in type(module).__mro__ if "forward" in vars(base)), nn.Module)
    return "forward" in vars(module) or not (owner is nn.Module or owner.__name__ == "LightningModule")


def find_submodule(module: nn.Module, name: str) -> nn.Module:
    """The submodule at a dotted path.

    Raises:
        SettingError: if there is none; the message names those there are.
    """
    try:
        return module.get_submodule(name)
    except AttributeError:
        raise SettingError(
            f"{type(module).__name__} has no submodule {name!r}; its submodules are: {_children_of(module)}."
        ) from None


def _children_of(module: nn.Module) -> str:
    return ", ".join(sorted(name for name, _ in module.named_children())) or "none"


def _encode_and_pool(encoder: nn.Module, pool: Pool, inputs: Tensor) -> Tensor:
    return pool_embedding(encoder(inputs), pool, encoder)


def check_pool(pool: Pool) -> None:
    """See that a pooling is one that there is.

    Raises:
        SettingError: if not.
    """
    if not callable(pool) and pool not in POOLS:
        raise SettingError(f"pool must be {', '.join(POOLS)} or a function, got {pool!r}.")


def pool_embedding(output: Any, pool: Pool, encoder: nn.Module | None = None) -> Tensor:
    """One vector per sample: (B, K) as it is, tokens (B, T, K) or feature maps (B, C, H, W), (B, H, W, C) pooled.

    Args:
        output: what the encoder returned; of a tuple or list the first member, of an output object its
            ``last_hidden_state``.
        pool: ``mean`` (and ``auto``) over tokens or positions, ``cls`` the first token, ``flatten`` everything, or a
            function of the output.
        encoder: the module that returned it, which may say where channels are (:func:`channel_axis`).

    Raises:
        ValueError: for an output that cannot be pooled that way.
    """
    if callable(pool):
        return pool(output)
    if isinstance(output, (tuple, list)):
        output = output[0]
    output = getattr(output, "last_hidden_state", output)
    if not isinstance(output, Tensor):
        raise ValueError(f"the encoder returned a {type(output).__name__}: pass pool=, a function of it to (B, K).")
    if pool == "flatten" or output.ndim == 2:
        return output.flatten(1)
    if output.ndim == 3 and pool == "cls":
        return output[:, 0]
    if output.ndim in (3, 4) and pool != "cls":
        channels = channel_axis(output.shape, encoder)
        return output.mean([axis for axis in range(1, output.ndim) if axis != channels])
    raise ValueError(f"cannot pool an output of shape {tuple(output.shape)} by {pool!r}: pass pool=, a function of it.")


def in_full_precision(module: nn.Module, encode: Encode) -> Encode:
    """The same encoder with float32 copies of half-precision weights: a Jacobian in bfloat16 is nats off.

    The module keeps its own weights. Values in bfloat16 and float16 are exact in float32, so this is the encoder that
    training has, evaluated precisely.
    """
    state = chain(module.named_parameters(), module.named_buffers())
    with torch.inference_mode(False):  # a tensor made under it could not take part in autograd
        precise = {f"module.{name}": value.detach().float() for name, value in state if value.dtype in HALF_PRECISION}
    if not precise:
        return encode
    holder = _Holder(module, encode)
    return lambda inputs: torch.func.functional_call(holder, precise, (inputs,))


class _Holder(nn.Module):
    """Gives an encoder that may be any function the face of a module, for :func:`torch.func.functional_call`."""

    def __init__(self, module: nn.Module, encode: Encode) -> None:
        super().__init__()
        self.module = module
        self.encode = encode

    def forward(self, inputs: Tensor) -> Tensor:
        return self.encode(inputs)


def is_sharded(module: nn.Module) -> bool:
    """Are the weights of some submodule spread over processes (FSDP), so that each forward pass is a collective?"""
    sharded = ("FSDPModule", "FullyShardedDataParallel")
    return any(base.__name__ in sharded for part in module.modules() for base in type(part).__mro__)


def is_tensor_parallel(module: nn.Module) -> bool:
    """Are the weights of some submodule spread over processes that work on the same samples?"""
    for parameter in module.parameters():
        mesh = getattr(parameter, "device_mesh", None)
        if mesh is not None and any("tensor" in name or name == "tp" for name in mesh.mesh_dim_names or ()):
            return True
    return False


def precision_of(module: nn.Module, *, as_it_is: bool) -> torch.dtype:
    """The precision in which a module is measured: its first parameter's, at least float32 unless as it is."""
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    return torch.float32 if dtype in HALF_PRECISION and not as_it_is else dtype


def input_like(module: nn.Module, inputs: Tensor, device: torch.device) -> Tensor:
    """Inputs on the module's device, in the precision of its first parameter but at least float32."""
    if not inputs.is_floating_point():
        return inputs.to(device)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), inputs.dtype)
    return inputs.to(device=device, dtype=torch.float32 if dtype in HALF_PRECISION else dtype)


def resolve_preprocess(module: nn.Module, preprocess: Preprocess) -> Callable[[Tensor], Tensor]:
    """What is applied to inputs on the device before the encoder; the Jacobian is with respect to its result.

    Args:
        module: the Lightning module.
        preprocess: a function of inputs, a dotted path to a submodule (such as an embedding table), or ``None``.

    Raises:
        SettingError: if there is no submodule at the path, or it is something else.
    """
    if preprocess is None:
        return lambda inputs: inputs
    function = find_submodule(module, preprocess) if isinstance(preprocess, str) else preprocess
    if not callable(function):
        raise SettingError(f"preprocess must be a function, the path of a submodule or None, got {preprocess!r}.")
    return lambda inputs: function(inputs.clone())  # it may write into them, and they are needed again


def embed(encode: Encode, inputs: Tensor, *, chunk: int = 256) -> Tensor:
    """Embeddings (N, K) in float64 without Jacobians; ValueError where they are complex."""
    # leaving inference mode switches gradients on
    with differentiable(inputs.device.type), torch.no_grad():
        return torch.cat([require_real(encode(part.clone())).double() for part in inputs.split(chunk)])
