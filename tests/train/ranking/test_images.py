"""Listed files as an encoder's input: any picture, and a reason for all that is none."""

from __future__ import annotations

import errno
import io
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch.utils.data import DataLoader

from jepa_train.data.transforms import data_config, to_rgb
from jepa_train.ranking.images import FilesToRank, collate, reason_of
from jepa_train.ranking.listing import list_images
from jepa_train.ranking.preparation import PicturePreparation
from tests.train.ranking.helpers import picture

SIZE = 16
PREPARE = PicturePreparation(data_config(SIZE))


def encoded(image: Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def ranked(root: Path, **settings: Any) -> dict[str, dict[str, Any]]:
    """Samples by name."""
    files = FilesToRank(list_images(root, **settings), PREPARE)
    return {files.listing.filename(index): files[index] for index in range(len(files))}


def test_a_sample_has_the_encoders_input_and_what_the_table_needs(tmp_path: Path) -> None:
    picture(40, 90).save(tmp_path / "a.png")
    (sample,) = ranked(tmp_path).values()
    assert torch.equal(sample["image"], PREPARE.pixels(picture(40, 90)))
    assert 0.7 < sample["compressed_size"] / (3 * SIZE * SIZE) < 1.1  # noise does not get smaller
    assert sample["reason"] is None
    thumbnail = Image.open(io.BytesIO(sample["thumbnail"]))
    assert (thumbnail.format, thumbnail.size, thumbnail.mode) == ("JPEG", (64, 64), "RGB")
    assert np.asarray(thumbnail)[:15].min() > 240  # the whole picture, wide as it is, on white


def test_the_simpler_picture_is_the_smaller(tmp_path: Path) -> None:
    Image.new("RGB", (50, 50), "red").save(tmp_path / "plain.png")
    picture(50, 50).save(tmp_path / "noise.png")
    samples = ranked(tmp_path)
    assert samples["plain.png"]["compressed_size"] < 0.1 * samples["noise.png"]["compressed_size"]


def test_modes_and_tags_are_shown_as_a_viewer_does(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = 6
    turned = Image.fromarray(np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)).convert("RGB")
    turned.save(tmp_path / "turned.jpg", exif=tags, quality=95)
    turned.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    sixteen = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(sixteen).save(tmp_path / "sixteen.png")
    turned.save(tmp_path / "eight.png")
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (8, 8), "white").save(tmp_path / "white.png")
    frames = [Image.new("RGB", (8, 8), color) for color in ("white", "black")]
    frames[0].save(tmp_path / "animated.gif", save_all=True, append_images=frames[1:])
    picture(32, 32).convert("CMYK").save(tmp_path / "cmyk.jpg")
    samples = ranked(tmp_path)
    assert {sample["reason"] for sample in samples.values()} == {None}
    for one, other in (("turned.jpg", "upright.png"), ("sixteen.png", "eight.png")):
        torch.testing.assert_close(samples[one]["image"], samples[other]["image"], atol=3, rtol=0)
    for name in ("clear.png", "animated.gif"):
        assert torch.equal(samples[name]["image"], samples["white.png"]["image"])


def test_what_a_viewer_shows_is_shown_once(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = 6
    turned = Image.open(io.BytesIO(encoded(picture(), "JPEG", exif=tags)))
    assert np.array_equal(np.asarray(to_rgb(to_rgb(turned))), np.asarray(to_rgb(turned)))
    plain = picture()
    assert to_rgb(plain) is plain


def test_each_unreadable_file_has_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    whole = encoded(picture(60, 60), "PNG")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.jpg").write_bytes(encoded(picture(60, 60), "JPEG")[:1000])
    (tmp_path / "text.png").write_bytes(b"no image at all")
    (tmp_path / "page.jpg").write_bytes(b"<html>404</html>")
    (tmp_path / "folder.gif").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "not there")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    os.mkfifo(tmp_path / "pipe.png")
    picture(150, 140).save(tmp_path / "huge.png")
    picture(120, 120).save(tmp_path / "large.png")
    names = sorted(path.name for path in tmp_path.iterdir())
    (tmp_path / "files.txt").write_text("\n".join([*names, "missing.png", "large.png/below.png", "a" * 300 + ".png"]))
    reasons = {name: sample["reason"] for name, sample in ranked(tmp_path, listed=tmp_path / "files.txt").items()}
    assert reasons.pop("cut.jpg").startswith("image file is truncated")
    assert reasons.pop("cut.png")
    assert reasons == {
        "empty.png": "the file is empty",
        "text.png": "it is no image of a kind that Pillow reads",
        "page.jpg": "it is no image of a kind that Pillow reads",
        "folder.gif": "it is a folder",
        "gone.png": "there is no such file",
        "missing.png": "there is no such file",
        "large.png/below.png": "there is no such file",
        "self.png": "the link leads to itself",
        "pipe.png": "it is no file of bytes",
        "huge.png": "it has more than 0 million pixels",
        "large.png": None,
        "a" * 300 + ".png": "the name is too long",
    }


def test_reasons_name_what_the_system_does_not_give() -> None:
    assert reason_of(PermissionError(errno.EACCES, "Permission denied", "a.png")) == "the file may not be read"
    assert reason_of(OSError(errno.EIO, "Input/output error", "a.png")) == "Input/output error"
    assert reason_of(MemoryError()) == "it does not fit into memory"
    assert reason_of(KeyError()) == "KeyError"
    assert len(reason_of(ValueError("long " * 1000))) < 200


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "TGA"])
def test_damaged_bytes_never_raise(kind: str, tmp_path: Path) -> None:
    whole, draw = encoded(picture(20, 20), kind), random.Random(0)
    for number in range(25):
        damaged = bytearray(whole)
        for _ in range(8):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        (tmp_path / f"{number}.png").write_bytes(damaged[: draw.choice([len(damaged), len(damaged) // 2])])
    for sample in ranked(tmp_path).values():
        assert (sample["image"] is None) == bool(sample["reason"])


def test_a_preparation_of_the_users_gets_upright_rgb(tmp_path: Path) -> None:
    picture(30, 40).convert("L").save(tmp_path / "grey.png")
    seen = []

    def prepare(image: Image.Image) -> torch.Tensor:
        seen.append((image.mode, image.size))
        return torch.rand(1, 8, 12)

    files = FilesToRank(list_images(tmp_path), prepare)
    sample = files[0]
    assert seen == [("RGB", (40, 30))]
    assert sample["image"].shape == (1, 8, 12)
    assert torch.equal(files.inputs(sample["image"][None])[0], sample["image"])
    assert 100 < sample["compressed_size"] < 8 * 12 * 3 + 50


def test_batches_keep_the_order_and_leave_unreadable_images_out(tmp_path: Path) -> None:
    for name in ("a.png", "c.png"):
        picture(seed=ord(name[0])).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"")
    files = FilesToRank(list_images(tmp_path), PREPARE)
    (batch,) = DataLoader(files, batch_size=3, collate_fn=collate)
    assert batch["index"].tolist() == [0, 1, 2]
    assert batch["readable"].tolist() == [True, False, True]
    assert batch["image"].dtype == torch.uint8
    assert torch.equal(files.inputs(batch["image"]), torch.stack([PREPARE(picture(seed=ord(name))) for name in "ac"]))
    assert batch["reason"] == [None, "the file is empty", None]
    assert [value is None for value in batch["compressed_size"]] == [False, True, False]
    assert batch["thumbnail"].is_null().to_pylist() == [False, True, False]
    none = collate([files[1]])
    assert (len(files.inputs(none["image"])), none["readable"].tolist()) == (0, [False])


@pytest.mark.slow
def test_workers_see_the_same(tmp_path: Path) -> None:
    for number in range(4):
        picture(seed=number).save(tmp_path / f"{number}.png")
    files = FilesToRank(list_images(tmp_path), PREPARE)
    assert len(pickle.loads(pickle.dumps(files))) == 4
    loads: list[Callable[[], Any]] = [
        lambda: DataLoader(files, batch_size=2, collate_fn=collate),
        lambda: DataLoader(files, batch_size=2, collate_fn=collate, num_workers=1, multiprocessing_context="spawn"),
    ]
    here, there = (list(load()) for load in loads)
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert one["thumbnail"].equals(other["thumbnail"])
