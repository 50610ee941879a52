"""Outputs of measurements: scalars to any logger, pictures to those that take them, warnings, the progress bar."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from tqdm.auto import tqdm

from ..description import explanation, layout
from ..readings import Readings

SECONDS_UNTIL_BAR = 2.0


def log_scalars(trainer: pl.Trainer, values: Mapping[str, float], step: int) -> None:
    """Log values to every logger through its ``log_metrics``.

    Not by ``pl_module.log``, which writes one step before that of the pictures.
    """
    failures = [error for logger in trainer.loggers if (error := _try_to_log(logger, values, step))]
    if failures:
        raise failures[0]


def _try_to_log(logger: Any, values: Mapping[str, float], step: int) -> Exception | None:
    """Return what went wrong: the next logger must get the values nevertheless."""
    try:
        logger.log_metrics(dict(values), step=step)
        logger.save()
    except Exception as error:
        return error
    return None


def log_for_callbacks(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    values: Mapping[str, float],
    *,
    on_step: bool = False,
    on_bar: Container[str] = (),
) -> None:
    """Log values through ``pl_module.log``, where ``ModelCheckpoint`` can monitor them.

    In ``validate`` and ``test`` they go to loggers and the printed table too.

    Args:
        trainer: the Trainer that calls.
        pl_module: its module.
        values: numbers by tag, equal on all processes.
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
    """Log images, (3, H, W) or (4, H, W) with opacity, to every TensorBoard, whichever package its logger is of."""
    for experiment in tensorboards(trainer):
        for tag, picture in pictures.items():
            experiment.add_image(tag, picture, step)


def log_histograms(trainer: pl.Trainer, readings: Readings, step: int, *, prefix: str) -> None:
    """Log the scores of the probe as histograms to every TensorBoard."""
    for experiment in tensorboards(trainer):
        for name in ("log_density", "jepa_score"):
            values = getattr(readings.scores, name)
            finite = values[torch.isfinite(values)]
            if len(finite):
                experiment.add_histogram(f"{prefix}scores/{name}", finite.numpy(), step)


def log_description(
    trainer: pl.Trainer, known: Iterable[str], logged: Iterable[str], step: int, *, prefix: str
) -> None:
    """Log the page that explains the tags, and the layout of all monitors' tags on one page.

    Args:
        trainer: the Trainer whose TensorBoards get them.
        known: tags of this monitor, without its name.
        logged: tags of all monitors, as logged.
        step: optimizer step.
        prefix: beginning of this monitor's tags.
    """
    for experiment in tensorboards(trainer):
        experiment.add_text(f"{prefix}JEPA-SCORE/tags", explanation(known), step)
        experiment.add_custom_scalars(layout(logged))


def log_text(trainer: pl.Trainer, tag: str, text: str, step: int) -> None:
    """Log a text to every TensorBoard."""
    for experiment in tensorboards(trainer):
        experiment.add_text(tag, text, step)


def tensorboards(trainer: pl.Trainer) -> list[Any]:
    """Experiments that take pictures, on the first process: the others' loggers have none."""
    if not trainer.is_global_zero:
        return []
    experiments = (getattr(logger, "experiment", None) for logger in trainer.loggers)
    return [experiment for experiment in experiments if hasattr(experiment, "add_custom_scalars")]


class Warnings:
    """Warns once for as long as a reason lasts.

    Args:
        title: beginning of each warning.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._lasting: dict[str, set[str]] = {}

    def warn(self, texts: Iterable[str]) -> None:
        """Warn of each text, each time."""
        for text in texts:
            rank_zero_warn(f"{self.title}: {text}")

    def warn_new(self, topic: str, conditions: Iterable[str]) -> None:
        """Warn of those conditions of a topic that did not last already; without any, the topic is over."""
        now = set(conditions)
        self.warn(sorted(now - self._lasting.get(topic, set())))
        self._lasting[topic] = now


@contextmanager
def progress_bar(trainer: pl.Trainer, title: str, *, total: int) -> Generator[Callable[[int], None] | None, None, None]:
    """Show a progress bar for a measurement that takes long.

    Args:
        trainer: decides whether there are progress bars.
        title: name of the work.
        total: samples.

    Yields:
        A function that takes the number of samples that are done since its last call; ``None`` without a bar, as on
        all processes but the first.
    """
    if not trainer.is_global_zero or trainer.progress_bar_callback is None:
        yield None
        return
    with tqdm(total=total, desc=title, unit="sample", delay=SECONDS_UNTIL_BAR, leave=False) as bar:

        def advance(samples: int) -> None:
            bar.update(samples)

        yield advance
