"""Small folders of pictures, an encoder that takes no time, and rankings by it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor, nn

from jepa_train.ranking.batches import DataSettings
from jepa_train.ranking.encoders import ImageEncoder
from jepa_train.ranking.preparation import PicturePreparation
from jepa_train.ranking.run import rank
from jepa_train.ranking.workspace import vector_column

SIZE = 8  # pixels
IN_THIS_PROCESS = DataSettings(batch_size=5, num_workers=0, part_size=16)
QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


def pictures(folder: Path, count: int, *, seed: int = 0, suffix: str = ".png") -> Path:
    """A folder with pictures of smooth random colors."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(seed)
    for number in range(count):
        coarse = draws.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((SIZE, SIZE)).save(folder / f"{number:03d}{suffix}")
    return folder


def layers(size: int = 5, *, seed: int = 0) -> nn.Module:
    """A small network from pictures to ``size`` numbers."""
    torch.manual_seed(seed)
    hidden = nn.Linear(3 * SIZE * SIZE, 24)
    return nn.Sequential(nn.Flatten(), hidden, nn.Tanh(), nn.Linear(24, size)).eval().requires_grad_(False)


def encoder_of(module: nn.Module, *, name: str = "tiny", identity: str = "tiny") -> ImageEncoder:
    """An encoder from a module that takes pictures of 8 x 8 pixels."""
    config: dict[str, Any] = {
        "input_size": [3, SIZE, SIZE],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    return ImageEncoder(module, PicturePreparation(config), name, identity, config, ())


def tiny_encoder(size: int = 5, *, seed: int = 0) -> ImageEncoder:
    """The encoder of :func:`layers`."""
    return encoder_of(layers(size, seed=seed), identity=f"tiny {size} {seed}")


def rank_quietly(images: Path, output: Path, **settings: Any) -> pa.Table:
    """Rank with the tiny encoder, in this process, without a bar and a page."""
    given = {"encoder": tiny_encoder(), "data": IN_THIS_PROCESS, "trainer": QUIET, "page": False, **settings}
    return rank(images, output=output, **given)


def values(table: pa.Table, name: str) -> np.ndarray:
    """A column as numbers; NaN for null."""
    return table[name].to_pandas().to_numpy(dtype=float)


def embedded(index: np.ndarray, z: np.ndarray, thumbnails: Sequence[bytes | None] | None = None) -> pa.Table:
    """A part of embeddings."""
    kept = pa.array(thumbnails or [None] * len(index), pa.binary())
    return pa.table({"index": index, "embedding": vector_column(z), "thumbnail": kept})


class Constant(nn.Module):
    """Maps all pictures to one point."""

    def forward(self, x: Tensor) -> Tensor:
        """Embed."""
        return torch.ones(len(x), 4, device=x.device) + 0.0 * x.flatten(1)[:, :4]
