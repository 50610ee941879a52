"""Exceptions whose message is all that a user needs, and the checks of numbers that raise them.

The command line prints the message alone, without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence


class ConfigurationError(ValueError):
    """A setting, file or folder that cannot work; the message says in one sentence what to change."""


class RunFailed(RuntimeError):
    """A run that failed on its way; the message says in one sentence what happened and what to do."""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, the one that it was raised from, and so on to the first."""
    while error is not None:
        yield error
        error = error.__cause__


def one_line(text: object) -> str:
    """Text without line breaks."""
    return " ".join(str(text).split())


def some_of(names: list[str], most: int = 3) -> str:
    """Name the first ones, and the number of the others."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def nearest(name: str, names: Sequence[str], *, cutoff: float = 0.5) -> list[str]:
    """Find up to four names: those that go on where this one ends, else those that resemble it.

    Args:
        name: name that is none of them.
        names: those to choose from.
        cutoff: least resemblance, from 0 to 1.
    """
    return [other for other in names if other.startswith(name)][:4] or difflib.get_close_matches(
        name, names, n=4, cutoff=cutoff
    )


def counted(count: int, thing: str, things: str | None = None) -> str:
    """Write a number with its noun, such as ``1 image`` and ``0 images``.

    Args:
        count: the number.
        thing: singular, with all that follows it.
        things: plural, where it is more than an s at the end.
    """
    return f"{count} {thing}" if count == 1 else f"{count} {things or thing + 's'}"


def check_at_least(least: int, **settings: float) -> None:
    """See that no setting is below ``least``, or NaN.

    Raises:
        ConfigurationError: naming the first that is.
    """
    for name, value in settings.items():
        if not value >= least:
            raise ConfigurationError(f"{name} must be {least} or more, got {value}.")


def check_above_0(**settings: float) -> None:
    """See that each setting is above 0.

    Raises:
        ConfigurationError: naming the first that is not.
    """
    for name, value in settings.items():
        if not value > 0:
            raise ConfigurationError(f"{name} must be above 0, got {value}.")
