"""The other callbacks of a Trainer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import lightning.pytorch as pl

from jepa_monitor.runtime.callbacks import callbacks_of


def test_a_list_of_its_own_has_the_callbacks_of_a_trainer() -> None:
    callback = pl.Callback()
    trainer = pl.Trainer(callbacks=[callback], logger=False, enable_checkpointing=False, accelerator="cpu")
    found = callbacks_of(trainer)
    assert callback in found
    found.clear()
    assert callback in callbacks_of(trainer)


def test_a_trainer_may_have_none() -> None:
    assert callbacks_of(cast("Any", SimpleNamespace())) == []
