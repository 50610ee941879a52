"""Makes a folder of labelled images: pieces of eighteen photographs, those of a photograph in a folder of their own.

    pip install -e ".[benchmarks]"
    python benchmarks/photographs.py FOLDER [--seed 0]

The photographs are those that scikit-image and scikit-learn ship. Each piece has any place and size, and a light of its
own, bright or dark, of any tint, so that the color does not give the photograph away. Pieces of the third quarter of a
photograph are in ``FOLDER/val``, of the rest in ``FOLDER/train``: no pixel is in both.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 64  # height and width of a piece, in pixels
COUNTS = {"train": 200, "val": 40}  # pieces of each photograph
SIDES = (40, 128)  # of a piece in its photograph, in pixels; a quarter of the photograph's width at most
NAMES = (  # functions of skimage.data that need no download
    *("astronaut", "brick", "camera", "cat", "coffee", "coins", "grass", "gravel", "hubble_deep_field"),
    *("immunohistochemistry", "moon", "page", "retina", "rocket", "stereo_motorcycle", "text"),
)
Pixels = NDArray[np.uint8]


def photographs() -> dict[str, Pixels]:
    """Read all photographs, (H, W) or (H, W, 3), by name."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    found = {name: getattr(data, name)() for name in NAMES}
    found["stereo_motorcycle"], *_ = found["stereo_motorcycle"]  # left, right, disparity
    samples = load_sample_images()
    return found | {Path(name).stem: image for name, image in zip(samples.filenames, samples.images, strict=True)}


def place(height: int, width: int, part: str, draws: np.random.Generator) -> tuple[int, int, int]:
    """Draw the left and upper end of a piece and its side, such that it lies in its part of the photograph."""
    side = int(draws.integers(SIDES[0], min(SIDES[1], height, width // 4) + 1))
    half, quarter = width // 2, 3 * width // 4
    first, last = (half, quarter) if part == "val" else (0, half) if draws.random() < 2 / 3 else (quarter, width)
    return int(draws.integers(first, last - side + 1)), int(draws.integers(0, height - side + 1)), side


def piece(photograph: Pixels, part: str, draws: np.random.Generator) -> Image.Image:
    """Cut one piece and light it, (64, 64) RGB."""
    left, top, side = place(*photograph.shape[:2], part, draws)
    cut = Image.fromarray(photograph[top : top + side, left : left + side]).convert("RGB")
    pixels = np.asarray(cut.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float64)
    lit = pixels * draws.uniform(0.6, 1.2) * draws.uniform(0.7, 1.3, 3) + draws.uniform(-20.0, 20.0)
    return Image.fromarray(lit.clip(0.0, 255.0).astype(np.uint8))


def write(folder: Path, *, seed: int) -> int:
    """Write ``FOLDER/train/NAME/000.png`` and so on; return how many images these are."""
    found = photographs()
    for number, (name, photograph) in enumerate(found.items()):
        for part, count in COUNTS.items():
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            draws = np.random.default_rng([seed, number, count])
            for index in range(count):
                piece(photograph, part, draws).save(folder / part / name / f"{index:03d}.png", compress_level=1)
    return len(found) * sum(COUNTS.values())


def main() -> None:
    """Write the folder, and say what it has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"Wrote {write(arguments.folder, seed=arguments.seed)} images to {arguments.folder}.")


if __name__ == "__main__":
    main()
