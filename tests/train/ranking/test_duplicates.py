"""The nearest other image is that of a search over all, in however many blocks it is made."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from jepa_train.ranking.duplicates import write_nearest
from jepa_train.ranking.workspace import EMBEDDINGS, NEAREST, Workspace
from tests.train.ranking.tiny import embedded, pictures, rank_quietly, values


def test_one_image_alone_has_none(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.write(EMBEDDINGS, 0, embedded(np.array([0]), np.ones((1, 2), np.float32)))
    write_nearest(workspace, [0], [0], torch.device("cpu"))
    found = workspace.read(NEAREST, 0)
    assert [found[name].null_count for name in ("nearest_index", "nearest_distance", "nearest_difference")] == [1, 1, 1]


def test_the_difference_is_that_of_the_two_pictures(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    greys = [10, None, 13, 200, 13]  # of one color, which JPEG keeps
    z = np.array([[0.0], [5.0], [0.1], [5.1], [0.3]], np.float32)
    for number, rows in enumerate((slice(2), slice(2, 5))):  # pairs across parts
        pictures = [None if grey is None else jpeg(grey) for grey in greys[rows]]
        workspace.write(EMBEDDINGS, number, embedded(np.arange(5)[rows], z[rows], pictures))
    write_nearest(workspace, [0, 1], [0, 1], torch.device("cpu"))
    found = pa.concat_tables(workspace.read(NEAREST, number) for number in (0, 1))
    assert found["nearest_index"].to_pylist() == [2, 3, 0, 1, 2]
    assert found["nearest_difference"].to_pylist() == [3.0, None, 3.0, None, 0.0]


@pytest.mark.parametrize("change", [lambda pixels: pixels * 0.97, lambda pixels: pixels + 4.0])
def test_a_copy_that_was_changed_a_little_is_nearer_than_any_other_picture(
    change: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    images = pictures(tmp_path / "images", 30)
    pixels = np.asarray(Image.open(images / "007.png"), dtype=float)
    Image.fromarray(change(pixels).clip(0, 255).round().astype(np.uint8)).save(images / "copy.png")
    table = rank_quietly(images, tmp_path / "ranked")
    difference = values(table, "nearest_difference")
    first = np.argsort(difference)[:2]
    assert {table["filename"][int(row)].as_py() for row in first} == {"007.png", "copy.png"}
    assert difference[first].max() < 8.0 < np.sort(difference)[2]


def jpeg(grey: int) -> bytes:
    """A thumbnail of one color."""
    written = io.BytesIO()
    Image.new("RGB", (64, 64), (grey,) * 3).save(written, "JPEG")
    return written.getvalue()
