"""The line on the progress of a run without a terminal: one, and true."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel

from jepa_monitor.runtime.budget import Horizon
from jepa_train.commands.progress import ProgressLine, line, share_done
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


def lines_of(caplog: pytest.LogCaptureFixture, tmp_path: Path, seconds: float, **settings: Any) -> list[str]:
    """Lines of a run of 40 batches that take so long each."""
    caplog.set_level(logging.INFO)
    parts = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    settings |= {"max_epochs": 4, "accelerator": "cpu", "default_root_dir": tmp_path}
    trainer = pl.Trainer(**dict.fromkeys(parts, False), **settings, callbacks=[ProgressLine(Clock(seconds))])
    module = BoringModel()
    trainer.fit(module, torch.utils.data.DataLoader(torch.randn(10, 32)))
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("Step ")]


def test_a_long_run_has_one_line_a_minute_after_the_start(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    assert lines_of(caplog, tmp_path, 15.0) == ["Step 4 (10 % of the run) after 0:01:00; about 0:09:00 to go."]


def test_a_step_of_several_batches_is_waited_for(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    lines = lines_of(caplog, tmp_path, 61.0, accumulate_grad_batches=2)
    assert lines == ["Step 1 (5 % of the run) after 0:02:02; about 0:38:38 to go."]


@pytest.mark.parametrize("seconds", [59.0, 65.0])
def test_a_run_that_is_nearly_done_has_none(seconds: float, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    assert lines_of(caplog, tmp_path, seconds / STEPS) == []


def test_a_run_without_an_end_says_where_it_is() -> None:
    assert share_done(Horizon(step=7), first_step=0, seconds=60.0) is None
    assert line(Horizon(step=7), first_step=0, seconds=60.0) == "Step 7 after 0:01:00."


def test_a_run_of_months_counts_days() -> None:
    horizon = Horizon(step=1, steps_left=388_800.0)
    assert line(horizon, first_step=0, seconds=60.0) == "Step 1 (0 % of the run) after 0:01:00; about 270 days to go."


def test_a_resumed_run_counts_from_where_it_goes_on() -> None:
    """Half of what is left is done after 25 of 50 steps, whatever was done before."""
    assert share_done(Horizon(step=75, steps_left=25.0), first_step=50, seconds=60.0) == 0.5


def test_the_limit_that_ends_the_run_counts() -> None:
    horizon = Horizon(step=10, steps_left=90.0, seconds_left=60.0)
    assert share_done(horizon, first_step=0, seconds=60.0) == 0.5


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_line_stands_where_no_bar_is(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    open_to_choice = [option for option in TINY if "enable_progress_bar" not in option]
    trainer = command("fit", *open_to_choice, *MIXTURE).trainer
    lines = [callback for callback in trainer.callbacks if isinstance(callback, ProgressLine)]
    assert (len(lines), trainer.progress_bar_callback is not None) == ((0, True) if is_terminal else (1, False))
