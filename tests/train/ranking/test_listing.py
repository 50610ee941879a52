"""Files that are ranked: listed by suffix, named for the table."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from jepa_train.ranking.listing import list_images


def test_nested_images_have_their_folder_as_class(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.png", "top.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    listing = list_images(tmp_path)
    assert [listing.filename(index) for index in range(3)] == ["a/1.png", "b/2.png", "top.png"]
    assert [listing.class_of(index) for index in range(3)] == ["a", "b", "."]
