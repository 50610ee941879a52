"""The output of a command: what a user needs, without Lightning's own lines, and progress bars in terminals alone.

A warning is one line, without the place in the code that a user has not written; those for programmers keep theirs.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
from jsonargparse import Namespace

LIBRARY = str(Path(lightning.__file__).parent)
# which have handlers of their own; the last takes all lines where Lightning is imported under its other name, too
LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning")
INTERNAL = r"`isinstance\(treespec, LeafSpec\)` is deprecated"  # Lightning's call of torch, which no user can mend


@contextmanager
def brief() -> Iterator[None]:
    """Show Lightning's own information at the level of debugging alone, and warnings in a line, within the block."""
    handlers = {handler for name in LOGGERS for handler in logging.getLogger(name).handlers}
    for handler in handlers:
        handler.addFilter(is_needed)
    before, warnings.formatwarning = warnings.formatwarning, in_a_line(warnings.formatwarning)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", INTERNAL)
            yield
    finally:
        warnings.formatwarning = before
        for handler in handlers:
            handler.removeFilter(is_needed)


def in_a_line(otherwise: Callable[..., str]) -> Callable[..., str]:
    """Make the function that writes what is meant for users as ``warning: ...`` in a line, and what is not as before.

    Args:
        otherwise: writes the warnings for programmers, those of deprecation.
    """

    def written(message: Warning | str, category: type[Warning], *place: Any, **line: Any) -> str:
        if issubclass(category, (DeprecationWarning, PendingDeprecationWarning)):
            return otherwise(message, category, *place, **line)
        return f"warning: {' '.join(str(message).split())}\n"

    return written


def expect_checkpoints(folder: Path) -> None:
    """Let a run that goes on in its own folder find its checkpoints there without a warning, within :func:`brief`.

    Args:
        folder: folder of its checkpoints, such as ``runs/mixture/version_0/checkpoints``.
    """
    own = re.escape(os.path.join(*folder.parts[-3:]))
    warnings.filterwarnings("ignore", rf"Checkpoint directory (.*{os.sep})?{own} exists and is not empty")


def is_needed(record: logging.LogRecord) -> bool:
    """Tell whether a record is shown: Lightning's warnings, and all that others log through its loggers.

    What a requeued job of Slurm goes on from, only Lightning knows.
    """
    others = not record.pathname.startswith(LIBRARY) or "hpc_ckpt" in record.getMessage()
    if record.levelno != logging.INFO or others:
        return True
    return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


def trainer_output(trainer: Namespace) -> dict[str, Any]:
    """Choose arguments of the Trainer that a user left open: no table of modules, and bars in a terminal alone."""
    chosen = {"enable_model_summary": False, "enable_progress_bar": sys.stdout.isatty()}
    return {name: value for name, value in chosen.items() if trainer.get(name) is None}


def counted(number: int) -> str:
    """Write a count in three digits at most: 239 K, 1.6 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " K")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
