"""The idx format of the MNIST family, and the places where its files may lie."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jepa_train.errors import ConfigurationError

UNSIGNED_BYTE = 0x08
PARTS = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> Tensor:
    """An idx file of unsigned bytes, plain or gzipped, as uint8 of the shape in its header.

    Raises:
        ConfigurationError: if it is not such a file or is cut short.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ConfigurationError(f"{path} is cut short or not a gzip file: {error}") from error
    if len(data) < 4 or data[:2] != b"\x00\x00" or data[2] != UNSIGNED_BYTE:
        raise ConfigurationError(f"{path} is not an idx file of unsigned bytes.")
    header = 4 + 4 * data[3]  # four bytes for each dimension
    if len(data) < header:
        raise ConfigurationError(f"{path} is cut short: its header has {len(data)} of {header} bytes.")
    shape = np.frombuffer(data[4:header], ">u4").astype(int)
    body = np.frombuffer(data, np.uint8, offset=header)
    if body.size != shape.prod():
        raise ConfigurationError(f"{path} is cut short: {body.size} bytes where its header announces {shape.prod()}.")
    return torch.from_numpy(body.reshape(shape).copy())


def find_idx(folders: Iterable[Path], *, part: str) -> tuple[Tensor, Tensor] | None:
    """Images (N, H, W) and labels (N,) of ``train`` or ``test`` from the first folder that has both files."""
    for folder in folders:
        images = _first_file(folder, f"{PARTS[part]}-images-idx3-ubyte")
        labels = _first_file(folder, f"{PARTS[part]}-labels-idx1-ubyte")
        if images and labels:
            return read_idx(images), read_idx(labels).long()
    return None


def _first_file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
