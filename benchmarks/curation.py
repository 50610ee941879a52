"""Planted faults in folders of Fashion-MNIST, and which scores of a ranking find them.

    python benchmarks/trainings.py RUNS --only fashion_mnist_ --seeds 3
    python benchmarks/curation.py RUNS FOLDER [--only KIND ...] [--pooling auto mean] [--seeds 0 1 2] [--json FILE]
    python benchmarks/curation.py RUNS FOLDER --clean-reference 5000
    python benchmarks/curation.py RUNS FOLDER --figure FILE

A folder of clean test images, one subfolder a class, gets 2 % of one kind of fault; ``jepa_train.ranking.rank`` ranks
it with each checkpoint and with random weights (``random``, the control), and every column of the table is judged by
its average precision, beside what cleanlab and PyOD (``pip install cleanlab pyod``) make of the same embeddings. No
encoder saw a fault in training. Images are compared with those of their own folder, or, with ``--clean-reference N``,
with N training images, which are clean and in no folder; so are cleanlab and PyOD. Intervals are bootstrapped over
images. Rankings are kept in FOLDER and not made again. ``--figure FILE`` draws the least and most typical clean images
of four classes instead, by the first checkpoint.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from planted.extremes import draw
from planted.faults import CLEAN, FINDS_FAULTS, KINDS, Truth, make_folders, make_reference
from planted.precision import doubts, interval, peers

from jepa_train.data import FashionMNISTDataModule
from jepa_train.ranking.run import rank
from jepa_train.ranking.workspace import EMBEDDINGS, REFERENCES, Workspace, vectors

Judged = dict[str, dict[str, float]]  # values of each score
Rows = dict[str, dict[str, dict[str, list[dict[str, float]]]]]  # title -> score -> kind -> values of each seed


@dataclass(frozen=True)
class Comparison:
    """One encoder, and what it compares images with.

    Attributes:
        encoder: ``trained`` or ``random``.
        seed: seed of the training.
        source: name for ``rank``.
        pooling: pooling for ``rank``.
        clean: number of clean images in the reference; 0: images are compared with those of their own folder.
    """

    encoder: str
    seed: int
    source: str
    pooling: str
    clean: int

    @property
    def title(self) -> str:
        """Name in tables: seeds are one line."""
        return f"{self.encoder}, {self.pooling}" + (f", {self.clean} clean references" if self.clean else "")

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of ``rank``."""
        runner = {"enable_progress_bar": False}
        return {"encoder": self.source, "pooling": self.pooling, "page": False, "trainer": runner}

    def output(self, folder: Path) -> Path:
        """Folder of its rankings."""
        return folder / (f"{self.encoder} {self.seed} {self.pooling}" + (f" {self.clean} clean" if self.clean else ""))


def comparisons(runs: Path, poolings: Sequence[str], seeds: Sequence[int], clean: int) -> Iterator[Comparison]:
    """Yield the checkpoints of these seeds, then that of seed 0 with random weights."""
    checkpoints = sorted(runs.glob("fashion_mnist_[0-9]/last.ckpt"))
    found = [(int(path.parent.name[-1]), str(path)) for path in checkpoints if int(path.parent.name[-1]) in seeds]
    random = [("random", seed, f"random:{path}") for seed, path in found if seed == 0]  # which know no training
    for encoder in [*(("trained", *one) for one in found), *random]:
        for pooling in poolings:
            yield Comparison(*encoder, pooling, clean)


def fitted(comparison: Comparison, folder: Path) -> Path | None:
    """Folder of the reference that all kinds are compared with; ``None`` where each is compared with itself."""
    if not comparison.clean:
        return None
    output, images = comparison.output(folder) / "reference", clean_images(folder, comparison.clean)
    # as a reference by name it is taken whole; what is ranked would lose the tenth that lies apart
    rank(images, reference=images, output=output, stage="reference", **comparison.settings)
    return output


def ranked(comparison: Comparison, folder: Path, kind: str, reference: Path | None) -> tuple[pa.Table, Truth]:
    """Rank the images of one kind: the table, and which of its rows are faults."""
    images = folder / "images" / kind
    table = rank(images, output=comparison.output(folder) / kind, reference=reference, **comparison.settings)
    assert table is not None
    faults = set(json.loads(images.with_suffix(".json").read_text()))
    return table, np.array([name in faults for name in table["filename"].to_pylist()])


def judged(comparison: Comparison, folder: Path, kind: str, reference: Path | None) -> Judged:
    """Rank the images of one kind, and judge each column, by name."""
    table, truth = ranked(comparison, folder, kind, reference)
    clean = None if reference is None else embeddings_of(reference, REFERENCES)
    found = doubts(table) | peers(embeddings_of(comparison.output(folder) / kind, EMBEDDINGS), clean)
    return {name: interval(truth, doubt) for name, doubt in found.items()}


def clean_images(folder: Path, count: int) -> Path:
    """Folder of the images of a clean reference."""
    return folder / "images" / f"reference {count}"


def embeddings_of(output: Path, kind: str) -> NDArray[np.float32]:
    """Embeddings (N, K) that a ranking kept, in the order of its table."""
    workspace = Workspace(output)
    parts = [workspace.read(kind, number) for number in sorted(workspace.numbers(kind))]
    return np.concatenate([vectors(part["embedding"]) for part in parts])


def main() -> None:
    """Rank, judge, and print a table for each encoder and pooling."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--pooling", nargs="*", default=["auto", "mean"], help="auto is the projected embedding z")
    parser.add_argument("--seeds", type=int, nargs="*", default=range(10), help="those of RUNS; random weights with 0")
    parser.add_argument("--clean", type=int, default=3_000, help="images without fault")
    parser.add_argument("--clean-reference", type=int, default=0, metavar="N", help="compare with N training images")
    parser.add_argument("--json", type=Path, help="write all values here")
    parser.add_argument("--figure", type=Path, help="draw what is least and most typical, and nothing else")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = FashionMNISTDataModule()
    if given.figure:
        make_folders(given.folder / "images", data, [CLEAN], given.clean)
        comparison = next(comparisons(given.runs, ["mean"], given.seeds, clean=0))
        images, output = given.folder / "images" / CLEAN, given.folder / CLEAN
        table = rank(images, output=output, **comparison.settings)
        assert table is not None
        draw(table, images, given.figure)
        return
    make_folders(given.folder / "images", data, given.only, given.clean)
    if given.clean_reference:
        make_reference(clean_images(given.folder, given.clean_reference), data, given.clean_reference)
    rows: Rows = {}
    for comparison in comparisons(given.runs, given.pooling, given.seeds, given.clean_reference):
        reference = fitted(comparison, given.folder)
        for kind in given.only:
            for name, values in judged(comparison, given.folder, kind, reference).items():
                rows.setdefault(comparison.title, {}).setdefault(name, {}).setdefault(kind, []).append(values)
    for title, found in rows.items():
        print_table(title, found, given.only)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


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
