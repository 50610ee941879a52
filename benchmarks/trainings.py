"""Trains encoders on images of known density and on real ones, and keeps what their density is studied with.

    python benchmarks/trainings.py FOLDER [--only WORD ...] [--seeds 3] [--processes 1]

Each run is ``python train.py fit -c configs/CONFIG.yaml OPTIONS`` on one thread, in a process of its own; one trains
the same encoder with labels instead. Beside each checkpoint a file of readings keeps embeddings z and mean tokens of
the training images, and embeddings, mean tokens and the Gram matrices of both of the probe and of further sets, with
the true log densities where they are known. A second call goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from jepa_monitor.density import gram_and_embedding
from jepa_train.cli import JEPACLI
from jepa_train.cli import main as command_line
from jepa_train.commands.parsing import Parser
from jepa_train.data.base import ImageDataModule
from jepa_train.module import JEPA

ROOT = Path(__file__).resolve().parents[1]
NUM_REFERENCE = 20_000
NUM_PROBE = 1_024
NUM_SET = 400  # images of a further set
# what a study reads, which has many runs and few questions to each
NUM_REFERENCE_OF_STUDY = 8_000
NUM_PROBE_OF_STUDY = 512


@dataclass(frozen=True)
class Training:
    """One training, by a config and options of ``fit``.

    Attributes:
        config: name of a file in configs/.
        options: further options.
        steps: optimizer steps whose checkpoints are kept, beside the last one.
        rank: number of factors of the images, where it is known.
        overlays: names of files in configs/objective/.
        supervised: train the encoder with labels, see ``Supervised``.
        brief: read fewer images, and mean tokens of the first and the last weights alone.
        unread: keep checkpoints alone, where Gram matrices would be too large to keep.
        measured: record tags and accuracies on the way, see keep/measured.yaml.
    """

    config: str
    options: str
    steps: tuple[int, ...] = ()
    rank: int | None = None
    overlays: tuple[str, ...] = ()
    supervised: bool = False
    brief: bool = False
    unread: bool = False
    measured: bool = False


def _mixture(r: int, size: int, options: str = "") -> Training:
    """Ten epochs, or twenty for eight factors or more; what is not said is as in configs/mixture.yaml."""
    epochs = 10 if r < 8 else 20
    chosen = f"--trainer.max_epochs={epochs} --data.latent_size={r} --model.embedding_size={size} {options}"
    return Training("mixture", chosen, steps=(100, 1000), rank=r)


def _study(options: str = "", *, size: int = 8, **changes: Any) -> Training:
    """Four epochs on images with four factors; what is not said is as in configs/mixture.yaml."""
    chosen = f"--trainer.max_epochs=4 --data.latent_size=4 --model.embedding_size={size} {options}"
    return Training("mixture", chosen, **{"steps": (0, 50, 150, 400), "rank": 4, "brief": True} | changes)


KNOWN_AND_REAL: Mapping[str, Training] = {
    "mixture r=2 K=2": _mixture(2, 2),
    "mixture r=4 K=8": _mixture(4, 8),
    "shapes": Training("shapes", "", steps=(100, 1000), rank=4),
    "mixture r=8 K=16": _mixture(8, 16),
    "mixture r=2 K=2 separation 3": _mixture(2, 2, "--data.separation=3"),
    "mixture r=16 K=32": _mixture(16, 32),
    "fashion_mnist": Training("fashion_mnist_tokens", "", steps=(100, 1000)),
    "mixture r=4 K=4": _mixture(4, 4),
    "mixture r=8 K=8": _mixture(8, 8),
    "mixture r=2 K=4": _mixture(2, 4),
    "mixture r=16 K=16": _mixture(16, 16),
    "mixture r=8 K=192": Training(
        "mixture",
        "--trainer.max_epochs=-1 --trainer.max_steps=10000 --data.latent_size=8 --model.embedding_size=192",
        steps=(100, 1000),
        rank=8,
        unread=True,
    ),
    "fashion_mnist K=192": Training(
        "fashion_mnist_tokens", "--model.embedding_size=192", steps=(100, 1000), unread=True
    ),
}
STUDIED: Mapping[str, Training] = {
    "study K=8": _study(),
    "study none": _study(overlays=("none",)),
    "study weight=1": _study("--model.anticollapse_weight=1"),
    "study K=4": _study(size=4),
    "study K=32": _study(size=32, steps=()),
    "study vicreg": _study(overlays=("vicreg",), steps=()),
    "study supervised": _study(supervised=True, steps=()),
    "study weight=0.1": _study("--model.anticollapse_weight=0.1"),
    "study barlow": _study(overlays=("barlow",), steps=()),
    "study EMA alone": _study(overlays=("i_jepa",), steps=()),
    "study K=128": _study(size=128, steps=()),
    "study weight=0.03": _study("--model.anticollapse_weight=0.03"),
    "study K=16": _study(size=16, steps=()),
    "study weight decay": _study(overlays=("weight_decay",), steps=()),
    "study spectral norm": _study(overlays=("spectral_norm",), steps=()),
    "study K=64": _study(size=64, steps=()),
    "study K=768": _study(size=768, steps=(), unread=True),
}
MEASURED_STEPS = tuple(range(40, 400, 40))  # and the last, see keep/measured.yaml


def _measured(options: str = "", *overlays: str) -> Training:
    """A short run on Fashion-MNIST with measurements on its way and a checkpoint at each."""
    return Training(
        "fashion_mnist_tokens", options, steps=MEASURED_STEPS, overlays=overlays, unread=True, measured=True
    )


OBJECTIVES: Mapping[str, Training] = {
    f"objective {name}": _measured("", name)
    for name in (
        ("sigreg", "vicreg", "none", "i_jepa", "barlow", "whitening_mse", "uniformity", "spectral_norm", "weight_decay")
    )
}
# features may get worse here
HIGH_RATE = "--model.learning_rate=0.02"
RISING_RATE = "--model.learning_rate=0.04 --model.warmup_fraction=1"  # grows to the last step: the features fall late
SPOILED: Mapping[str, Training] = {
    "spoiled high rate": _measured(HIGH_RATE),
    "spoiled no average": _measured("", "none", "no_stop_gradient"),
    "spoiled few images": _measured("--data.num_train=500"),
    "spoiled weak term": _measured("--model.anticollapse_weight=0.01"),
    "spoiled no views": _measured("--model.shift=0 --model.noise=0"),
    **{
        f"spoiled high rate {name}": _measured(HIGH_RATE, name) for name in ("vicreg", "barlow", "i_jepa", "uniformity")
    },
    "spoiled rising rate": _measured(RISING_RATE),
    **{f"spoiled rising rate {name}": _measured(RISING_RATE, name) for name in ("vicreg", "barlow")},
}
TRAININGS = {**KNOWN_AND_REAL, **STUDIED, **OBJECTIVES, **SPOILED}


class KeepSteps(pl.Callback):
    """Save ``step_N.ckpt`` after each of the given optimizer steps, ``last.ckpt``, and all losses in ``losses.json``.

    Args:
        folder: folder of the files.
        steps: optimizer steps; 0 is before the first.
    """

    def __init__(self, folder: str, steps: list[int]) -> None:
        self.folder, self.steps = Path(folder), steps
        self.losses: dict[str, list[float]] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the first weights, if they are wanted."""
        self._save(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Keep the losses, and save after a step that is wanted."""
        for name, value in trainer.callback_metrics.items():
            if name.startswith("train/loss"):
                self.losses.setdefault(name.removeprefix("train/"), []).append(float(value))
        self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the last weights and the losses."""
        trainer.save_checkpoint(self.folder / "last.ckpt", weights_only=True)
        (self.folder / "losses.json").write_text(json.dumps(self.losses))

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.folder / f"step_{trainer.global_step}.ckpt", weights_only=True)


class Supervised(JEPA):
    """The same encoder and projector, trained to tell the two components of a mixture apart; nothing is predicted."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.head = nn.Linear(self.hparams["embedding_size"], 2)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Compute the cross-entropy of the labels."""
        _, view, *_ = self._draws().views(self.views, [batch["image"]])
        loss = nn.functional.cross_entropy(self.head(self.online(view)), batch["label"])
        self.log("train/loss", loss)
        return loss


def arguments_of(training: Training, seed: int, folder: Path) -> list[str]:
    """Return the arguments of ``fit``."""
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.logger=false"]
    quiet += ["--trainer.enable_checkpointing=false"]
    unmeasured = ["--monitor=null", "--trainer.limit_val_batches=0", "--trainer.callbacks=[]"]
    seeds = [f"--seed_everything={seed}", f"--model.seed={seed}", f"--data.seed={seed}"]
    keep = ["--trainer.callbacks+=trainings.KeepSteps", f"--trainer.callbacks.folder={folder}"]
    keep += [f"--trainer.callbacks.steps={json.dumps(training.steps)}"]
    files = [training.config, *(f"objective/{overlay}" for overlay in training.overlays)]
    paths = [ROOT / "configs" / f"{file}.yaml" for file in files]
    paths += [Path(__file__).parent / "keep" / "measured.yaml"] if training.measured else []
    config = [word for path in paths for word in ("-c", str(path))]
    options = [*training.options.split(), *([] if training.measured else unmeasured)]
    return ["fit", *config, *options, *seeds, *quiet, *keep]


def train(training: Training, seed: int, folder: Path) -> None:
    """Write checkpoints, their readings and ``seconds.json``."""
    started = time.process_time()
    arguments = arguments_of(training, seed, folder)
    cli = with_labels(arguments) if training.supervised else command_line(arguments)
    assert cli is not None
    seconds = time.process_time() - started
    for checkpoint in [] if training.unread else sorted(folder.glob("*.ckpt")):
        module = type(cli.model).load_from_checkpoint(checkpoint, map_location="cpu").eval()
        readings = read(module, cli.datamodule, checkpoint.stem, brief=training.brief)
        torch.save(readings | {"rank": training.rank}, folder / f"{checkpoint.stem}.pt")
    (folder / "seconds.json").write_text(json.dumps(seconds))


def with_labels(arguments: list[str]) -> JEPACLI:
    """Run ``fit`` for the module that is trained with labels."""
    return JEPACLI(
        Supervised,
        pl.LightningDataModule,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        parser_class=Parser,
        save_config_callback=None,
        args=arguments,
    )


@torch.no_grad()
def read(module: JEPA, data: ImageDataModule, checkpoint: str, *, brief: bool) -> dict[str, Any]:
    """Return what is studied of ``last`` or ``step_N``: see the module's docstring."""
    reference = first_images(data.reference_dataset(), NUM_REFERENCE_OF_STUDY if brief else NUM_REFERENCE)
    probe = data.probe_dataset()
    inputs = first_images(probe, NUM_PROBE_OF_STUDY if brief else NUM_PROBE)
    with_tokens = not brief or checkpoint in ("step_0", "last")
    found: dict[str, Any] = {
        "reference": _embed(module, reference),
        "probe": _measure(module, inputs, with_tokens=with_tokens),
    }
    found["truths"] = {
        name: truth(inputs) if callable(truth) else truth[: len(inputs)]
        for name, truth in getattr(probe, "log_densities", {}).items()
    }
    others = further_sets(inputs, data) if checkpoint == "last" and not found["truths"] else {}
    found["sets"] = {name: _measure(module, images) for name, images in others.items()}
    return found


def further_sets(inputs: Tensor, data: ImageDataModule) -> dict[str, Tensor]:
    """Return five sets that differ from the probe, each ``NUM_SET`` images."""
    own = {name: first_images(dataset, NUM_SET) for name, dataset in data.ood_datasets().items()}
    # those of the probe that follow what is measured, so that no set is a copy of it
    rest = inputs[-NUM_SET:]
    blurred = torch.nn.functional.avg_pool2d(rest, 5, stride=1, padding=2, count_include_pad=False)
    return own | {"upside down": rest.flip(2), "inverted": inputs.min() + inputs.max() - rest, "blurred": blurred}


def first_images(dataset: Any, count: int) -> Tensor:
    """Stack the first images of a dataset, (N, C, H, W)."""
    return torch.stack([dataset[index]["image"] for index in range(min(count, len(dataset)))])


def _embed(module: JEPA, images: Tensor) -> dict[str, Tensor]:
    parts = [(module(part), module.features(part)) for part in images.split(500)]
    z, tokens = (torch.cat(values) for values in zip(*parts, strict=True))
    return {"z": z, "tokens": tokens}


def _measure(module: JEPA, images: Tensor, *, with_tokens: bool = True) -> dict[str, Tensor]:
    encoders = {"z": module.target, **({"tokens": module.features} if with_tokens else {})}
    found = {}
    for name, encode in encoders.items():
        found[f"{name} gram"], found[name] = gram_and_embedding(encode, images)
    return found


def folder_name(name: str, seed: int) -> str:
    """Return the name of a run's folder."""
    return f"{name.replace(' ', '_')}_{seed}"


def run(name: str, seed: int, folder: Path) -> None:
    """Train and read in a process of its own, on one thread."""
    own = folder / folder_name(name, seed)
    if (own / "seconds.json").is_file():
        return
    own.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(ROOT), str(ROOT / "callbacks"), str(Path(__file__).parent)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, __file__, str(own), "--child", name, str(seed)]
    subprocess.run(command, check=True, env=environment, cwd=own, stdout=subprocess.DEVNULL)
    seconds = json.loads((own / "seconds.json").read_text())
    print(f"{name}, seed {seed}: {seconds / 60.0:.1f} CPU minutes of training", flush=True)


def main() -> None:
    """Train seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[""], help="trainings whose name contains one of these")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1, help="runs at the same time, each on one thread")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.child:
        return train(TRAININGS[arguments.child[0]], int(arguments.child[1]), folder)
    names = [name for name in TRAININGS if any(word in name for word in arguments.only)]
    with ThreadPoolExecutor(arguments.processes) as pool:
        jobs = [pool.submit(run, name, seed, folder) for seed in range(arguments.seeds) for name in names]
        for job in jobs:
            job.result()
    return None


if __name__ == "__main__":
    main()
