"""The two passes of ``python train.py rank`` beside what they replace, and its memory: images a second, MiB.

    python benchmarks/ranking.py [--only complexity loader forward volumes fashion many] [--images 128] [--device cpu]

``complexity`` compares the compressed sizes of a ranking with zlib's. ``loader`` is what the first pass reads, alone
and with an encoder that takes no time, beside a bare loader. ``forward`` is the first pass (thumbnails and compressed
sizes included) beside a bare loop of timm over the same files with as many workers. ``volumes`` is the second pass
beside Listing 1 of the paper, on encoders that were trained for 100 steps on images of known density, with and without
calibration. ``fashion`` ranks the test images of Fashion-MNIST by a ``--checkpoint``, page and all. ``many`` ranks
100,000 small images and prints the peak of memory. With ``--device cuda`` both passes take ViT-S/14 and ViT-B/14 with
random weights, at 224 px.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from rates.complexity import complexity
from rates.forward import forward
from rates.images import photographs
from rates.loader import loader
from rates.volumes import volumes
from rates.volumes_on_gpu import volumes_on_gpu
from rates.whole import fashion, many


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=["complexity", "loader", "forward", "volumes", "many"])
    parser.add_argument("--images", type=int, default=128, help="of loader and forward")
    parser.add_argument("--measured", type=int, default=1000, help="images of volumes")
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--sizes", type=int, nargs="*", default=[192, 384])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--checkpoint", help="of fashion, by configs/fashion_mnist_tokens.yaml")
    parser.add_argument("--folder", type=Path, help="of fashion's images, which are written there")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "complexity" in given.only:
            complexity()
        if {"loader", "forward"} & set(given.only):
            images = photographs(folder / "photographs", given.images, 256)
            if "loader" in given.only:
                loader(images, folder, given.workers)
            if "forward" in given.only:
                forward(images, folder, given.device, given.workers)
        if "volumes" in given.only:
            if given.device == "cuda":
                volumes_on_gpu(folder, given.measured, given.workers)
            else:
                volumes(folder, given.sizes, given.measured)
        if "fashion" in given.only:
            fashion(given.folder or folder / "garments", given.checkpoint, folder / "ranked_garments")
        if "many" in given.only:
            many(folder, given.many)


if __name__ == "__main__":
    main()
