"""A progress bar for measurements that take long."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

import lightning.pytorch as pl
from tqdm.auto import tqdm

SECONDS_UNTIL_SHOWN = 2.0


@contextmanager
def progress_of(trainer: pl.Trainer, title: str, *, total: int) -> Generator[Callable[[int], None] | None, None, None]:
    """What is told how many more samples are done; ``None`` on all processes but the first, and without progress bars.

    Args:
        trainer: decides whether there are progress bars.
        title: what is done.
        total: samples.
    """
    if not trainer.is_global_zero or trainer.progress_bar_callback is None:
        yield None
        return
    with tqdm(total=total, desc=title, unit="sample", delay=SECONDS_UNTIL_SHOWN, leave=False) as bar:

        def advance(samples: int) -> None:
            bar.update(samples)

        yield advance
