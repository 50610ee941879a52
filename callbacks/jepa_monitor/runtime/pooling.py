"""The output of an encoder becomes one vector per sample: which axis has the channels, and what is averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

from torch import Size, Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from ..errors import SettingError

Pool = Literal["auto", "mean", "cls", "flatten"] | Callable[[Tensor], Tensor]
POOLS = ("auto", "mean", "cls", "flatten")
_FORMATS = {"NCL": 1, "NLC": 2, "NCHW": 1, "NHWC": 3}  # timm's names for the order of axes
_Side = Literal["first", "last", "either"]


def check_pool(pool: Pool) -> None:
    """Check that a pooling is one that there is.

    Raises:
        SettingError: for another.
    """
    if not callable(pool) and pool not in POOLS:
        raise SettingError(f"pool must be {', '.join(POOLS)} or a function, got {pool!r}.")


def pool_embedding(output: Any, pool: Pool, encoder: nn.Module | None = None) -> Tensor:
    """Pool an output to one vector per sample.

    (B, K) stays as it is; tokens (B, T, K) and feature maps (B, C, H, W), (B, H, W, C) are pooled.

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


def channel_axis(shape: Size, encoder: nn.Module | None = None) -> int:
    """Find the axis of the channels in tokens (B, T, K) or feature maps (B, C, H, W), (B, H, W, C).

    Tokens have them last, unless the encoder states otherwise or ends with a 1-d convolution. Of feature maps these
    decide, one after the other: what the encoder states (``output_fmt``, ``num_features``, ``embed_dim``), the number
    of channels of its last layer, positions that form a square. Where no encoder is known, the rest have torch's
    convention, channels first.

    Args:
        shape: shape of the output, three or four axes.
        encoder: the module that returned it, if it was one.

    Returns:
        1 or the number of the last axis.

    Raises:
        ValueError: for feature maps of an encoder that says nothing of their order.
    """
    axis = None
    if encoder is not None:
        axis = _stated(shape, encoder) or _of_last_layer(shape, encoder)
    if len(shape) == 3:
        return axis or 2
    axis = axis or _beside_a_square(shape)
    if axis is None and encoder is not None:
        raise ValueError(
            f"channels may be the first or the last axis of a feature map of shape {tuple(shape)}: pass pool=, a "
            "function of it to (B, K) such as lambda maps: maps.mean((2, 3)) or lambda maps: maps.mean((1, 2))."
        )
    return axis or 1


def _stated(shape: Size, encoder: nn.Module) -> int | None:
    form = getattr(encoder, "output_fmt", None)
    form = getattr(form, "value", form)  # an enumeration in some modules
    if isinstance(form, str) and form in _FORMATS and len(form) == len(shape):
        return _FORMATS[form]
    if len(shape) == 3:
        return None  # num_features may as well be the number of tokens
    stated = (_fitting(shape, getattr(encoder, name, None)) for name in ("num_features", "embed_dim"))
    return next((fitting[0] for fitting in stated if len(fitting) == 1), None)


def _of_last_layer(shape: Size, encoder: nn.Module) -> int | None:
    """Axis as long as the last layer has channels; where two are, the one at which that kind of layer has them."""
    for channels, side in _layers_from_the_end(encoder):
        fitting = _fitting(shape, channels)
        if len(fitting) == 2:
            fitting = {"first": fitting[:1], "last": fitting[1:], "either": []}[side]
        mixes_positions = len(shape) == 3 and side == "last" and fitting == [1]
        if fitting and not mixes_positions:
            return fitting[0]
    return None


def _fitting(shape: Size, channels: object) -> list[int]:
    return [axis for axis in (1, len(shape) - 1) if shape[axis] == channels]


def _beside_a_square(shape: Size) -> int | None:
    first, middle, last = shape[1:]
    if first == middle != last:
        return 3
    return 1 if middle == last != first else None


def _layers_from_the_end(encoder: nn.Module) -> Iterator[tuple[int, _Side]]:
    """Number of channels of each layer that has one, and at which side of the positions it has them."""
    for layer in reversed(list(encoder.modules())):
        if isinstance(layer, _ConvNd):
            yield layer.out_channels, "first"
        elif isinstance(layer, _NormBase):
            yield layer.num_features, "either" if isinstance(layer, nn.BatchNorm1d) else "first"
        elif isinstance(layer, nn.GroupNorm):
            yield layer.num_channels, "first"
        elif isinstance(layer, nn.Linear):
            yield layer.out_features, "last"
        elif isinstance(layer, (nn.LayerNorm, nn.RMSNorm)):
            # timm and torchvision derive a LayerNorm2d for channels that come first
            yield layer.normalized_shape[-1], "first" if type(layer).__name__.endswith("2d") else "last"
