"""Pieces of photographs: what is held out shares no pixel with what is trained on, and a seed gives the same ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import photographs
import pytest

from jepa_train.data import ImageFolderDataModule


@pytest.mark.parametrize("width", [160, 333, 640])
def test_no_pixel_is_in_both_parts(width: int) -> None:
    columns: dict[str, set[int]] = {"train": set(), "val": set()}
    draws = np.random.default_rng(0)
    for part, seen in columns.items():
        for _ in range(500):
            left, top, side = photographs.place(170, width, part, draws)
            assert 0 <= top <= 170 - side
            assert photographs.SIDES[0] <= side <= max(photographs.SIDES[0], width // 4)
            seen.update(range(left, left + side))
    assert not columns["train"] & columns["val"]
    assert columns["train"] | columns["val"] == set(range(width))


def test_a_piece_depends_on_its_draws_alone() -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    first, again, other = (photographs.piece(photograph, "val", np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.size == (64, 64)
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_a_folder_of_pieces_is_read_with_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skimage")
    monkeypatch.setattr(photographs, "COUNTS", {"train": 3, "val": 1})
    assert photographs.write(tmp_path, seed=0) == 72
    assert set(Counter(path.parent.name for path in tmp_path.rglob("*.png")).values()) == {4}
    data = ImageFolderDataModule(str(tmp_path), image_size=64, batch_size=4, num_workers=0)
    train, probe = data.make_train(), data.make_probe()
    assert (len(train), len(probe)) == (54, 18)
    assert train[0]["image"].shape == (3, 64, 64)
