"""Compressed sizes of a ranking beside zlib's: ranks, and what each tells apart."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from PIL import Image
from planted.faults import pictures
from scipy.stats import spearmanr
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score
from torch import Tensor

from jepa_monitor.ranking import compressed_size as size_by_zlib
from jepa_train.data import FashionMNISTDataModule
from jepa_train.ranking.images import compressed_size
from rates.rankings import SIZE


def complexity(count: int = 3000) -> None:
    """Print how zstd ranks pictures beside zlib, and how well each tells garments from digits."""
    data = FashionMNISTDataModule()
    garments, digits = (
        pictures(data, images).pixels[:count, None].round().byte()
        for images in (data.probe_dataset(), data.ood_datasets()["mnist"])
    )
    for name, images in {"garments": garments, "crops of photographs": crops()}.items():
        rho = spearmanr(by_zstd(images), by_zlib(images)).statistic
        print(f"complexity, {len(images)} {name}: Spearman of zstd and zlib {rho:.3f}")
    labels = [1] * len(garments) + [0] * len(digits)
    for name, sizes in {"zstd": by_zstd, "zlib": by_zlib}.items():
        found = roc_auc_score(labels, [*sizes(garments), *sizes(digits)])
        print(f"complexity: AUROC of garments among digits by {name} {found:.3f}", flush=True)


def crops(count: int = 500) -> Tensor:
    """Random crops (N, 3, H, W) of the two photographs of scikit-learn, 8 bit."""
    draws = np.random.default_rng(0)
    found = []
    for photograph in load_sample_images().images * (count // 2):
        side = int(draws.integers(60, min(photograph.shape[:2])))
        top, left = (int(draws.integers(0, length - side)) for length in photograph.shape[:2])
        crop = Image.fromarray(photograph[top : top + side, left : left + side]).resize((SIZE, SIZE))
        found.append(torch.from_numpy(np.array(crop)).permute(2, 0, 1))
    return torch.stack(found)


def by_zstd(images: Tensor) -> list[int]:
    """Bytes of each image (N, C, H, W), as a ranking counts them."""
    return [compressed_size(image) for image in images]


by_zlib = partial(size_by_zlib, low=0.0, high=255.0)  # as the monitor counts them
