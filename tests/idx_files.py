"""Small idx files, as the MNIST family has them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

PARTS = {"train": 200, "t10k": 120}


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, *, zipped: bool = True, seed: int = 0) -> None:
    """Both parts with images whose class can be seen."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for part, count in PARTS.items():
        labels = np.arange(count) % 10
        images = generator.integers(0, 80, (count, 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 6] += 150
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            data = idx_bytes(array)
            (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(data) if zipped else data)
