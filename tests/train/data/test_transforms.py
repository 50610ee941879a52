"""Files of any size and mode become tensors as a viewer shows them, and as timm's own transform makes them."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps
from timm.data.transforms_factory import create_transform
from torch import Tensor

from jepa_train.data import ImageFolderDataModule, data_config
from jepa_train.data.transforms import PictureToTensor, to_rgb, without_ends
from jepa_train.errors import ConfigurationError


def noise(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def unnormalised(image: Tensor) -> Tensor:
    """The normalisation undone, (3, H, W) in [0, 255]."""
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return 255.0 * (image * deviation.view(3, 1, 1) + mean.view(3, 1, 1))


def pixels(picture: Image.Image) -> list[list[float]]:
    """A square picture as it comes out of the transform, the normalisation undone, in [0, 255]."""
    image = PictureToTensor(picture.width)(picture)
    back = image * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) + torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    assert torch.allclose(back[0], back[1], atol=1e-5)
    return (255.0 * back[0]).round().tolist()


def test_sixteen_bit_greyscale_keeps_its_range(tmp_path: Path) -> None:
    values = np.array([[0, 257], [128 * 257 + 100, 65535]], dtype=np.uint16)
    for name in ("little.png", "little.tif"):
        Image.fromarray(values).save(tmp_path / name)
        with Image.open(tmp_path / name) as picture:
            assert picture.mode == "I;16"
            assert pixels(picture) == [[0, 1], [128, 255]]
    big = Image.frombytes("I;16B", (2, 2), values.astype(">u2").tobytes())
    assert pixels(big) == [[0, 1], [128, 255]]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_greyscale_without_a_range_is_stretched_to_its_own(dtype: type[Any]) -> None:
    values = np.array([[-1000, 0], [1000, 4000]], dtype=dtype)
    picture = Image.fromarray(values)
    assert picture.mode == ("I" if dtype is np.int32 else "F")
    assert pixels(picture) == [[0, 51], [102, 255]]
    assert pixels(Image.fromarray(np.full((2, 2), 7, dtype=dtype))) == [[0, 0], [0, 0]]


def test_what_is_not_finite_is_black() -> None:
    values = np.array([[np.nan, 1.0], [np.inf, 2.0]], dtype=np.float32)
    assert pixels(Image.fromarray(values)) == [[0, 0], [0, 255]]
    assert pixels(Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32))) == [[0, 0], [0, 0]]


def tagged(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_a_picture_is_turned_as_its_tag_says(suffix: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(noise(12, 20, 3)).save(path, exif=tagged(orientation))
    with Image.open(path) as picture:
        picture.load()
    expected = ImageOps.exif_transpose(picture)
    assert expected.size == ((12, 20) if orientation > 4 else (20, 12))
    np.testing.assert_array_equal(np.asarray(to_rgb(picture)), np.asarray(expected))


@pytest.mark.parametrize(("place", "size"), [(b"\x01\x1a\x00\x05", (2, 3)), (b"MM\x00*", (3, 2))])
def test_damaged_tags_do_not_cost_a_picture(place: bytes, size: tuple[int, int]) -> None:
    """Pillow's own function fails on them; where the type of another tag is wrong, the orientation is still known."""
    exif = tagged(6)
    exif[ExifTags.Base.XResolution] = 72.0
    picture = Image.fromarray(noise(2, 3, 3))
    picture.info["exif"] = exif.tobytes().replace(place, place[:-1] + b"\x01")
    assert to_rgb(picture).size == size


def transparent(mode: str, alpha: int) -> Image.Image:
    """2 x 2 pixels whose color, a dark red, is hidden behind this alpha."""
    picture = Image.new("RGBA", (2, 2), (100, 0, 0, alpha))
    if mode == "LA":
        return Image.merge("LA", [Image.new("L", (2, 2), 100), Image.new("L", (2, 2), alpha)])
    if mode == "RGBA":
        return picture
    palette = Image.new(mode, (2, 2), 0 if mode == "P" else (100, 0, 0))
    if mode == "P":
        palette.putpalette([100, 0, 0])
    palette.info["transparency"] = bytes([alpha]) if mode == "P" else (100, 0, 0)
    return palette


@pytest.mark.parametrize(("background", "expected"), [("white", 255), ("#808080", 128), ("black", 0)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparent_pixels_show_the_background(mode: str, background: str, expected: int, tmp_path: Path) -> None:
    transparent(mode, 0).save(tmp_path / "0.png", transparency=transparent(mode, 0).info.get("transparency"))
    with Image.open(tmp_path / "0.png") as picture:
        assert picture.mode == mode
        image = PictureToTensor(2, background=background)(picture)
    torch.testing.assert_close(unnormalised(image), torch.full((3, 2, 2), float(expected)), atol=1e-3, rtol=0.0)


def test_half_transparent_is_half_of_each() -> None:
    assert to_rgb(transparent("RGBA", 51), "white").getpixel((0, 0)) == (224, 204, 204)  # a fifth of it


def test_a_background_that_is_no_color_is_named() -> None:
    with pytest.raises(ConfigurationError, match="background must be a color such as white or #808080, got 'wite'"):
        ImageFolderDataModule("images", background="wite")


MODES = {
    "RGB": lambda width, height: Image.fromarray(noise(height, width, 3)),
    "L": lambda width, height: Image.fromarray(noise(height, width)),
    "1": lambda width, height: Image.fromarray(noise(height, width)).convert("1"),
    "P": lambda width, height: Image.fromarray(noise(height, width, 3)).quantize(16),
    "RGBA": lambda width, height: Image.fromarray(np.dstack([noise(height, width, 3), noise(height, width) | 255])),
    "CMYK": lambda width, height: Image.fromarray(noise(height, width, 3)).convert("CMYK"),
}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(MODES)), st.integers(1, 200), st.integers(1, 200), st.integers(1, 64))
def test_the_pixels_are_those_of_timms_transform(mode: str, width: int, height: int, size: int) -> None:
    """Exactly, on all pictures that are not thin; beside timm's documented way, which opens files as RGB."""
    if max(width, height) > 16 * min(width, height):
        width = height
    picture = MODES[mode](width, height)
    timms = create_transform(**data_config(size))
    assert torch.equal(PictureToTensor(size)(picture), timms(picture.convert("RGB")))


def test_a_thin_picture_takes_little_memory() -> None:
    """Resized whole, it would take 4.7 GB."""
    ramp = np.clip(np.arange(30000) - 14000, 0, 255 * 8) // 8
    for picture in (Image.fromarray(ramp.astype(np.uint8)[:, None]), Image.fromarray(ramp.astype(np.uint8)[None])):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        image = unnormalised(PictureToTensor(224)(picture))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
        assert image.shape == (3, 224, 224)
        # the middle of the picture is between the pixels 14999 and 15000, where the ramp is at 124 and 125
        assert 124 - 1e-3 < image.min() < image.max() < 125 + 1e-3


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(17, 40), st.integers(0, 11), st.integers(8, 64))
def test_of_a_thin_picture_the_middle_is_seen(width: int, times: int, more: int, size: int) -> None:
    """The result is within one pixel, of which 4 grey levels are the slope here."""
    height = width * times + more % width
    slope = 4.0 * size / width  # grey levels a pixel of the picture
    rows = 128.0 + slope * (np.arange(height) - (height - 1) / 2)
    picture = Image.fromarray(np.tile(np.clip(rows, 0, 255).round().astype(np.uint8)[:, None], (1, width)))
    assert max(without_ends(picture).size) <= 16 * width + 1
    plain = create_transform(**data_config(size))(picture.convert("RGB"))
    torch.testing.assert_close(unnormalised(PictureToTensor(size)(picture)), unnormalised(plain), atol=5.01, rtol=0.0)
