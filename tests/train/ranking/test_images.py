"""Listed files as an encoder's input."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from jepa_train.data.transforms import data_config
from jepa_train.ranking.images import FilesToRank, collate
from jepa_train.ranking.listing import list_images
from jepa_train.ranking.preparation import PicturePreparation


def test_an_unreadable_file_is_a_row_with_a_reason(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    files = FilesToRank(list_images(tmp_path), PicturePreparation(data_config(16)))
    batch = collate([files[0], files[1]])
    assert batch["image"].shape == (1, 3, 16, 16)
    assert batch["readable"].tolist() == [True, False]
    assert batch["reason"][0] is None
    assert batch["reason"][1]
