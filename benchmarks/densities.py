"""Densities of embeddings compared: which ranks best within a distribution and out of it, in which coordinates.

    python benchmarks/trainings.py FOLDER --seeds 3
    python benchmarks/densities.py FOLDER [--only WORD ...] [--sensitivity | --tangent | --flow] [--json FILE]

Reads what ``trainings.py`` keeps and trains nothing. Every density is fitted to training images and scores others. A
cell is the median over seeds: a rank correlation with the true log density, an AUROC against a further set, or seconds.
Densities are joined to the log volume of as many directions as they have: on a manifold of r, the intrinsic dimension
of the reference, else of all. ``--sensitivity`` varies what the default chooses: neighbours, size of the reference, r.
``--tangent`` puts the volume that images can really change by, along the patterns that a mixture is made of, in the
place of the volume of the r leading directions; it reads the checkpoints, too. ``--flow`` fits a normalising flow,
which takes about a minute each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import yaml
from torch import Tensor
from torch.func import jacfwd, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from trainings import KNOWN_AND_REAL, NUM_PROBE, ROOT, first_images

from jepa_monitor import (
    EmbeddingDensity,
    GaussianDensity,
    ManifoldDensity,
    MixtureDensity,
    NeighbourDensity,
    intrinsic_dimension,
)
from jepa_monitor.density import FlowDensity, log_singular_values
from jepa_monitor.gaussianity.cloud import principal_axes
from jepa_monitor.ranking import auroc, spearman
from jepa_train.data import MixtureDataModule
from jepa_train.data.mixture import cosine_patterns
from jepa_train.module import JEPA

NUM_REFERENCE = 20_000
NUM_FOR_LIKELIHOOD = 8_000  # of them, for a mixture or a flow: the others would take minutes
FLOW_STEPS = 2_000
KINDS = ("z", "tokens")
Fit = Callable[[Tensor, int], EmbeddingDensity]
FITS: Mapping[str, Fit] = {
    "gaussian": lambda z, r: GaussianDensity.fit(z),
    "neighbours": lambda z, r: NeighbourDensity.fit(z, dimension=r),
    "mixture": lambda z, r: MixtureDensity.fit(z[:NUM_FOR_LIKELIHOOD]),
    "manifold": lambda z, r: ManifoldDensity.fit(z, dimension=r),
}


@dataclass(frozen=True)
class Cloud:
    """Embeddings of one encoder, in one system of coordinates.

    Attributes:
        reference: (M, L) of training images.
        z, gram: (N, L) and (N, L, L) of the probe.
        sets: name to the same of further sets.
        truth: (N,) true log density, or ``None``.
        rank: number of factors of the images, or ``None``.
    """

    reference: Tensor
    z: Tensor
    gram: Tensor
    sets: Mapping[str, tuple[Tensor, Tensor]]
    truth: Tensor | None
    rank: int | None

    @classmethod
    def load(cls, file: Path, kind: str) -> Cloud:
        """Read embeddings (``z``) or mean tokens (``tokens``) of a checkpoint, in their own coordinates."""
        kept = torch.load(file, mmap=True)
        truths = kept["truths"]
        sets = {name: (found[kind], found[f"{kind} gram"]) for name, found in kept["sets"].items()}
        probe, reference = kept["probe"], kept["reference"][kind][:NUM_REFERENCE]
        first = next(iter(truths.values()), None)
        return cls(reference.double(), probe[kind].double(), probe[f"{kind} gram"], sets, first, kept["rank"])

    def mapped(self, linear: Tensor) -> Cloud:
        """Coordinates after a linear map (L, K)."""
        sets = {name: (z.double() @ linear.T, linear @ gram @ linear.T) for name, (z, gram) in self.sets.items()}
        gram = linear @ self.gram @ linear.T
        return Cloud(self.reference @ linear.T, self.z @ linear.T, gram, sets, self.truth, self.rank)

    def white(self) -> Cloud:
        """Coordinates in which the reference has the covariance I."""
        variances, axes = principal_axes(self.reference - self.reference.mean(0))
        kept = variances > 1e-10 * variances[-1]
        return self.mapped((axes[:, kept] / variances[kept].sqrt()).T)

    def truncated(self, share: float = 0.99) -> Cloud:
        """The leading principal components that hold this share of the variance."""
        variances, axes = principal_axes(self.reference - self.reference.mean(0))
        left_out = (variances.cumsum(0) < (1.0 - share) * variances.sum()).sum()
        return self.mapped(axes[:, left_out:].T)


COORDINATES: Mapping[str, Callable[[Cloud], Cloud]] = {
    "own": lambda cloud: cloud,
    "white": Cloud.white,
    "truncated": Cloud.truncated,
}


def scores(cloud: Cloud, fit: Fit | None, rank: int, *, volume: bool = True) -> dict[str, Tensor]:
    """Log density up to a constant of the probe (named "") and of each set; no ``fit`` means the volume alone."""
    rank = min(rank, cloud.reference.shape[1])  # coordinates can be fewer than dimensions that were found in others
    density = fit(cloud.reference, rank) if fit else None
    directions = rank if density is None else min(density.volume_rank, cloud.gram.shape[1])
    found = {}
    for name, (z, gram) in {"": (cloud.z, cloud.gram), **cloud.sets}.items():
        value = torch.zeros(len(z), dtype=torch.float64) if density is None else density.log_density(z.double())
        found[name] = value + (log_singular_values(gram)[:, :directions].sum(1) if volume else 0.0)
    return found


def quality(cloud: Cloud, found: Mapping[str, Tensor]) -> dict[str, float]:
    """Rank correlation with the truth, or AUROC against each set."""
    if cloud.truth is not None:
        return {"spearman": spearman(found[""], cloud.truth)}
    half = len(found[""]) // 2
    null = {"itself": auroc(found[""][:half], found[""][half:])}
    return null | {name: auroc(found[""], found[name]) for name in cloud.sets}


def rank_of(cloud: Cloud) -> int:
    """Intrinsic dimension as a number of directions."""
    return min(intrinsic_dimension(cloud.reference).rank, cloud.reference.shape[1])


def compared(file: Path, kind: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Rows of one checkpoint: name of the score, values by name."""
    own = Cloud.load(file, kind)
    rank = rank_of(own)
    whole = {name: log_singular_values(gram).sum(1) for name, (_, gram) in {"": (own.z, own.gram), **own.sets}.items()}
    yield "(intrinsic dimension)", dict.fromkeys(quality(own, whole), intrinsic_dimension(own.reference).estimate)
    yield "Eq. 5", quality(own, whole)
    yield "volume alone", quality(own, scores(own, None, rank))
    for name, fit in FITS.items():
        yield f"{name} alone", quality(own, scores(own, fit, rank, volume=False))
        for where, change in COORDINATES.items():
            yield f"{name} + volume, {where}", quality(own, scores(change(own), fit, rank))


def varied(file: Path, kind: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Rows of one checkpoint: the default with one choice changed."""
    own = Cloud.load(file, kind)
    rank, largest = rank_of(own), own.reference.shape[1]
    yield "default", quality(own, scores(own, FITS["manifold"], rank))
    for count in (500, 1_000, 2_000, 5_000, 10_000):
        fewer = replace(own, reference=own.reference[:count])
        yield f"{count} reference embeddings", quality(fewer, scores(fewer, FITS["manifold"], rank_of(fewer)))
    for k in (20, 50, 100, 400):
        fit = partial(_manifold_of_neighbour, k=k)
        yield f"k = {k}", quality(own, scores(own, fit, rank))
    for r in {max(1, rank - 1), min(rank + 1, largest), own.rank or rank} - {rank}:
        yield f"r = {r} for {rank}", quality(own, scores(own, FITS["manifold"], r))


def _manifold_of_neighbour(z: Tensor, r: int, *, k: int) -> EmbeddingDensity:
    return ManifoldDensity.fit(z, dimension=r, k=k)


def tangent(file: Path, kind: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Rows of one checkpoint on images of known density: volumes of leading directions and of those of the data."""
    own = Cloud.load(file, kind)
    if own.rank is None:
        return
    module = JEPA.load_from_checkpoint(file.with_suffix(".ckpt"), map_location="cpu").eval()
    images = first_images(mixture_of(file.parent.name).probe_dataset(), NUM_PROBE)
    patterns = cosine_patterns(own.rank, image_size=images.shape[-1]).float()
    volume = tangent_volume(module.target if kind == "z" else module.features, images, patterns)
    rank = rank_of(own)
    alone = scores(own, FITS["manifold"], rank, volume=False)[""]
    yield "r leading directions", quality(own, scores(own, FITS["manifold"], rank))
    yield "directions of the data", quality(own, {"": alone + volume})
    yield "volume alone, r leading directions", quality(own, scores(own, None, rank))
    yield "volume alone, directions of the data", quality(own, {"": volume})


def mixture_of(run: str) -> MixtureDataModule:
    """Rebuild the images of a run, by the name of its folder: the config's, with the options of its training."""
    name, _, seed = run.rpartition("_")
    training = next(known for title, known in KNOWN_AND_REAL.items() if title.replace(" ", "_") == name)
    settings = yaml.safe_load((ROOT / "configs" / f"{training.config}.yaml").read_text())["data"]["init_args"]
    words = [word.removeprefix("--data.").split("=") for word in training.options.split() if "--data." in word]
    options = {option: yaml.safe_load(value) for option, value in words}
    return MixtureDataModule(**settings | options | {"seed": int(seed)})


def tangent_volume(encode: Callable[[Tensor], Tensor], images: Tensor, directions: Tensor) -> Tensor:
    """Half the log determinant of (J U)^T (J U), (N,) nats, with U the ``directions`` (r, C, H, W), orthonormal."""

    def moved(image: Tensor, steps: Tensor) -> Tensor:
        return encode((image + torch.tensordot(steps, directions, dims=1))[None])[0]

    found = []
    nowhere = torch.zeros(len(directions))
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        for part in images.split(128):
            change = vmap(jacfwd(moved, argnums=1), in_dims=(0, None))(part, nowhere).double()
            found.append(0.5 * torch.logdet(change.mT @ change))
    return torch.cat(found)


def flow(file: Path, kind: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Rows of one checkpoint: a normalising flow, whose coordinates are white by themselves."""
    own = Cloud.load(file, kind)
    fitted = FlowDensity.fit(own.reference[:NUM_FOR_LIKELIHOOD], max_steps=FLOW_STEPS)
    for name, volume in (("flow alone", False), ("flow + volume, own", True)):
        yield name, quality(own, scores(own, lambda z, r: fitted, fitted.size, volume=volume))


def timed(rows: Iterator[tuple[str, dict[str, float]]]) -> Iterator[tuple[str, dict[str, float]]]:
    """Add the CPU seconds that each row took: to fit and to score, and in the first row to read."""
    start = time.process_time()
    for name, values in rows:
        yield name, values | {"CPU seconds": time.process_time() - start}
        start = time.process_time()


def main(words: Sequence[str] | None = None) -> None:
    """Print the table of what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[""], help="trainings whose name contains one of these")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--sensitivity", dest="rows", action="store_const", const=varied, default=compared)
    asked.add_argument("--tangent", dest="rows", action="store_const", const=tangent)
    asked.add_argument("--flow", dest="rows", action="store_const", const=flow)
    parser.add_argument("--json", type=Path, help="write all values here")
    arguments = parser.parse_args(words)
    rows: dict[str, dict[str, list[dict[str, float]]]] = {}
    for name in (name for name in KNOWN_AND_REAL if any(word in name for word in arguments.only)):
        for file in sorted(arguments.folder.glob(f"{name.replace(' ', '_')}_[0-9]/last.pt")):
            for kind in KINDS:
                found = rows.setdefault(f"{name}, {kind}", defaultdict(list))
                for score, values in timed(arguments.rows(file, kind)):
                    found[score].append(values)
    for name, found in ((name, found) for name, found in rows.items() if found):
        columns = list(max(found.values(), key=len)[0])
        print(f"\n### {name}, seeds: {max(map(len, found.values()))}\n\n| | {' | '.join(columns)} |")
        print("|---" * (len(columns) + 1) + "|")
        for score, values in found.items():
            medians = [statistics.median(value[column] for value in values) for column in columns]
            print(f"| {score} | " + " | ".join(f"{median:.3f}" for median in medians) + " |")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
