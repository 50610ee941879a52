"""Encoders of images by name: published weights, a file, a checkpoint or an export of ours, or Python code."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data.config import resolve_data_config
from torch import Tensor, nn

from jepa_train.checkpoints.files import read_checkpoint
from jepa_train.data.transforms import data_config
from jepa_train.errors import ConfigurationError, one_line
from jepa_train.export import PROJECTOR, SUFFIX, preparation, rebuilt
from jepa_train.models.projector import Projector
from jepa_train.ranking.preparation import PicturePreparation


@dataclass(frozen=True)
class ImageEncoder:
    """An encoder of images and all that its embeddings depend on.

    Attributes:
        module: (B, C, H, W) prepared images -> (B, K) float32, in evaluation mode, its weights without gradients.
        prepare: a picture of any mode -> (C, H, W) float32; it can be pickled, and gives the same each time.
        name: as the user gave it.
        identity: sha256, in hexadecimal, of weights and preparation.
        preparation: plain JSON types: input_size, interpolation, crop, mean, std, pooling.
        notes: sentences: why this pooling, what was guessed.
    """

    module: nn.Module
    prepare: Callable[[Image.Image], Tensor]
    name: str
    identity: str
    preparation: Mapping[str, Any]
    notes: tuple[str, ...]


def load_encoder(name: str, *, pooling: str = "auto", image_size: int | None = None) -> ImageEncoder:
    """Load an encoder.

    Args:
        name: a timm name, our checkpoint, or the folder of our export.
        pooling: how tokens become one vector.
        image_size: height and width of the input, in pixels; by default the encoder's own.

    Raises:
        ConfigurationError: if it cannot be loaded.
    """
    path = Path(name)
    if path.suffix == ".ckpt":
        module, config, background, notes = _of_checkpoint(path)
    elif path.is_dir():
        module, config, background, notes = _of_folder(path)
    else:
        module, config, background, notes = _of_timm(name, image_size)
    module = module.float().eval().requires_grad_(False)
    prepare = PicturePreparation(config, background=background)
    described = {**prepare.data_config, "background": background, "pooling": pooling}
    described = json.loads(json.dumps(described))
    return ImageEncoder(module, prepare, name, _identity(module, described), described, tuple(notes))


def _of_checkpoint(path: Path) -> tuple[nn.Module, dict[str, Any], str, list[str]]:
    checkpoint = read_checkpoint(path)
    module = rebuilt(checkpoint, path)
    prepared = preparation(checkpoint)
    notes = ["The embedding is z, the projector's output of the target encoder, as in training's scores."]
    config = prepared.get("data_config") or data_config(module.hparams["image_size"])
    return module.target, config, prepared.get("background", "white"), notes


def _of_folder(folder: Path) -> tuple[nn.Module, dict[str, Any], str, list[str]]:
    module, config, background, notes = _of_timm(f"local-dir:{folder}", None)
    for file in sorted((folder / PROJECTOR).glob(f"*{SUFFIX}")):
        module = nn.Sequential(module, _projector(load_file(file)))
    return module, config, background, notes


def _projector(weights: Mapping[str, Tensor]) -> nn.Module:
    matrices = [weight for weight in weights.values() if weight.ndim == 2]
    hidden = matrices[0].shape[0] if len(matrices) > 1 else 0
    projector = Projector(
        matrices[0].shape[1],
        hidden=hidden,
        embedding_size=matrices[-1].shape[0],
        batch_norm=any(name.endswith("running_mean") for name in weights),
    )
    projector.layers.load_state_dict(weights)
    return projector


def _of_timm(name: str, image_size: int | None) -> tuple[nn.Module, dict[str, Any], str, list[str]]:
    if ":" not in name and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.4)
        raise ConfigurationError(f"timm has no model named {name!r}; names like it: {', '.join(near)}.")
    sizes: dict[str, Any] = {} if image_size is None else {"img_size": image_size}
    try:
        module = timm.create_model(name, pretrained=True, num_classes=0, **sizes)
    except Exception as error:
        raise ConfigurationError(f"timm cannot load the weights of {name}: {one_line(error)}") from error
    config: dict[str, Any] = resolve_data_config({}, model=module)  # type: ignore[no-untyped-call]
    return module, config, "white", []


def _identity(module: nn.Module, described: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name, weight in sorted(module.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        plain = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(cast("Any", plain.numpy()).data)
    return digest.hexdigest()
