"""Checkpoints keep finite numbers alone: checks of those about to be written, of those read, and of the loss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor
from torch.distributed.tensor import DTensor

from jepa_train.errors import RunFailed

# of Lightning's checkpoints, and of its weight averaging, which keeps the weights that are trained beside the average
KEPT = ("state_dict", "current_model_state", "averaging_state", "optimizer_states")
SCALER = MixedPrecision.__qualname__  # under which Lightning keeps the state of a gradient scaler


@torch.no_grad()
def not_finite(checkpoint: Mapping[str, Any]) -> list[str]:
    """Name the weights and optimizer states of a checkpoint in which there is NaN or infinity.

    An accelerator is waited for once. Of sharded tensors this process checks its own part.
    """
    verdicts: dict[torch.device, list[tuple[str, Tensor]]] = defaultdict(list)
    for part in KEPT:
        for name, tensor in _tensors(part, checkpoint.get(part)):
            # one pass without a copy, a quarter of the time of isfinite() on a CPU; NaN is its own extreme
            verdicts[tensor.device].append((name, torch.stack(tensor.aminmax()).isfinite().all()))
    names = [
        name
        for looked_at in verdicts.values()
        for (name, _), finite in zip(
            looked_at, torch.stack([verdict for _, verdict in looked_at]).tolist(), strict=True
        )
        if not finite
    ]
    if (checkpoint.get(SCALER) or {}).get("scale") == 0:
        names.append(f"{SCALER}.scale")  # all gradients are 0 / 0 from here on
    return names


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield name and tensor of all floating-point tensors, with values, in nested mappings and lists."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _tensors(f"{name}.{key}", part)
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from _tensors(f"{name}.{index}", part)
    elif isinstance(value, Tensor):
        local = value.to_local() if isinstance(value, DTensor) else value
        if local.is_floating_point() and local.numel():
            yield name, local


def check_finite(checkpoint: Mapping[str, Any], trainer: pl.Trainer | None, *, step: int, last_finite: int) -> None:
    """See that all of a checkpoint is finite, on all processes; to be called by all of them.

    Args:
        checkpoint: as Lightning writes it, or a part of it.
        trainer: Trainer whose processes decide together; none where a module is saved that was never trained.
        step: optimizer steps done.
        last_finite: step at which all was finite.

    Raises:
        RunFailed: on all processes, if there is NaN or infinity on any of them.
    """
    names = not_finite(checkpoint)
    if not names if trainer is None else trainer.strategy.reduce_boolean_decision(not names):
        return
    found = f"{names[0]} and {len(names) - 1} other tensors" if names else "tensors of another process"
    raise run_failed(f"training became non-finite after step {last_finite}, by step {step} ({found})", trainer)


def check_loss(loss: Tensor, trainer: pl.Trainer, *, batch_idx: int) -> None:
    """End a run whose loss is not finite, where the loss is logged: looking at it makes an accelerator wait.

    A gradient scaler leaves such steps out, and training goes on.

    Raises:
        RunFailed: with the step and the last good checkpoint.
    """
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set on the Trainer by its logger connector
    scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
    if every and batch_idx % every == 0 and not scaled and not torch.isfinite(loss):
        raise run_failed(f"the training loss is {float(loss.detach())} at step {trainer.global_step}", trainer)


def run_failed(what: str, trainer: pl.Trainer | None) -> RunFailed:
    """Make the error of a run in which something is not finite, with what to do and the last good checkpoint."""
    good = newest_of_run(trainer) if trainer is not None else None
    kept = f"--ckpt_path {good} goes on from the last good checkpoint" if good else "no checkpoint was written before"
    return RunFailed(f"{what}: look for images that are not finite, or start again with a lower learning rate; {kept}.")


def newest_of_run(trainer: pl.Trainer) -> str | None:
    """Find the newest file of the run, or the one that it began with; where files are remote, their folder."""
    folders = [
        str(callback.dirpath)
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint) and callback.dirpath
    ]
    files = [path for folder in folders for path in Path(folder).rglob(f"*{ModelCheckpoint.FILE_EXTENSION}")]
    if trainer.ckpt_path:
        files.append(Path(trainer.ckpt_path))
    # of those that were written together, last.ckpt, which is found again by its name
    newest = max(
        (path for path in files if path.exists()), key=lambda path: (path.stat().st_mtime_ns, path.name), default=None
    )
    return str(newest) if newest else next((folder for folder in folders if "://" in folder), None)
