"""Checks for settings that can never work, made before anything is trained or measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Integral

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from ..errors import SettingError
from ..tags import meaning_of
from .distributed import broadcast
from .isolation import undisturbed
from .schedule import is_fitting


def require_whole(least: int, *others: object, **settings: object) -> None:
    """See that settings are whole numbers.

    Args:
        least: smallest number that is allowed.
        others: values that are allowed besides.
        settings: by name.

    Raises:
        ValueError: if not; the message names the setting.
    """
    for name, value in settings.items():
        is_whole = isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
        if not is_whole and value not in others:
            besides = "".join(f" or {other!r}" for other in others)
            raise ValueError(f"{name} must be a whole number of at least {least}{besides}, got {value!r}.")


def require_possible(pl_module: pl.LightningModule, try_out: Callable[[], object]) -> None:
    """Try settings, undisturbed, and let only those pass that may work. Every process calls it.

    Raises:
        SettingError: on every process. Any other failure is left to the measurement: it may heal.
    """
    problem = None
    try:
        with undisturbed(pl_module):
            try_out()
    except SettingError as error:
        problem = str(error)
    except Exception:
        pass
    problem = broadcast(problem)
    if problem is not None:
        raise SettingError(problem)


def warn_of_followers(trainer: pl.Trainer, prefix: str, owned: tuple[str, ...]) -> None:
    """Warn of callbacks that follow one of our tags the wrong way: Lightning's default is ``mode="min"``.

    Args:
        trainer: whose callbacks are looked at.
        prefix: what goes before all tags of the callback.
        owned: beginnings of its tags.
    """
    for follower in getattr(trainer, "callbacks", []):
        tag, mode = getattr(follower, "monitor", None), getattr(follower, "mode", None)
        if not isinstance(tag, str) or not tag.startswith(tuple(prefix + own for own in owned)):
            continue
        row = meaning_of(tag.removeprefix(prefix))
        wanted = {"higher": "max", "lower": "min"}.get(row.better if row else "-")
        if wanted is not None and mode != wanted:
            rank_zero_warn(
                f"{type(follower).__name__} follows {tag} with mode={mode!r}, for which the worst value is the best: "
                f"{row.better if row else ''} is better, so pass mode={wanted!r}."
            )


def what_training_does(trainer: pl.Trainer, prefix: str, owned: tuple[str, ...], values: Mapping[str, float]) -> str:
    """Say what happens to training after a measurement that failed: callbacks that check a tag stop at NaN.

    Args:
        trainer, prefix, owned: see :func:`warn_of_followers`.
        values: last value of each tag, without the prefix.
    """
    for follower in getattr(trainer, "callbacks", []) if is_fitting(trainer) else []:
        tag = getattr(follower, "monitor", None)
        if not isinstance(tag, str) or not tag.startswith(tuple(prefix + own for own in owned)):
            continue
        if getattr(follower, "check_finite", False) and math.isnan(values.get(tag.removeprefix(prefix), math.nan)):
            name = type(follower).__name__
            return f"training goes on unless {name}, for want of check_finite=False, stops at the NaN of {tag}"
    return "training goes on"
