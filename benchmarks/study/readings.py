"""Readings of trained encoders, as benchmarks/trainings.py keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pydoc import locate

import torch
import trainings
import yaml
from torch import Tensor

from jepa_train.cli import CONFIGS
from jepa_train.data.base import ImageDataModule
from jepa_train.module import JEPA

LAST = "last"
RECENT_STEPS = 50
NUM_REFERENCE = trainings.NUM_REFERENCE_OF_STUDY


@dataclass(frozen=True)
class Samples:
    """Embeddings of images and the Gram matrices of their Jacobians.

    Attributes:
        z: (N, K).
        gram: (N, K, K), float64.
    """

    z: Tensor
    gram: Tensor


@dataclass(frozen=True)
class Reading:
    """One encoder at one step.

    Attributes:
        reference: (M, K) embeddings of training images, 8,000 at most.
        probe: images that no step has seen.
        truth: (N,) true log densities of the probe, where they are known.
        sets: images of other distributions, by name.
    """

    reference: Tensor
    probe: Samples
    truth: Tensor | None
    sets: Mapping[str, Samples]


@dataclass(frozen=True)
class Encoder:
    """One encoder that a study reads, of every seed.

    Attributes:
        label: name in tables and figures.
        run: name of a training in benchmarks/trainings.py.
        checkpoint: ``last`` or ``step_N``.
        output: ``z`` or ``tokens``, the mean token.
    """

    label: str
    run: str
    checkpoint: str = LAST
    output: str = "z"


def folder_of(run: str, seed: int, runs: Path) -> Path:
    """Return the folder of a run."""
    return runs / trainings.folder_name(run, seed)


def read(encoder: Encoder, seed: int, runs: Path) -> Reading:
    """Read what was kept of an encoder."""
    path = folder_of(encoder.run, seed, runs) / f"{encoder.checkpoint}.pt"
    kept = torch.load(path, weights_only=True)

    def samples(values: Mapping[str, Tensor]) -> Samples:
        return Samples(values[encoder.output], values[f"{encoder.output} gram"])

    return Reading(
        reference=kept["reference"][encoder.output][:NUM_REFERENCE],
        probe=samples(kept["probe"]),
        truth=next(iter(kept["truths"].values()), None),
        sets={name: samples(values) for name, values in kept["sets"].items()},
    )


def module_of(encoder: Encoder, seed: int, runs: Path) -> JEPA:
    """Load the weights of an encoder, in eval mode."""
    path = folder_of(encoder.run, seed, runs) / f"{encoder.checkpoint}.ckpt"
    return JEPA.load_from_checkpoint(path, map_location="cpu").eval()


def data_of(encoder: Encoder, seed: int) -> ImageDataModule:
    """Make the images of a run anew."""
    training = trainings.TRAININGS[encoder.run]
    config = yaml.safe_load((CONFIGS / f"{training.config}.yaml").read_text())["data"]
    options = dict(word.removeprefix("--data.").split("=") for word in training.options.split() if "--data." in word)
    changes = {name: yaml.safe_load(value) for name, value in options.items()}
    made = locate(config["class_path"])(**config["init_args"] | changes | {"seed": seed})
    assert isinstance(made, ImageDataModule)
    return made


def step_of(encoder: Encoder, seed: int, runs: Path) -> int:
    """Return the optimizer step of a checkpoint."""
    if encoder.checkpoint == LAST:
        return len(_all_losses(encoder, seed, runs)["loss"])
    return int(encoder.checkpoint.removeprefix("step_"))


def losses(encoder: Encoder, seed: int, runs: Path) -> dict[str, float]:
    """Return the mean of each loss over the 50 steps before a checkpoint; empty before the first step."""
    end = step_of(encoder, seed, runs)
    kept = _all_losses(encoder, seed, runs)
    recent = {name: values[max(0, end - RECENT_STEPS) : end] for name, values in kept.items()}
    return {name: sum(values) / len(values) for name, values in recent.items() if values}


def _all_losses(encoder: Encoder, seed: int, runs: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads((folder_of(encoder.run, seed, runs) / "losses.json").read_text())
    return found


def finished(run: str, seeds: int, runs: Path) -> Iterator[int]:
    """Yield the seeds of a run that are there."""
    yield from (seed for seed in range(seeds) if (folder_of(run, seed, runs) / "seconds.json").is_file())
