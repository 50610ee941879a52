"""Exceptions whose message is all that a user needs: the command line prints it alone, without a traceback."""

from __future__ import annotations

from collections.abc import Iterator


class ConfigurationError(ValueError):
    """A setting, file or folder that cannot work; the message says in one sentence what to change."""


class RunFailed(RuntimeError):
    """A run that failed on its way; the message says in one sentence what happened and what to do."""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, the one that it was raised from, and so on to the first."""
    while error is not None:
        yield error
        error = error.__cause__


def one_line(text: object) -> str:
    """Text without line breaks."""
    return " ".join(str(text).split())
