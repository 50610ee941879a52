"""What ends the command line with one sentence, and with which exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.fabric.utilities.exceptions import MisconfigurationException

from jepa_train.errors import ConfigurationError, RunFailed

MISTAKE = 2  # exit code of what a user can mend, as of argparse's own errors
FAILED = 1  # exit code of a run that failed, as of Python's tracebacks


@contextmanager
def one_sentence() -> Iterator[None]:
    """Print what a user can mend as one sentence; a bug of ours keeps its traceback.

    Raises:
        SystemExit: with code 2 for a mistake, 1 for a run that failed.
    """
    try:
        yield
    except (ConfigurationError, MisconfigurationException) as error:
        _end(error, MISTAKE)
    except RunFailed as error:
        _end(error, FAILED)


def _end(error: Exception, code: int) -> None:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(code) from None
