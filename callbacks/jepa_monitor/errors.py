"""Errors and checks of settings, raised before anything is trained or measured."""

from __future__ import annotations

from numbers import Integral


class SettingError(ValueError):
    """A setting of a callback that can never work; the message says in one sentence what to change.

    It is raised before anything is trained or measured, whatever ``on_error`` says: that is for what may heal.
    """


def require_whole(least: int, *others: object, **settings: object) -> None:
    """Check that settings are whole numbers.

    Args:
        least: smallest number that is allowed.
        others: values that are allowed besides.
        settings: values by name.

    Raises:
        ValueError: for one that is not; the message names the setting.
    """
    for name, value in settings.items():
        is_whole = isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
        if not is_whole and value not in others:
            besides = "".join(f" or {other!r}" for other in others)
            raise ValueError(f"{name} must be a whole number of at least {least}{besides}, got {value!r}.")
