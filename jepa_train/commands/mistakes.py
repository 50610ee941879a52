"""The verdict on exceptions: which end the command line with one sentence, by where they come from.

One sentence is enough for what this package finds wrong, what Lightning, jsonargparse, torch's loaders and the monitor
refuse before the first step, what Lightning's callbacks refuse later, and what the operating system does not give.
Anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import linecache
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from jepa_train.errors import ConfigurationError, RunFailed, chain, one_line

MISTAKE = 2  # exit code of what a user can mend, as of argparse's own errors
FAILED = 1  # exit code of a run that failed, as of Python's tracebacks
VALIDATING = ("lightning", "jsonargparse", "torch.utils.data", "jepa_monitor")
CALLBACKS = "lightning.pytorch.callbacks"
LOOP = "lightning.pytorch.loops.fit_loop"
STEPPING = ("advance", "on_advance_end", "on_run_end")  # its functions from the first batch on
WORKER_DIED = "DataLoader worker (pid"  # raised by a signal, in whatever code is running
ROOM = "make room there, or choose another folder"
WRITABLE = "choose a folder that can be written to"
ADVICE = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: ROOM,
    errno.EACCES: WRITABLE,
    errno.EPERM: WRITABLE,
    errno.EROFS: WRITABLE,
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "see that its folder exists and stays",
    errno.ENOTDIR: "a part of this path is a file",
    errno.EISDIR: "name a file",
    errno.ELOOP: "mend the symbolic link",
    errno.EIO: "look after the disk",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs",
    errno.ENOMEM: "free some memory",
}


@contextmanager
def one_sentence() -> Iterator[None]:
    """Print what a user can mend as one sentence; a bug of ours keeps its traceback.

    Raises:
        SystemExit: with code 2 for a mistake, 1 for a run that failed.
    """
    try:
        yield
    except Exception as error:
        found = verdict(error)
        if found is None:
            raise
        sentence, code = found
        sys.stderr.write(f"error: {sentence}\n")  # in one piece: another thread may be printing its traceback
        raise SystemExit(code) from None


def verdict(error: Exception) -> tuple[str, int] | None:
    """Find the sentence and the exit code of an exception that is no bug of ours; ``None`` for one that is."""
    causes, started = list(chain(error)), _has_started(error)
    found_then = FAILED if started else MISTAKE  # a file that cannot be read may be met by the thousandth batch
    own = {RunFailed: FAILED, ConfigurationError: found_then, MisconfigurationException: MISTAKE}
    for kind, code in own.items():
        for cause in causes:
            if isinstance(cause, kind):
                return one_line(cause), code
    first = causes[-1]  # jsonargparse wraps what a constructor raised
    if isinstance(first, OSError) and first.errno in ADVICE:
        place = f"{os.fsdecode(first.filename)}: " if first.filename else ""
        return f"{place}{first.strerror}: {ADVICE[first.errno]}.", found_then
    if WORKER_DIED in str(error):
        return f"{one_line(error)} Lower --data.num_workers, or give the machine more memory.", FAILED
    if isinstance(first, torch.OutOfMemoryError):
        return f"{one_line(first)} Lower --data.batch_size.", FAILED
    return (one_line(first), MISTAKE) if _is_refusal(first, started=started) else None


def _has_started(error: BaseException | None) -> bool:
    """Find out if the exception, or one that was being handled, came from the loop over training batches."""
    while error is not None:
        if any(module == LOOP and function in STEPPING for module, function, _ in _frames(error)):
            return True
        error = error.__context__
    return False


def _is_refusal(error: BaseException, *, started: bool) -> bool:
    """Recognise what was raised on purpose by code that checks settings."""
    if not isinstance(error, (ValueError, TypeError, RuntimeError, ImportError)):
        return False
    module, _, line = [("", "", ""), *_frames(error)][-1]
    validating = module.startswith(CALLBACKS) if started else module.startswith(VALIDATING)
    return validating and line.startswith("raise ")


def _frames(error: BaseException) -> Iterator[tuple[str, str, str]]:
    """Yield module, function and line of code of each frame that an exception passed, the outermost first."""
    for frame, number in walk_tb(error.__traceback__):
        line = linecache.getline(frame.f_code.co_filename, number, frame.f_globals)
        yield frame.f_globals.get("__name__", ""), frame.f_code.co_name, line.strip()
