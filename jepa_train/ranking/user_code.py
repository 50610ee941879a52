"""Encoders that a function of the user's returns."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from timm.data.config import resolve_data_config
from torch import nn

from jepa_train.data.transforms import data_config
from jepa_train.errors import ConfigurationError
from jepa_train.ranking.families import PooledModel, Pooling
from jepa_train.ranking.published import Loaded

USUAL_SIZE = 224  # pixels, of an encoder that does not say


def called(name: str) -> Any:
    """Import ``module:callable``, and return what it returns.

    Raises:
        ConfigurationError: if there is no such thing.
    """
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{name} cannot be imported ({error}): put its folder on PYTHONPATH.") from error
    except AttributeError:
        raise ConfigurationError(f"the module {module_name} has no {function_name}: check --encoder {name}.") from None
    if not callable(function):
        raise ConfigurationError(f"{name} is a {type(function).__name__}: name a function that returns an nn.Module.")
    return function()


def of_module(name: str, made: Any, pooling: Pooling, image_size: int | None) -> Loaded:
    """Take what a function of the user's returned, and what it says of its images.

    Args:
        name: ``module:callable``, for messages.
        made: what it returned; a module may state ``data_config``, arguments of ``timm.data.create_transform``, or
            timm's ``pretrained_cfg``.
        pooling: ``auto``, ``own`` and ``mean`` average tokens or feature maps, ``cls`` takes the first token.
        image_size: height and width of the input, in pixels; by default what the module states.

    Raises:
        ConfigurationError: if it is no module, or there is no such pooling.
    """
    if not isinstance(made, nn.Module):
        raise ConfigurationError(f"{name} returned a {type(made).__name__}, not an nn.Module or an ImageEncoder.")
    if pooling not in ("auto", "own", "mean", "cls"):
        raise ConfigurationError(
            f"{name} has no pooling {pooling!r}: choose auto, mean or cls, or pool in its forward."
        )
    chosen: Pooling = "own" if pooling == "auto" else pooling
    notes = [f"Pooling is {chosen!r}: what {name} returns, and its mean over tokens or positions where it has any."]
    config = _stated_config(made, image_size)
    if config is None:
        config = data_config(image_size or USUAL_SIZE)
        notes.append(
            f"{name} does not say how images are prepared: {image_size or USUAL_SIZE} px with ImageNet's mean and "
            "deviation are guessed; give the module a data_config, or return an ImageEncoder."
        )
    if any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in made.parameters()):
        notes.append("Its weights in half precision are computed with in float32: derivatives would be nats off.")
    return Loaded(PooledModel(made, chosen), config, chosen, notes)


def _stated_config(module: nn.Module, image_size: int | None) -> dict[str, Any] | None:
    """Read how a module says that its images are prepared; ``None`` where it does not."""
    stated = getattr(module, "data_config", None) or getattr(module, "pretrained_cfg", None)
    if not stated:
        return None
    stated = stated if isinstance(stated, Mapping) else stated.to_dict()
    size = {} if image_size is None else {"input_size": (stated.get("input_size", (3,))[0], image_size, image_size)}
    config: dict[str, Any] = resolve_data_config(size, pretrained_cfg=stated)  # type: ignore[no-untyped-call]  # timm's is
    return config
