"""Finds what a score of shapes loses, by putting the truth in the place of each of its parts.

    python benchmarks/shape_parts.py CHECKPOINT [--seed 0] [--reference 8000] [--probe 512]

Prints how much of each factor's variance is in the embedding z, and rank correlations with both truths. The checkpoint
is of ``configs/shapes.yaml``; ``--seed`` is the one of its data. With dz/dy the change of z with the content y of an
image, the density that z would have if it knew the content alone is p(y) / sqrt det (dz/dy)^T (dz/dy), and the volume
would be that determinant's root beside the one of the renderer.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from jepa_monitor import ManifoldDensity, NeighbourDensity, intrinsic_dimension
from jepa_monitor.density import gram_and_embedding, log_singular_values
from jepa_monitor.ranking import spearman
from jepa_train.data import ShapesDataModule, ShapesDataset
from jepa_train.data.blobs import render_blobs
from jepa_train.module import JEPA

FACTORS = ("log width", "log aspect", "angle", "bend")
NUISANCE = ("place x", "place y", "contrast", "level", "slope x", "slope y")
STEP = 1e-4  # of content, in central differences in float64
BATCH = 500
Encode = Callable[[Tensor], Tensor]


@torch.no_grad()
def embedded(encode: Encode, images: Tensor) -> Tensor:
    """Embed (N, C, H, W) images, (N, K) in float64."""
    return torch.cat([encode(part) for part in images.split(BATCH)]).double()


def log_change_with_content(encode: Encode, drawn: ShapesDataset) -> Tensor:
    """Half the log determinant of (dz/dy)^T (dz/dy) of each image, (N,); ``encode`` is in float64."""
    noise = drawn.images.double() - rendered(drawn, drawn.content)
    columns = []
    for move in STEP * torch.eye(drawn.content.shape[1], dtype=torch.float64):
        ahead, behind = (rendered(drawn, drawn.content + sign * move) + noise for sign in (1.0, -1.0))
        columns.append((embedded(encode, ahead) - embedded(encode, behind)) / (2.0 * STEP))
    change = torch.stack(columns, dim=2)
    return 0.5 * torch.logdet(change.mT @ change)


def rendered(drawn: ShapesDataset, content: Tensor) -> Tensor:
    """Other contents (N, F) at the nuisance of the samples, without noise, in float64."""
    return render_blobs(content, drawn.nuisance, image_size=drawn.shapes.image_size)


def known(z: Tensor, factors: Tensor, *, train: int) -> Iterator[tuple[str, list[float]]]:
    """Shares of the variance of each factor (N, F) that regressions on z (N, K) explain, fitted to the first ones."""
    spread = (factors - factors.mean(0)) / factors.std(0)
    for name, model in (
        ("ridge regression", Ridge()),
        ("perceptron", MLPRegressor(hidden_layer_sizes=(64, 64), early_stopping=True, max_iter=100, random_state=0)),
    ):
        fitted = make_pipeline(StandardScaler(), model).fit(z[:train].numpy(), spread[:train].numpy())
        found = r2_score(spread[train:].numpy(), fitted.predict(z[train:].numpy()), multioutput="raw_values")
        yield name, found.tolist()


def swapped(module: JEPA, reference: Tensor, probe: ShapesDataset) -> Iterator[tuple[str, Tensor]]:
    """Scores (N,) of the probe by name: the default, its parts, and what it is with the truth in their place."""
    gram, embedding = gram_and_embedding(module.target, probe.images)
    z, sigma = embedding.double(), log_singular_values(gram)
    factors = probe.content.shape[1]
    rank = min(intrinsic_dimension(reference).rank, reference.shape[1])
    own, volume = ManifoldDensity.fit(reference, dimension=rank).log_density(z), sigma[:, :rank].sum(1)
    at_truth = ManifoldDensity.fit(reference, dimension=factors).log_density(z)
    change = log_change_with_content(module.target.double(), probe)
    truths = probe.log_densities
    true_volume = change + truths["manifold"] - truths["content"]
    yield f"density of z + volume, r = {rank} by itself", own + volume
    yield f"the same with r = {factors}", at_truth + sigma[:, :factors].sum(1)
    yield "true density of z + volume", truths["content"] - change + sigma[:, :factors].sum(1)
    yield "density of z + true volume", at_truth + true_volume
    yield "neighbours of z alone", NeighbourDensity.fit(reference, dimension=rank).log_density(z)
    yield "volume alone", volume


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reference", type=int, default=8_000, help="training images")
    parser.add_argument("--probe", type=int, default=512)
    arguments = parser.parse_args()
    data = ShapesDataModule(num_train=arguments.reference, num_probe=arguments.probe, seed=arguments.seed)
    drawn, probe = data.make_train(), data.make_probe()
    module = JEPA.load_from_checkpoint(arguments.checkpoint, map_location="cpu").eval()
    z = embedded(module.target, drawn.images)
    names = (*FACTORS[: drawn.content.shape[1]], *NUISANCE)
    print(f"| R^2 from z | {' | '.join(names)} |")
    print("|---" * (len(names) + 1) + "|")
    for model, found in known(z, torch.cat([drawn.content, drawn.nuisance], 1), train=3 * len(z) // 4):
        print(f"| {model} | " + " | ".join(f"{value:.2f}" for value in found) + " |")
    truths = probe.log_densities
    print(f"\n| Spearman, intrinsic dimension {intrinsic_dimension(z).estimate:.1f} | {' | '.join(truths)} |")
    print("|---" * (len(truths) + 1) + "|")
    for name, score in swapped(module, z, probe):
        print(f"| {name} | " + " | ".join(f"{spearman(score, truth):.3f}" for truth in truths.values()) + " |")


if __name__ == "__main__":
    main()
