"""Makes a folder of labelled images: letters as a photograph would show them, in a folder for each of them.

    python benchmarks/letters.py FOLDER [--count 4000] [--seed 0]

Each letter has any font that matplotlib ships, any place, size, turn and color, on a background of its own, with shapes
that mean nothing behind it; the image has a light, a blur and a noise of its own. So neither pixels nor colors know the
class well. Image ``number`` of a seed is the same whatever the count.
"""

from __future__ import annotations

import argparse
import math
import string
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZE = 64  # height and width, in pixels
DRAWN = 128  # of what is drawn, before it is made smaller
COUNT = 4_000  # images
CLASSES = string.ascii_uppercase
FAMILIES = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral", "cmb10", "cmr10", "cmss10", "cmtt10")
LEAST_CONTRAST = 70.0  # of 255, between the luminances of letter and background
LUMINANCE = (0.299, 0.587, 0.114)
Draws = np.random.Generator
Color = NDArray[np.float64]  # red, green, blue from 0 to 255


@lru_cache(maxsize=1)
def fonts() -> list[Path]:
    """Find the fonts of text that matplotlib ships, sorted by name."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    found = sorted(path for path in folder.glob("*.ttf") if path.stem.partition("-")[0].startswith(FAMILIES))
    return [path for path in found if "Display" not in path.stem]  # which lacks letters


@lru_cache(maxsize=4096)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)


def image(number: int, *, seed: int) -> Image.Image:
    """Draw one image of letter ``CLASSES[number % 26]``, (64, 64) RGB."""
    draws = np.random.default_rng([seed, number])
    behind, front = _colors(draws)
    scene = _surface(behind, draws)
    _clutter(scene, draws)
    scene.paste(_surface(front, draws), (0, 0), _letter(CLASSES[number % len(CLASSES)], draws))
    blurred = scene.filter(ImageFilter.GaussianBlur(float(draws.uniform(0.0, 2.0))))
    pixels = np.asarray(blurred.resize((SIZE, SIZE), Image.Resampling.BOX)) * _light(draws)[:, :, None]
    pixels += draws.normal(0.0, draws.uniform(0.0, 12.0), pixels.shape)
    return Image.fromarray(pixels.clip(0.0, 255.0).astype(np.uint8))


def _colors(draws: Draws) -> tuple[Color, Color]:
    """Two colors that differ in luminance: of the background and of the letter."""
    while True:
        behind, front = draws.uniform(0.0, 255.0, (2, 3))
        if abs(float((behind - front) @ LUMINANCE)) >= LEAST_CONTRAST:
            return behind, front


def _surface(color: Color, draws: Draws) -> Image.Image:
    """Give a color a smooth texture, (128, 128) RGB."""
    cells = int(draws.integers(2, 9))
    waves = draws.uniform(-1.0, 1.0, (cells, cells, 1)) * draws.uniform(0.0, 30.0)
    texture = Image.fromarray((color + waves).clip(0.0, 255.0).astype(np.uint8))
    return texture.resize((DRAWN, DRAWN), Image.Resampling.BICUBIC)


def _light(draws: Draws) -> NDArray[np.float64]:
    """Draw a light that rises along some direction, (64, 64) factors around 1."""
    across = np.linspace(-1.0, 1.0, SIZE)
    angle, rise = draws.uniform(0.0, 2.0 * math.pi), draws.uniform(0.0, 0.25)
    return 1.0 + rise * (math.cos(angle) * across[None, :] + math.sin(angle) * across[:, None])


def _clutter(scene: Image.Image, draws: Draws) -> None:
    """Draw up to two lines and ellipses of any color."""
    pen = ImageDraw.Draw(scene, "RGBA")
    for _ in range(int(draws.integers(0, 3))):
        red, green, blue = draws.integers(0, 256, 3).tolist()
        color = (red, green, blue, int(draws.integers(60, 200)))
        (left, right), (top, bottom) = np.sort(draws.integers(0, DRAWN, (2, 2))).tolist()
        if draws.random() < 0.5:
            pen.ellipse((left, top, right, bottom), fill=color)
        else:
            ends = (left, top, right, bottom) if draws.random() < 0.5 else (left, bottom, right, top)
            pen.line(ends, fill=color, width=int(draws.integers(1, 9)))


def _letter(letter: str, draws: Draws) -> Image.Image:
    """Draw how much of each pixel a letter covers, (128, 128)."""
    choices = fonts()
    font = _font(choices[int(draws.integers(len(choices)))], int(draws.integers(64, 116)))
    mask = Image.new("L", (DRAWN, DRAWN))
    x, y = (DRAWN / 2 + draws.uniform(-14.0, 14.0, 2)).tolist()
    ImageDraw.Draw(mask).text((x, y), letter, fill=255, font=font, anchor="mm")
    return mask.rotate(float(draws.uniform(-15.0, 15.0)), Image.Resampling.BICUBIC, center=(x, y))


def write(folder: Path, *, count: int, seed: int) -> None:
    """Write ``count`` images, of each letter as many as of any other or one more: ``FOLDER/A/00000.png`` and so on."""
    for letter in CLASSES[:count]:
        (folder / letter).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image(number, seed=seed).save(folder / CLASSES[number % len(CLASSES)] / f"{number:05d}.png", compress_level=1)


def main() -> None:
    """Write the folder, and say what it has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=COUNT, help="images")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write(arguments.folder, count=arguments.count, seed=arguments.seed)
    print(f"Wrote {arguments.count} images of {len(CLASSES)} letters to {arguments.folder}.")


if __name__ == "__main__":
    main()
