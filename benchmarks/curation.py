"""Planted faults in folders of Fashion-MNIST, and which scores of a ranking find them.

    python benchmarks/trainings.py RUNS --only fashion_mnist_ --seeds 3
    python benchmarks/curation.py RUNS FOLDER [--only KIND ...] [--pooling auto mean] [--clean 3000] [--json FILE]
    python benchmarks/curation.py RUNS FOLDER --figure FILE

A folder of clean test images, one subfolder a class, gets 2 % of one kind of fault; ``jepa_train.ranking.rank`` ranks
it with each checkpoint and with random weights (``random``, the control), and every column of the table is judged by
its average precision, beside what cleanlab and PyOD (``pip install cleanlab pyod``) make of the same embeddings. No
encoder saw a fault in training. Intervals are bootstrapped over images. Rankings are kept in FOLDER and not made again.
``--figure FILE`` draws the least and most typical clean images of four classes instead, by the first checkpoint.
"""

from __future__ import annotations

import argparse
import json
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import average_precision_score
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from jepa_train.data import FashionMNISTDataModule
from jepa_train.data.base import ImageTensors
from jepa_train.ranking.run import rank
from jepa_train.ranking.workspace import EMBEDDINGS, Workspace, vectors

CLASSES = ("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
SHARE = 0.02
BOOTSTRAPS = 200
Truth = NDArray[np.bool_]


@dataclass(frozen=True)
class Pictures:
    """Pixels (N, 28, 28) in 0..255 and labels (N,)."""

    pixels: Tensor
    labels: Tensor

    def take(self, index: slice) -> Pictures:
        return Pictures(self.pixels[index], self.labels[index])


def _noise(pixels: Tensor, draws: torch.Generator) -> Tensor:
    return (pixels + 0.3 * 255.0 * torch.randn(pixels.shape, generator=draws)).clamp(0, 255)


def _blur(pixels: Tensor, draws: torch.Generator) -> Tensor:
    return transforms.gaussian_blur(pixels[:, None], [7, 7], [1.5, 1.5])[:, 0]


def _blank(pixels: Tensor, draws: torch.Generator) -> Tensor:
    return torch.zeros_like(pixels) + 25.0 * torch.rand(len(pixels), 1, 1, generator=draws)


def _near(pixels: Tensor, draws: torch.Generator) -> Tensor:
    """Brighten or darken by up to 5 %, with a noise of 2 of 255: what saving a picture twice does."""
    factors = 1.0 + 0.1 * (torch.rand(len(pixels), 1, 1, generator=draws) - 0.5)
    return (pixels * factors + 2.0 * torch.randn(pixels.shape, generator=draws)).clamp(0, 255)


FAULTS: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "upside down": lambda pixels, draws: pixels.flip(1),
    "noise": _noise,
    "blur": _blur,
    "blank": _blank,
}
DUPLICATES: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "exact duplicates": lambda pixels, draws: pixels,
    "near duplicates": _near,
}
DIGITS, WRONG = "digits", "wrong class"
KINDS = (DIGITS, *FAULTS, WRONG, *DUPLICATES)
FINDS_FAULTS = (DIGITS, *FAULTS)
CLEAN = "clean"
SHOWN, EXTREMES = ("dress", "sandal", "bag", "boot"), 6  # of the figure


@dataclass(frozen=True)
class Planted:
    """Images with faults among them.

    Attributes:
        pictures: images and the class that each is filed under.
        is_fault: which are to be found; of a duplicate both copies.
    """

    pictures: Pictures
    is_fault: Truth


def plant(kind: str, clean: Pictures, others: Pictures, digits: Tensor, draws: torch.Generator) -> Planted:
    """Add ``SHARE`` of faults to clean images; ``others`` are clean images that are not among them."""
    if kind == CLEAN:
        return Planted(clean, np.zeros(len(clean.labels), dtype=bool))
    count = round(SHARE * len(clean.pixels))
    others = others.take(slice(count))
    if kind == WRONG:
        shift = torch.randint(1, len(CLASSES), (count,), generator=draws)
        added = Pictures(others.pixels, (others.labels + shift) % len(CLASSES))
    elif kind == DIGITS:
        added = Pictures(digits[:count], others.labels)
    elif kind in FAULTS:
        added = Pictures(FAULTS[kind](others.pixels, draws), others.labels)
    else:
        copied = clean.take(slice(count))
        added = Pictures(DUPLICATES[kind](copied.pixels, draws), copied.labels)
    both = Pictures(torch.cat([clean.pixels, added.pixels]), torch.cat([clean.labels, added.labels]))
    is_fault = np.arange(len(both.labels)) >= len(clean.labels)
    if kind in DUPLICATES:
        is_fault[:count] = True
    return Planted(both, is_fault)


def write(planted: Planted, folder: Path, draws: torch.Generator) -> None:
    """Write the images in a random order, and which of them are faults."""
    names = []
    for place, index in enumerate(torch.randperm(len(planted.is_fault), generator=draws).tolist()):
        name = f"{CLASSES[int(planted.pictures.labels[index])]}/{place:05d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = planted.pictures.pixels[index].round().to(torch.uint8).numpy()
        Image.fromarray(pixels).save(folder / name)
        if planted.is_fault[index]:
            names.append(name)
    folder.with_suffix(".json").write_text(json.dumps(sorted(names)))


def make_folders(folder: Path, kinds: list[str], count: int) -> None:
    """Write the folder of each kind that is not there yet."""
    data = FashionMNISTDataModule()
    config = data.preparation()["data_config"]
    test, mnist = data.probe_dataset(), data.ood_datasets()["mnist"]
    assert isinstance(test, ImageTensors)
    assert isinstance(mnist, ImageTensors)
    pixels, digits = (
        (images[:, 0] * config["std"][0] + config["mean"][0]) * 255.0 for images in (test.images, mnist.images)
    )
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    shuffled = Pictures(pixels[order], test.labels[order])
    digits = digits[torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))]
    for kind in kinds:
        if (folder / kind).with_suffix(".json").is_file():
            continue
        draws = torch.Generator().manual_seed((*KINDS, CLEAN).index(kind))
        write(
            plant(kind, shuffled.take(slice(count)), shuffled.take(slice(count, None)), digits, draws),
            folder / kind,
            draws,
        )


def doubts(table: pa.Table) -> dict[str, NDArray[np.float64]]:
    """Turn columns so that higher is more doubtful, (N,) each by name."""
    columns = {
        name: np.array(table[name].to_pylist(), dtype=float)
        for name in table.column_names
        if pa.types.is_floating(table.schema.field(name).type) or pa.types.is_integer(table.schema.field(name).type)
    }
    columns = {name: values for name, values in columns.items() if np.isfinite(values).any()}
    typical = ("log_density", "jepa_score", "embedding_log_density", "log_volume", "class_percentile")
    found = {name: -columns[name] for name in typical if name in columns}
    found |= {name: columns[name] for name in ("mahalanobis", "knn_distance", "doubt")}
    found |= {f"{name}, small": -columns[name] for name in ("nearest_distance", "nearest_difference")}
    for name in ("log_density", "compressed_size"):
        found[f"{name}, both ends"] = np.abs(columns[name] - np.nanmedian(columns[name]))
    return {name: np.nan_to_num(values, nan=np.nanmin(values)) for name, values in found.items()}


def peers(z: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """The same by cleanlab and PyOD on embeddings (N, K)."""
    from cleanlab.outlier import OutOfDistribution
    from pyod.models.ecod import ECOD
    from pyod.models.knn import KNN

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "cleanlab OutOfDistribution": -OutOfDistribution().fit_score(features=z, verbose=False),
            "PyOD ECOD": ECOD().fit(z).decision_scores_,
            "PyOD KNN": KNN().fit(z).decision_scores_,
        }


def interval(truth: Truth, doubt: NDArray[np.float64]) -> dict[str, float]:
    """Average precision, its interval of 95 % by bootstrap over images, and precision among as many as were planted."""
    draws = np.random.default_rng(0)
    resampled = []
    for _ in range(BOOTSTRAPS):
        index = draws.integers(0, len(truth), len(truth))
        resampled.append(average_precision_score(truth[index], doubt[index]))
    first = np.argsort(-doubt, kind="stable")[: truth.sum()]
    low, high = np.quantile(resampled, (0.025, 0.975))
    return {
        "ap": float(average_precision_score(truth, doubt)),
        "low": float(low),
        "high": float(high),
        "precision": float(truth[first].mean()),
    }


def judged(folder: Path, kind: str, checkpoint: str, pooling: str, output: Path) -> dict[str, dict[str, float]]:
    """Rank one folder by one encoder, and judge each column, by name."""
    table = rank(
        folder / kind, encoder=checkpoint, pooling=pooling, output=output, trainer={"enable_progress_bar": False}
    )
    assert table is not None
    faults = set(json.loads((folder / kind).with_suffix(".json").read_text()))
    names = table["filename"].to_pylist()
    truth = np.array([name in faults for name in names])
    found = doubts(table) | peers(embeddings_of(output, names))
    return {name: interval(truth, doubt) for name, doubt in found.items()}


def embeddings_of(output: Path, names: list[str]) -> NDArray[np.float32]:
    """Embeddings (N, K) that a ranking kept, in the order of these names."""
    workspace = Workspace(output)
    parts = [workspace.read(EMBEDDINGS, number) for number in sorted(workspace.numbers(EMBEDDINGS))]
    stored = [name for part in parts for name in part["filename"].to_pylist()]
    place = {name: index for index, name in enumerate(stored)}
    return np.concatenate([vectors(part["embedding"]) for part in parts])[[place[name] for name in names]]


def encoders_of(runs: Path) -> Iterator[tuple[str, int, str]]:
    """Name, seed and address of each encoder: checkpoints of all seeds, and one with random weights."""
    checkpoints = sorted(runs.glob("fashion_mnist_[0-9]/last.ckpt"))
    for checkpoint in checkpoints:
        yield "trained", int(checkpoint.parent.name[-1]), str(checkpoint)
    if checkpoints:
        yield "random", 0, f"random:{checkpoints[0]}"


def main() -> None:
    """Rank, judge, and print a table for each encoder and pooling."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--pooling", nargs="*", default=["auto", "mean"])
    parser.add_argument("--clean", type=int, default=3_000, help="images without fault")
    parser.add_argument("--json", type=Path, help="write all values here")
    parser.add_argument("--figure", type=Path, help="draw what is least and most typical, and nothing else")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.figure:
        make_folders(arguments.folder / "images", [CLEAN], arguments.clean)
        _, _, checkpoint = next(encoders_of(arguments.runs))
        images, output = arguments.folder / "images" / CLEAN, arguments.folder / CLEAN
        table = rank(images, encoder=checkpoint, pooling="mean", output=output)
        assert table is not None
        draw(table, images, arguments.figure)
        return
    make_folders(arguments.folder / "images", arguments.only, arguments.clean)
    rows: dict[str, dict[str, dict[str, list[dict[str, float]]]]] = {}
    for encoder, seed, checkpoint in encoders_of(arguments.runs):
        for pooling in arguments.pooling:
            for kind in arguments.only:
                output = arguments.folder / f"{encoder} {seed} {pooling}" / kind
                found = judged(arguments.folder / "images", kind, checkpoint, pooling, output)
                for name, values in found.items():
                    of_score = rows.setdefault(f"{encoder}, {pooling}", {}).setdefault(name, {})
                    of_score.setdefault(kind, []).append(values)
    for title, found in rows.items():
        print_table(title, found, arguments.only)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


def draw(table: pa.Table, images: Path, file: Path) -> None:
    """Draw a line for each of four classes: its least typical images left, its most typical right."""
    figure = Figure(figsize=(9.0, 3.2), dpi=100, layout="constrained")
    axes = figure.subplots(
        len(SHOWN), 2 * EXTREMES + 1, gridspec_kw={"width_ratios": [1] * EXTREMES + [0.6] + [1] * EXTREMES}
    )
    for line, name in zip(axes, SHOWN, strict=True):
        of_class = table.filter(pc.equal(table["class"], name)).sort_by("log_density")["filename"].to_pylist()
        for one in line:
            one.set_axis_off()
        for one, filename in zip(
            [*line[:EXTREMES], *line[-EXTREMES:]], [*of_class[:EXTREMES], *of_class[-EXTREMES:]], strict=True
        ):
            one.imshow(np.asarray(Image.open(images / filename)), cmap="gray", vmin=0, vmax=255)
        line[EXTREMES].text(
            0.5, 0.5, name, transform=line[EXTREMES].transAxes, ha="center", va="center", color="#808080"
        )
    for place, title in ((EXTREMES // 2, "least typical"), (EXTREMES + 1 + EXTREMES // 2, "most typical")):
        axes[0][place].set_title(title, color="#808080", fontsize=10)
    figure.savefig(file, transparent=True)


def print_table(title: str, found: Mapping[str, Mapping[str, list[dict[str, float]]]], kinds: list[str]) -> None:
    """Print average precisions, medians over seeds, the widest interval, and the mean over what is no duplicate."""
    seeds = max(len(values) for of_score in found.values() for values in of_score.values())
    print(f"\n### {title}, seeds: {seeds}\n\n| average precision | {' | '.join(kinds)} | mean over faults |")
    print("|---" * (len(kinds) + 2) + "|")
    for name, of_kind in found.items():
        cells, middles = [], {}
        for kind in kinds:
            values = of_kind[kind]
            middles[kind] = statistics.median(value["ap"] for value in values)
            low, high = min(value["low"] for value in values), max(value["high"] for value in values)
            cells.append(f"{middles[kind]:.2f} ({low:.2f}-{high:.2f})")
        faults = [middles[kind] for kind in FINDS_FAULTS if kind in middles]
        mean = f"{statistics.mean(faults):.2f}" if faults else "-"
        print(f"| {name} | {' | '.join(cells)} | {mean} |")


if __name__ == "__main__":
    main()
