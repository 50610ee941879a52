"""Curves of runs: label-free tags and accuracies at each measurement, as a run recorded them and as they are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import trainings
from numpy.typing import NDArray
from study.readings import finished, folder_of
from study.rows import plain
from torch import Tensor

from jepa_monitor.history import current_name
from jepa_monitor.monitor import DEFAULT_SAMPLES
from keep.recording import MEASUREMENTS, HalvedFashionMNIST, recoveries

Vector = NDArray[np.float64]
JUDGES = {"linear probe": "judge/linear_probe", "kNN": "judge/knn"}
ALARM = "monitor/alarm_collapse"
# what says nothing of the encoder: constants, schedules, and the cost of measuring
NO_SIGNALS = ("judge/", "monitor/", "jacobian/nonfinite_fraction", "jacobian/imprecise_fraction", "train/")
LOSS = "train/loss"
RECOVERY = "features/recovery"
KEEP = "monitor/keep"
NUM_PROBE = 1_000
CONTRAST = 0.25  # of configs/fashion_mnist_tokens.yaml


@dataclass(frozen=True)
class Curve:
    """The measurements of one run.

    Attributes:
        name: name of the training.
        seed: its seed.
        objective: what it minimises; a run that goes wrong has that of the run it differs from.
        steps: (S,) optimizer steps.
        accuracies: (S,) accuracy by judge, 0 to 1.
        tags: (S,) values by label-free tag; NaN where a value has no meaning.
        alarm: (S,) 1 while ``monitor/alarm_collapse`` is on.
    """

    name: str
    seed: int
    objective: str
    steps: Vector
    accuracies: Mapping[str, Vector]
    tags: Mapping[str, Vector]
    alarm: Vector

    @property
    def label(self) -> str:
        """Name and seed."""
        return f"{self.name}, seed {self.seed}"


def objective_of(name: str) -> str:
    """Return the objective of a training of benchmarks/trainings.py."""
    return next(iter(trainings.TRAININGS[name].overlays), "sigreg")


def recorded(runs: Path, seeds: int) -> Iterator[Curve]:
    """Read the finished runs that were measured on their way."""
    for name in (name for name, training in trainings.TRAININGS.items() if training.measured):
        for seed in finished(name, seeds, runs):
            folder = folder_of(name, seed, runs)
            rows = json.loads((folder / MEASUREMENTS).read_text())
            losses = json.loads((folder / "losses.json").read_text())
            steps = [int(row["step"]) for row in rows]
            if RECOVERY not in rows[-1]:  # runs from before it was measured on the way
                rows = _with(RECOVERY, recoveries(folder, steps, probe()), rows)
            # of as many images as the monitor takes by default, whatever it took on the way
            rows = _with(KEEP, recoveries(folder, steps, probe()[:DEFAULT_SAMPLES]), rows)
            yield curve_of(name, seed, rows, losses)


def _with(
    tag: str, values: Sequence[float], rows: Sequence[Mapping[str, float | None]]
) -> list[dict[str, float | None]]:
    return [{**row, tag: value} for row, value in zip(rows, values, strict=True)]


@cache
def probe() -> Tensor:
    """Images (N, 1, 28, 28) that no judge sees, as configs/fashion_mnist_tokens.yaml prepares them."""
    return HalvedFashionMNIST(contrast=CONTRAST).make_probe().images[:NUM_PROBE]


def curve_of(
    name: str, seed: int, rows: Sequence[Mapping[str, float | None]], losses: Mapping[str, Sequence[float]]
) -> Curve:
    """Make a curve of recorded rows; losses are means over the steps since the measurement before.

    Args:
        name, seed: the training.
        rows: tag to value for each measurement, ``None`` for NaN.
        losses: each loss at every step.
    """
    rows = [{current_name(column): value for column, value in row.items()} for row in rows]  # of older runs
    columns = dict.fromkeys(column for row in rows for column in row)
    values = {column: np.array([_number(row.get(column)) for row in rows]) for column in columns}
    steps = values["step"]
    silent = {"step", *(tag for tag in values if tag.startswith(NO_SIGNALS))} - {KEEP}
    tags = {tag: value for tag, value in values.items() if tag not in silent}
    tags |= {f"train/{loss}": _means_between(steps, at_steps) for loss, at_steps in losses.items()}
    accuracies = {judge: values[column] for judge, column in JUDGES.items()}
    return Curve(name, seed, objective_of(name), steps, accuracies, tags, values[ALARM])


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _means_between(steps: Vector, at_steps: Sequence[float]) -> Vector:
    ends = [0, *steps.astype(int)]
    return np.array([np.mean(at_steps[before:end]) for before, end in pairwise(ends)])


def save(curve: Curve, folder: Path) -> None:
    """Keep a curve as a file, one measurement a line."""
    columns = {"step": curve.steps, **{JUDGES[judge]: found for judge, found in curve.accuracies.items()}}
    columns |= {ALARM: curve.alarm, **curve.tags}
    table = zip(*columns.values(), strict=True)
    lines = [json.dumps([plain(float(value)) for value in row]) for row in table]
    facts = {"name": curve.name, "seed": curve.seed, "objective": curve.objective}
    head = json.dumps({"facts": facts, "columns": list(columns)}).removesuffix("}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{trainings.folder_name(curve.name, curve.seed)}.json"
    path.write_text(f'{head}, "rows": [\n' + ",\n".join(lines) + "\n]}\n")


def kept(folder: Path) -> list[Curve]:
    """Read all curves that :func:`save` kept."""
    return [_load(json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]


def _load(found: Mapping[str, Any]) -> Curve:
    table = np.array([[_number(value) for value in row] for row in found["rows"]], dtype=np.float64).T
    columns = dict(zip(found["columns"], table, strict=True))
    steps, alarm = columns.pop("step"), columns.pop(ALARM)
    accuracies = {judge: columns.pop(column) for judge, column in JUDGES.items()}
    return Curve(**found["facts"], steps=steps, accuracies=accuracies, tags=columns, alarm=alarm)
