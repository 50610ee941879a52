"""Features that each objective learns on Fashion-MNIST for the same CPU time, over several seeds.

    python benchmarks/objectives.py [--minutes 5] [--seeds 3] [--only NAME ...] [--processes 1] [--runs FOLDER]
        [--json FILE]

Each run is ``python train.py fit -c configs/fashion_mnist.yaml -c configs/objective/NAME.yaml ...``, or the same over
``configs/fashion_mnist_tokens.yaml``, on one thread, in a process of its own, then ``validate`` on its checkpoint with
the same callbacks for all. Learning rate, weight decay and EMA are scheduled over the steps of a run, so these are
settled before it: as many as fit into its CPU minutes by the time of two short runs of the same objective. Seeds differ
in weights, masks and views; the order of the images is the same in all runs. The table gives the median over seeds and,
in brackets, the smallest and largest value; its CPU minutes are those of training alone, as they were. With ``--runs``
checkpoints and values are kept, and a second call goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[1]
PILOT_STEPS = (50, 250)
VARIANTS = {
    # whole views are drawn to their centre
    "SIGReg (LeJEPA)": ("fashion_mnist",),
    "VICReg": ("fashion_mnist", "objective/vicreg"),
    "Barlow Twins": ("fashion_mnist", "objective/barlow"),
    "W-MSE": ("fashion_mnist", "objective/whitening_mse"),
    "uniformity": ("fashion_mnist", "objective/uniformity"),
    "no anti-collapse": ("fashion_mnist", "objective/none"),
    # tokens and the embedding of what is hidden are predicted
    "tokens, SIGReg": ("fashion_mnist_tokens",),
    "tokens, VICReg": ("fashion_mnist_tokens", "objective/vicreg"),
    "tokens, Barlow Twins": ("fashion_mnist_tokens", "objective/barlow"),
    "tokens, W-MSE": ("fashion_mnist_tokens", "objective/whitening_mse"),
    "tokens, uniformity": ("fashion_mnist_tokens", "objective/uniformity"),
    "plain I-JEPA": ("fashion_mnist_tokens", "objective/i_jepa"),
    "tokens, no anti-collapse": ("fashion_mnist_tokens", "objective/none"),
    "tokens, no anti-collapse, EMA off": ("fashion_mnist_tokens", "objective/none", "objective/ema_off"),
    "tokens, no anti-collapse, no EMA, no stop-gradient": (
        "fashion_mnist_tokens",
        "objective/none",
        "objective/no_stop_gradient",
    ),
    "tokens, weight decay": ("fashion_mnist_tokens", "objective/weight_decay"),
    "tokens, spectral norm": ("fashion_mnist_tokens", "objective/spectral_norm"),
}
TAGS = (
    "knn/accuracy",
    "knn/accuracy_unwhitened",
    "linear_probe/accuracy",
    "density/ood_auroc/mnist",
    "density/ood_auroc_jepa_score/mnist",
    "density/ood_auroc_embedding/mnist",
    "gaussianity/sliced_ep_ratio",
    "gaussianity/effective_rank_ratio",
    "features/std_l2_normalised_ratio",
    "monitor/alarm_collapse",
)
TO_BEAT = ("knn/accuracy_pixels", "linear_probe/accuracy_pixels")  # the same for all objectives


def slug(name: str) -> str:
    """Name of its folders."""
    return "-".join(Path(config).name for config in VARIANTS[name])


def arguments_of(name: str, seed: int, folder: Path) -> list[str]:
    """Arguments of both subcommands."""
    words = [word for config in VARIANTS[name] for word in ("-c", str(ROOT / "configs" / f"{config}.yaml"))]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    return [*words, *quiet, f"--seed_everything={seed}", f"--model.seed={seed}", f"--trainer.default_root_dir={folder}"]


def train(name: str, seed: int, steps: int, folder: Path) -> None:
    """Write ``last.ckpt`` and ``seconds.json``."""
    from jepa_train.cli import main as command_line

    started = time.process_time()
    checkpoint = "lightning.pytorch.callbacks.ModelCheckpoint"
    own = [f"--trainer.max_steps={steps}", "--trainer.max_epochs=-1", "--trainer.limit_val_batches=0"]
    own += ["--monitor=null", "--trainer.logger=false"]
    own += [f"--trainer.callbacks={checkpoint}", f"--trainer.callbacks.dirpath={folder}"]
    own += ["--trainer.callbacks.save_last=true", f"--trainer.callbacks.every_n_train_steps={steps}"]
    command_line(["fit", *arguments_of(name, seed, folder), *own])
    (folder / "seconds.json").write_text(json.dumps(time.process_time() - started))


def measure(name: str, seed: int, folder: Path) -> None:
    """Write ``values.json``: what the callbacks of its config say of the checkpoint."""
    from jepa_train.cli import main as command_line

    own = [f"--ckpt_path={folder / 'last.ckpt'}", "--trainer.logger=false", "--trainer.limit_val_batches=1.0"]
    metrics = command_line(["validate", *arguments_of(name, seed, folder), *own]).trainer.callback_metrics
    (folder / "values.json").write_text(json.dumps({tag: float(value) for tag, value in metrics.items()}))


def phase(name: str, seed: int, steps: int, folder: Path, which: str) -> None:
    """Train or measure in a process of its own, on one thread."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'callbacks'}"}
    command = [sys.executable, __file__, "--phase", which, "--only", name, "--seed", str(seed)]
    command += ["--steps", str(steps), "--runs", str(folder)]
    subprocess.run(command, check=True, env=environment, cwd=folder, stdout=subprocess.DEVNULL)


def steps_within(minutes: float, name: str, folder: Path) -> int:
    """Steps that fit into so many CPU minutes, from the seconds of two short runs; kept in ``pilot_*``."""
    seconds = []
    for steps in PILOT_STEPS:
        of_pilot = folder / f"pilot_{slug(name)}_{steps}"
        if not (of_pilot / "seconds.json").is_file():
            phase(name, 0, steps, of_pilot, "train")
        seconds.append(json.loads((of_pilot / "seconds.json").read_text()))
    of_step = (seconds[1] - seconds[0]) / (PILOT_STEPS[1] - PILOT_STEPS[0])
    return max(1, round(PILOT_STEPS[1] + (60.0 * minutes - seconds[1]) / of_step))


def run(name: str, seed: int, steps: int, folder: Path) -> dict[str, float]:
    """Values of one run, from its files where they exist."""
    for which, result in (("train", "seconds.json"), ("measure", "values.json")):
        if not (folder / result).is_file():
            phase(name, seed, steps, folder, which)
    values: dict[str, float] = json.loads((folder / "values.json").read_text())
    minutes = json.loads((folder / "seconds.json").read_text()) / 60.0
    shown = ", ".join(f"{tag} {values.get(tag, float('nan')):.3f}" for tag in TAGS)
    print(f"{name}, seed {seed}, {steps} steps in {minutes:.2f} CPU minutes: {shown}", file=sys.stderr, flush=True)
    return values | {"CPU minutes": minutes}


def in_processes(count: int, function: Callable[..., T], jobs: Iterable[tuple[object, ...]]) -> list[T]:
    """Results in the order of the jobs; each thread waits for a process."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda job: function(*job), jobs))


def cell(values: list[float]) -> str:
    """Median and range."""
    low, *_, high = sorted(values) if len(values) > 1 else [values[0]] * 2
    return f"{statistics.median(values):.3f} ({low:.3f}-{high:.3f})"


def main() -> None:
    """Train and measure seed by seed, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="CPU minutes of each training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), help="names of objectives; default: all")
    parser.add_argument("--processes", type=int, default=1, help="runs at the same time, each on one thread")
    parser.add_argument("--runs", type=Path, help="keep checkpoints and values here")
    parser.add_argument("--json", type=Path, help="write all values here")
    parser.add_argument("--phase", choices=["train", "measure"], help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.only or list(VARIANTS)
    sys.argv[1:] = []  # which Lightning's command line would warn of
    if arguments.phase == "train":
        return train(names[0], arguments.seed, arguments.steps, arguments.runs)
    if arguments.phase == "measure":
        return measure(names[0], arguments.seed, arguments.runs)

    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.runs or Path(temporary)).resolve()
        pilots = [(arguments.minutes, name, folder) for name in names]
        steps = dict(zip(names, in_processes(arguments.processes, steps_within, pilots), strict=True))
        jobs = [
            (name, seed, steps[name], folder / f"{slug(name)}_{steps[name]}_{seed}")
            for seed in range(arguments.seeds)
            for name in names
        ]
        results = in_processes(arguments.processes, run, jobs)
    runs = {name: [result for (of, *_), result in zip(jobs, results, strict=True) if of == name] for name in names}
    print(f"{arguments.minutes:g} CPU minutes a run, {arguments.seeds} seeds, one thread, torch {torch.__version__}")
    print(f"{platform.machine()}, {os.cpu_count()} cores, {arguments.processes} runs at the same time\n")
    columns = (*TAGS, "CPU minutes")
    print(f"| objective | steps | {' | '.join(f'`{tag}`' for tag in columns)} |")
    print("|---" * (len(columns) + 2) + "|")
    for name, of_seeds in runs.items():
        cells = [cell([values.get(tag, float("nan")) for values in of_seeds]) for tag in columns]
        print(f"| {name} | {' | '.join([str(steps[name]), *cells])} |")
    for tag in TO_BEAT:
        print(f"\nto beat, `{tag}`: {cell([values.get(tag, float('nan')) for values in runs[names[0]]])}")
    if arguments.json:
        arguments.json.write_text(json.dumps(runs, indent=1))
    return None


if __name__ == "__main__":
    main()
