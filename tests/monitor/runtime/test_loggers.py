"""Warnings come once for as long as their reason lasts, and long measurements have a progress bar."""

from __future__ import annotations

import warnings
from pathlib import Path

import lightning.pytorch as pl
import pytest

from jepa_monitor.runtime.loggers import Warnings
from tests.monitor.helpers import Autoencoder, loader, monitor


def test_a_condition_is_warned_of_when_it_begins_and_begins_again() -> None:
    once = Warnings("Monitor a")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for conditions in (["x", "y"], ["y"], ["y", "z"], [], ["z"]):
            once.warn_new("topic", conditions)
        once.warn_new("another", ["z"])
        once.warn(["each time", "each time"])
    said = [str(warning.message).removeprefix("Monitor a: ") for warning in caught]
    assert said == ["x", "y", "z", "z", "z", "each time", "each time"]


@pytest.mark.parametrize("bars", [True, False])
def test_a_long_measurement_has_a_progress_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bars: bool
) -> None:
    monkeypatch.setattr("jepa_monitor.runtime.loggers.SECONDS_UNTIL_BAR", 0.0)
    run = pl.Trainer(
        accelerator="cpu",
        callbacks=[monitor(name="code", chunk=8)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=bars,
        default_root_dir=tmp_path,
    )
    run.validate(Autoencoder(), loader(seed=1), verbose=False)
    shown = capsys.readouterr().err
    assert ("JEPAScoreMonitor code" in shown) == bars
    assert ("/48 " in shown) == bars
