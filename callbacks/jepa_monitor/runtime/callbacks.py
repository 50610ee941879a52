"""The other callbacks of a Trainer."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl


def callbacks_of(trainer: pl.Trainer) -> list[Any]:
    """List a Trainer's callbacks, of any kind: its callback connector sets them, unseen by type checkers."""
    return list(getattr(trainer, "callbacks", []))
