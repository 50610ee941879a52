"""Where measurements go: scalars to any logger, pictures to those that take them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from .. import tags
from ..readings import Readings


def log_scalars(trainer: pl.Trainer, values: Mapping[str, float], step: int) -> None:
    """To every logger through its ``log_metrics``.

    Not by ``pl_module.log``, which writes one step before that of the pictures.
    """
    failures = [error for logger in trainer.loggers if (error := _try_to_log(logger, values, step))]
    if failures:
        raise failures[0]


def _try_to_log(logger: Any, values: Mapping[str, float], step: int) -> Exception | None:
    """What went wrong: the next logger must get them nevertheless."""
    try:
        logger.log_metrics(dict(values), step=step)
        logger.save()
    except Exception as error:
        return error
    return None


def announce(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    values: Mapping[str, float],
    *,
    on_step: bool = False,
    on_bar: Container[str] = (),
) -> None:
    """To callbacks that follow a tag; in ``validate`` and ``test`` to loggers and the printed table too.

    Args:
        values: equal on all processes.
        on_step: called from a hook that logs by step.
        on_bar: tags that the progress bar shows in ``fit``.
    """
    fitting = trainer.state.fn == TrainerFn.FITTING
    for tag, value in values.items():
        pl_module.log(
            tag,
            value,
            prog_bar=fitting and tag in on_bar,
            logger=False if fitting else None,  # None: to the loggers there are, without a warning if none
            on_step=on_step,
            on_epoch=not on_step,
            batch_size=1,
            add_dataloader_idx=False,
            # the largest of equal values is the value, to the bit; without it Lightning warns once a tag
            sync_dist=True,
            reduce_fx="max",
        )


def log_pictures(trainer: pl.Trainer, pictures: Mapping[str, Tensor], step: int) -> None:
    """(3, H, W) images to every TensorBoard, whichever package its logger comes from."""
    for experiment in tensorboards(trainer):
        for tag, picture in pictures.items():
            experiment.add_image(tag, picture, step)


def log_histograms(trainer: pl.Trainer, readings: Readings, step: int, *, prefix: str) -> None:
    """Scores of the probe."""
    for experiment in tensorboards(trainer):
        for name in ("log_density", "jepa_score"):
            values = getattr(readings.scores, name)
            finite = values[torch.isfinite(values)]
            if len(finite):
                experiment.add_histogram(f"{prefix}density/{name}(nats)", finite.numpy(), step)


def log_introduction(
    trainer: pl.Trainer, known: Iterable[str], logged: Iterable[str], step: int, *, prefix: str
) -> None:
    """The page that explains the tags, and the layout of all monitors' tags on one page.

    Args:
        known: tags of this monitor, without its name.
        logged: tags of all monitors, as logged.
        prefix: of this monitor's tags.
    """
    for experiment in tensorboards(trainer):
        experiment.add_text(f"{prefix}JEPA-SCORE/tags", tags.explanation(known), step)
        experiment.add_custom_scalars(tags.layout(logged))


def log_text(trainer: pl.Trainer, tag: str, text: str, step: int) -> None:
    """To every TensorBoard."""
    for experiment in tensorboards(trainer):
        experiment.add_text(tag, text, step)


def tensorboards(trainer: pl.Trainer) -> list[Any]:
    """Experiments that take pictures, on the first process: the others' loggers have none."""
    if not trainer.is_global_zero:
        return []
    experiments = (getattr(logger, "experiment", None) for logger in trainer.loggers)
    return [experiment for experiment in experiments if hasattr(experiment, "add_custom_scalars")]
