"""Rankings by the encoders of these benchmarks, and the seconds of their stages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from jepa_train.ranking.encoders import ImageEncoder
from jepa_train.ranking.preparation import PicturePreparation
from jepa_train.ranking.run import rank

MODELS = {"cpu": ["vit_tiny_patch16_224"], "cuda": ["vit_small_patch14_dinov2", "vit_base_patch14_dinov2"]}
SIZE = 224  # pixels that these models see
IMAGENET = 50_000  # validation images
BATCH = 64


class Mean(nn.Module):
    """An encoder that takes no time, as on a fast device."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Average colors, (B, C, H, W) -> (B, C)."""
        return x.mean((2, 3))


class Small(nn.Module):
    """An encoder that takes no time and has a Jacobian: what is left is the ranking itself."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.Tanh(), nn.Linear(32, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed (B, 3, 8, 8)."""
        return self.layers(x)


def encoder_of(module: nn.Module, channels: int, size: int, identity: str) -> ImageEncoder:
    """An encoder of small pictures whose pixels become -1 to 1."""
    config = {
        "input_size": [channels, size, size],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": [0.5] * channels,
        "std": [0.5] * channels,
    }
    module = module.eval().requires_grad_(False)
    return ImageEncoder(module, PicturePreparation(config), identity, identity, config, ())


def seconds_of(
    images: Path,
    encoder: str | ImageEncoder,
    output: Path,
    device: str,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> dict[str, Any]:
    """Seconds of each stage of a ranking, and how volumes were estimated."""
    runner = {"accelerator": "gpu" if device == "cuda" else "cpu", "devices": 1, "enable_progress_bar": False}
    runner["callbacks"] = list(callbacks)
    rank(images, encoder=encoder, output=output, trainer=runner, **{"page": False, **settings})
    summary: dict[str, Any] = json.loads((output / "summary.json").read_text())
    return summary["seconds"] | {"volumes_by": summary["volumes"]}
