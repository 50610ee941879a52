"""Precision that suits the processor: bfloat16 of a config where there is none is left, one that is typed is not."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from jepa_train.commands.precision import leave_slow_bfloat16
from tests.train.commands.helpers import MIXTURE, command, last_of, make_run
from tests.train.commands.helpers import QUIET as QUIET_RUN

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}


def on(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: level)


@pytest.mark.parametrize(
    ("level", "asked", "used"),
    [
        ("AVX2", "bf16-mixed", "32-true"),
        ("DEFAULT", "bf16-mixed", "32-true"),
        ("AVX512", "bf16-mixed", "bf16-mixed"),
        ("SVE256", "bf16-mixed", "bf16-mixed"),
        ("AVX2", "64-true", "64-true"),
        ("AVX2", "bf16-true", "bf16-true"),
    ],
)
def test_only_mixed_bfloat16_is_replaced_where_it_is_imitated(
    monkeypatch: pytest.MonkeyPatch, level: str, asked: str, used: str
) -> None:
    on(monkeypatch, level)
    trainer = pl.Trainer(precision=asked, **QUIET)  # type: ignore[arg-type]  # a string of the table
    leave_slow_bfloat16(trainer)
    assert trainer.precision == used


@pytest.mark.parametrize("typed", [False, True])
def test_a_run_computes_in_float32_unless_bfloat16_is_typed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, typed: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    on(monkeypatch, "AVX2")
    config = tmp_path / "config.yaml"
    config.write_text("trainer: {precision: bf16-mixed}")
    words = ["fit", "-c", str(config), *MIXTURE, *QUIET_RUN, "--trainer.fast_dev_run=1", "--trainer.accelerator=cpu"]
    cli = command(*words, *(["--trainer.precision=bf16-mixed"] if typed else []))
    said = "this processor (AVX2) has no bfloat16" in caplog.text
    assert (cli.trainer.precision, said) == (("bf16-mixed", False) if typed else ("32-true", True))


@pytest.mark.filterwarnings("ignore:The dirpath has changed from")
@pytest.mark.parametrize("typed", [False, True])
def test_a_resumed_run_goes_on_in_the_precision_that_it_began_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, typed: bool
) -> None:
    on(monkeypatch, "AVX2")
    config = tmp_path / "config.yaml"
    config.write_text("trainer: {precision: bf16-mixed}")
    words = ["-c", str(config), f"--trainer.logger.save_dir={tmp_path}"]
    run = make_run(*words, *MIXTURE, *(["--trainer.precision=bf16-mixed"] if typed else []))
    resumed = command("fit", f"--ckpt_path={last_of(run)}", "--trainer.max_epochs=2")
    assert resumed.trainer.current_epoch == 2
    assert resumed.trainer.precision == ("bf16-mixed" if typed else "32-true")
