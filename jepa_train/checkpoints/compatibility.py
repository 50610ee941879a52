"""Checks that arguments, names and shapes of a checkpoint are those of this version of the model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from jepa_train.errors import ConfigurationError, some_of
from jepa_train.module import JEPA

VISION_TRANSFORMER = "online.encoder.vit."
CLASS_TOKEN = f"{VISION_TRANSFORMER}cls_token"


def model_arguments(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Read the arguments of the module that wrote the checkpoint, without Lightning's own notes among them."""
    saved = checkpoint.get("hyper_parameters") or {}
    return {name: value for name, value in saved.items() if not name.startswith("_")}


def without_fetching(arguments: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    """Find the arguments to change where published weights were the start: nothing need be fetched to be overwritten.

    Whether the published ones brought a class token is seen from the checkpoint's weights.
    """
    if not arguments.get("pretrained"):
        return {}
    if not any(name.startswith(VISION_TRANSFORMER) for name in weights):
        return {"pretrained": False}
    class_token = {"class_token": CLASS_TOKEN in weights}
    return {"pretrained": False, "encoder_overrides": class_token | (arguments.get("encoder_overrides") or {})}


def data_state(checkpoint: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Find the name of the DataModule's class, under which Lightning keeps its state, and that state; empty if unknown.

    It is known of those that say how images were prepared, see ``ImageDataModule.preparation``.
    """
    for name, state in checkpoint.items():
        if isinstance(state, Mapping) and "data_config" in state:
            return name, dict(state)
    return None, {}


def check_arguments(checkpoint: Mapping[str, Any], path: Path, *, used: Mapping[str, Any] | None = None) -> None:
    """See that this version of the module knows the checkpoint's hyper-parameters.

    A warning names those that the checkpoint was written before and that are used otherwise than by default: a default
    does what was done before there was the setting.

    Args:
        checkpoint, path: the checkpoint, and where it lies.
        used: hyper-parameters that the command line and configs give; ``None`` where the checkpoint's alone are used.

    Raises:
        ConfigurationError: naming the first of those it does not know.
    """
    defaults = {name: parameter.default for name, parameter in inspect.signature(JEPA).parameters.items()}
    saved, known = model_arguments(checkpoint).keys(), defaults.keys()
    if saved - known:
        raise ConfigurationError(
            f"the checkpoint {path} has settings that this model does not know ({some_of(sorted(saved - known))}): it "
            "is of another model or version; choose another one."
        )
    added = [name for name in sorted(known - saved) if (used or {}).get(name, defaults[name]) != defaults[name]]
    if saved and added:
        rank_zero_warn(
            f"The checkpoint {path} is of an earlier version and has no {some_of(added)}: the values of the command "
            "line or the config are used."
        )


def weight_shapes(arguments: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Map names to shapes of all weights of the module with these arguments, without memory and random numbers."""
    with torch.device("meta"):
        module = JEPA(**{**arguments, "pretrained": False})
    return {name: tuple(weight.shape) for name, weight in module.state_dict().items()}


def check_fits(model: nn.Module, state_dict: Mapping[str, Any], path: Path) -> None:
    """See that the weights of a checkpoint are those of the model, by name and shape.

    Raises:
        ConfigurationError: naming the first of those that are not.
    """
    own = model.state_dict()
    lacking, foreign = sorted(own.keys() - state_dict.keys()), sorted(state_dict.keys() - own.keys())
    if not own.keys() & state_dict.keys():
        raise ConfigurationError(
            f"{path} is a checkpoint of another model: it has {some_of(foreign)}, not {some_of(lacking)}; "
            "choose another one."
        )
    if lacking or foreign:
        faults = [f"lacks {some_of(lacking)}"] * bool(lacking) + [
            f"has {some_of(foreign)}, which this model lacks"
        ] * bool(foreign)
        raise ConfigurationError(
            f"the checkpoint {path} {' and '.join(faults)}: it was written by another version of the model; use that "
            "version, or start a new run."
        )
    for name, weight in own.items():
        if state_dict[name].shape != weight.shape:
            raise ConfigurationError(
                f"the checkpoint {path} does not fit the model ({name} is {_shape(state_dict[name])} in the "
                f"checkpoint, {_shape(weight)} in the model): give the --data and --model options that it was trained "
                "with."
            )


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"
