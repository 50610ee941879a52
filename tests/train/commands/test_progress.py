"""Lines on the progress of a run without a terminal: few, and true."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel

from jepa_monitor.runtime.budget import Horizon
from jepa_train.commands.progress import ProgressLines, line, share_done
from tests.train.commands.helpers import MIXTURE, TINY, command

STEPS = 40
pytestmark = [
    pytest.mark.filterwarnings("ignore:The '(train|val)_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
]


class Clock:
    """A clock that goes on by some seconds each time it is read."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now = seconds, 1000.0

    def __call__(self) -> float:
        self.now += self.seconds
        return self.now


def lines_of(caplog: pytest.LogCaptureFixture, tmp_path: Path, seconds: float) -> list[str]:
    """Lines of a run of 40 steps that take so long each."""
    caplog.set_level(logging.INFO)
    parts = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    settings = {"max_epochs": 4, "accelerator": "cpu", "default_root_dir": tmp_path}
    trainer = pl.Trainer(**dict.fromkeys(parts, False), **settings, callbacks=[ProgressLines(Clock(seconds))])
    module = BoringModel()
    trainer.fit(module, torch.utils.data.DataLoader(torch.randn(10, 32)))
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("Step ")]


def test_a_long_run_has_a_line_after_a_minute_and_one_a_quarter(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    lines = lines_of(caplog, tmp_path, 61.0)
    assert lines == [
        line(1, 61.0, 1 / STEPS),
        line(10, 610.0, 0.25),
        line(20, 1220.0, 0.5),
        line(30, 1830.0, 0.75),
    ]
    assert lines[1] == "Step 10 (25 % of the run) after 0:10:10; about 0:30:30 to go."


def test_a_short_run_has_none(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    assert lines_of(caplog, tmp_path, 59.0 / STEPS) == []


def test_no_line_follows_another_within_a_minute(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    assert len(lines_of(caplog, tmp_path, 150.0 / STEPS)) == 2


def test_a_run_without_an_end_says_where_it_is() -> None:
    assert share_done(Horizon(step=7), first_step=0, seconds=60.0) is None
    assert line(7, 60.0, None) == "Step 7 after 0:01:00."


def test_a_resumed_run_counts_from_where_it_goes_on() -> None:
    """Half of what is left is done after 25 of 50 steps, whatever was done before."""
    assert share_done(Horizon(step=75, steps_left=25.0), first_step=50, seconds=60.0) == 0.5


def test_the_limit_that_ends_the_run_counts() -> None:
    horizon = Horizon(step=10, steps_left=90.0, seconds_left=60.0)
    assert share_done(horizon, first_step=0, seconds=60.0) == 0.5


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("is_terminal", [False, True])
def test_lines_stand_where_no_bar_is(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    open_to_choice = [option for option in TINY if "enable_progress_bar" not in option]
    trainer = command("fit", *open_to_choice, *MIXTURE).trainer
    lines = [callback for callback in trainer.callbacks if isinstance(callback, ProgressLines)]
    assert (len(lines), trainer.progress_bar_callback is not None) == ((0, True) if is_terminal else (1, False))
