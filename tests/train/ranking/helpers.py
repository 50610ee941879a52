"""Encoders in files, and pictures, as a user has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from jepa_train.data import MixtureDataModule
from jepa_train.module import JEPA
from tests.train.helpers import TINIEST, saved_by


def written_weights(path: Path, name: str = "test_vit.r160_in1k", **arguments: Any) -> nn.Module:
    """Write random weights of a timm model to a safetensors file, and return the model."""
    model: nn.Module = timm.create_model(name, **arguments).eval()
    save_file(model.state_dict(), path)
    return model


def written_checkpoint(path: Path, **arguments: Any) -> JEPA:
    """Write a checkpoint of ours that says how its images were prepared; the projector's statistics are not trivial."""
    module = JEPA(**{**TINIEST, **arguments}).eval()
    for branch in (module.online, module.target):
        for layer in branch.projector.modules():
            if isinstance(layer, nn.BatchNorm1d):
                nn.init.normal_(layer.running_mean)  # type: ignore[arg-type]  # may be None
                nn.init.uniform_(layer.running_var, 0.5, 2.0)  # type: ignore[arg-type]  # as above
    saved_by(module, path)
    checkpoint = torch.load(path, weights_only=True)
    data = MixtureDataModule(num_train=128, num_probe=4)
    torch.save(checkpoint | {"MixtureDataModule": data.state_dict()}, path)
    return module


def picture(height: int = 37, width: int = 50, channels: int = 3, seed: int = 0) -> Image.Image:
    """A picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels if channels > 1 else pixels[..., 0])
