"""Ranks shapes by the density of their content without an encoder: Spearman of models of the pixels with both truths.

    python benchmarks/shapes.py [--seeds 3] [--train 8000] [--probe 1024]

Models are fitted to training images and score the probe. The first row is one Gaussian on the true content, which no
model of the images is given.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from scipy.stats import spearmanr
from sklearn.mixture import GaussianMixture
from torch import Tensor

from jepa_monitor.density import knn_distance
from jepa_monitor.ranking import GaussianBaseline
from jepa_train.data import ShapesDataModule, ShapesDataset

AXES = (8, 16, 32)  # principal components of the pixels
NEIGHBOURS = (1, 5, 50)
COMPONENTS = (4, 8, 16, 32)


def gaussian(points: Tensor, queries: Tensor) -> Tensor:
    """Log density, up to a constant, of (N, D) queries under one Gaussian with the covariance of (M, D) points."""
    factor = torch.linalg.cholesky(torch.cov(points.T))
    white = torch.linalg.solve_triangular(factor, (queries - points.mean(0)).T, upper=False)
    return -0.5 * white.square().sum(0)


def mixture(points: Tensor, queries: Tensor, counts: Sequence[int]) -> Tensor:
    """Log density of (N, D) queries under a mixture of Gaussians, fitted to (M, D) points, its size chosen by BIC."""
    fits = [GaussianMixture(count, random_state=0).fit(points.numpy()) for count in counts]
    best = min(fits, key=lambda fit: fit.bic(points.numpy()))
    return torch.from_numpy(best.score_samples(queries.numpy()))


def pixel_models(
    train: Tensor, probe: Tensor, *, axes: Sequence[int] = AXES, components: Sequence[int] = COMPONENTS
) -> dict[str, Tensor]:
    """Score probe images (N, C, H, W) by models of the pixels of training images.

    Args:
        train, probe: images.
        axes: numbers of principal components of the pixels.
        components: numbers of components of a mixture.

    Returns:
        name of a model to (N,), higher where an image is denser.
    """
    points, queries = train.double().flatten(1), probe.double().flatten(1)
    principal = torch.linalg.eigh(torch.cov(points.T)).eigenvectors.flip(1)
    found = {
        "one Gaussian, as the monitor's": GaussianBaseline.fit(train).score(probe),
        "one Gaussian, all pixels": gaussian(points, queries),
    }
    for count in axes:
        seen, asked = points @ principal[:, :count], queries @ principal[:, :count]
        found[f"one Gaussian, {count} components"] = gaussian(seen, asked)
        found[f"mixture, {count} components"] = mixture(seen, asked, components)
    return found | {f"neighbours, k = {k}": -knn_distance(queries, points, k=k) for k in NEIGHBOURS}


def rankings(train: ShapesDataset, probe: ShapesDataset, **settings: Any) -> dict[tuple[str, str], float]:
    """Spearman by model and truth; settings are those of :func:`pixel_models`."""
    models = {"one Gaussian, true content": gaussian(train.content, probe.content)}
    models |= pixel_models(train.images, probe.images, **settings)
    truths = probe.log_densities
    return {
        (model, truth): float(spearmanr(score, truths[truth])[0]) for model, score in models.items() for truth in truths
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=8_000, help="training images")
    parser.add_argument("--probe", type=int, default=1_024)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="Best performing initialization did not converge")
    found = defaultdict(list)
    for seed in range(arguments.seeds):
        data = ShapesDataModule(num_train=arguments.train, num_probe=arguments.probe, seed=seed)
        for key, value in rankings(data.make_train(), data.make_probe()).items():
            found[key].append(value)
    print(f"Spearman, median (smallest to largest) of {arguments.seeds} seeds\n")
    print("| model | truth | |\n|---|---|---|")
    for (model, truth), values in found.items():
        print(f"| {model} | {truth} | {statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f}) |")


if __name__ == "__main__":
    main()
