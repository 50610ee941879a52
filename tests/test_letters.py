"""Rendered letters: a folder for each, the same images from the same seed, and a class that pixels do not show."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import letters
import numpy as np
import pytest
from PIL import Image

from jepa_train.data import ImageFolderDataModule


def test_a_folder_of_letters_is_read_with_its_classes(tmp_path: Path) -> None:
    letters.write(tmp_path, count=53, seed=0)
    folders = Counter(path.parent.name for path in tmp_path.rglob("*.png"))
    assert folders == {letter: 3 if letter == "A" else 2 for letter in letters.CLASSES}
    data = ImageFolderDataModule(str(tmp_path), image_size=64, batch_size=4, num_workers=0, probe_share=0.2)
    train, probe = data.make_train(), data.make_probe()
    assert train[0]["image"].shape == (3, 64, 64)
    for part in (train, probe):
        labels = [letters.CLASSES[part[index]["label"]] for index in range(len(part))]
        assert labels == [name.partition("/")[0] for name in part.filenames]


def test_an_image_depends_on_seed_and_number_alone(tmp_path: Path) -> None:
    letters.write(tmp_path / "few", count=3, seed=5)
    letters.write(tmp_path / "more", count=30, seed=5)
    for number, letter in enumerate("ABC"):
        few, more = (Image.open(tmp_path / name / letter / f"{number:05d}.png") for name in ("few", "more"))
        assert few.tobytes() == more.tobytes() == letters.image(number, seed=5).tobytes()
    assert letters.image(0, seed=5).tobytes() != letters.image(0, seed=6).tobytes()


def test_every_font_has_every_letter() -> None:
    assert len(letters.fonts()) >= 20
    for path in letters.fonts():
        font = letters._font(path, 60)
        masks = {bytes(font.getmask(letter)) for letter in [*letters.CLASSES, "\N{PRIVATE USE ONE}"]}
        assert len(masks) == len(letters.CLASSES) + 1, path


@pytest.mark.parametrize("number", range(4))
def test_two_images_of_a_letter_share_little(number: int) -> None:
    first, second = (np.asarray(letters.image(number + 26 * step, seed=0), np.float64) for step in (0, 1))
    assert first.shape == (64, 64, 3)
    assert np.abs(first - second).mean() > 10.0
