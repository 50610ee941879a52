"""Lines that a command prints: those that a user needs."""

from __future__ import annotations

import io
import logging
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import Namespace

from jepa_monitor.runtime.budget import Budget
from jepa_train.commands.output import LIBRARY, brief, counted, is_needed, trainer_output
from tests.house import ROOT
from tests.train.commands.helpers import MIXTURE, command
from tests.train.data.helpers import write_idx

RANK_ZERO = "lightning.pytorch.utilities.rank_zero"


def record(level: int, path: str) -> logging.LogRecord:
    return logging.LogRecord(RANK_ZERO, level, path, 1, "text", None, None)


def test_lightnings_own_information_is_left_to_debugging() -> None:
    inside, outside = f"{LIBRARY}/pytorch/trainer/setup.py", __file__
    assert not is_needed(record(logging.INFO, inside))
    assert is_needed(record(logging.WARNING, inside))
    assert is_needed(record(logging.INFO, outside))
    requeued = logging.LogRecord(RANK_ZERO, logging.INFO, inside, 1, "Restored from %s", ("hpc_ckpt_1.ckpt",), None)
    assert is_needed(requeued)
    logger = logging.getLogger(RANK_ZERO)
    before = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        assert is_needed(record(logging.INFO, inside))
    finally:
        logger.setLevel(before)


def test_handlers_are_as_before_afterwards() -> None:
    handler, logger = logging.StreamHandler(io.StringIO()), logging.getLogger("lightning.pytorch")
    logger.addHandler(handler)
    try:
        with brief():
            assert handler.filters == [is_needed]
        assert handler.filters == []
    finally:
        logger.removeHandler(handler)


@pytest.mark.parametrize("category", [UserWarning, RuntimeWarning, FutureWarning])
def test_a_warning_for_users_is_a_line_without_its_place(category: type[Warning]) -> None:
    before = warnings.formatwarning
    with brief():
        text = warnings.formatwarning("too few images:\n    7 of 20", category, "inside.py", 7)
        assert text == "warning: too few images: 7 of 20\n"
        assert "inside.py:7" in warnings.formatwarning("old", DeprecationWarning, "inside.py", 7)
    assert warnings.formatwarning is before


def test_bars_are_for_terminals_and_what_a_user_says_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    open_ones = Namespace(enable_model_summary=None, enable_progress_bar=None)
    for is_terminal in (False, True):
        monkeypatch.setattr(sys.stdout, "isatty", lambda found=is_terminal: found)
        assert trainer_output(open_ones) == {"enable_model_summary": False, "enable_progress_bar": is_terminal}
    assert trainer_output(Namespace(enable_model_summary=True, enable_progress_bar=False)) == {}


@pytest.mark.parametrize(("number", "text"), [(7, "7"), (238_912, "239 K"), (1_600_000, "1.6 M"), (6.3e8, "630 M")])
def test_counts_have_three_digits(number: int, text: str) -> None:
    assert counted(number) == text


def lines_of(*arguments: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> tuple[Any, str]:
    """Run ``fit``, and return the command line with its lines, of which all are there that a run can have."""
    handler = logging.StreamHandler(sys.stdout)
    names = ("lightning.pytorch", "pytorch_lightning")  # the second where another test has imported it
    for name in names:
        caplog.set_level(logging.INFO, name)  # whatever other tests have set
        logging.getLogger(name).addHandler(handler)
    try:
        run = command("fit", *arguments, "--trainer.log_every_n_steps=1")
    finally:
        for name in names:
            logging.getLogger(name).removeHandler(handler)
    return run, "\n".join(line for line in capfd.readouterr().out.splitlines() if line.strip())


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is long and has little time to measure, on a processor without bfloat16."""
    monkeypatch.setattr("jepa_train.commands.progress.SECONDS_UNTIL", 0.0)
    monkeypatch.setattr("jepa_train.commands.progress.WORTH_SAYING", 0.0)
    monkeypatch.setattr(Budget, "allows_measurement", lambda *_: False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


@pytest.mark.usefixtures("own_folder", "talkative")
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_a_run_says_what_is_needed_in_ten_lines(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run, text = lines_of(*MIXTURE, "--trainer.max_epochs=3", capfd=capfd, caplog=caplog)
    assert len(text.splitlines()) <= 10
    assert re.search(r"Training [\d.]+ K parameters on MixtureDataModule", text)
    assert re.search(r"JEPAScoreMonitor measures target .* of MixtureDataset\. It uses exact Jacobians of 32", text)
    assert re.search(r"Step 1 \(17 % of the run\)", text)
    assert "skips the measurement" in text
    assert re.search(r"Density: rank correlation with the true log density -?[\d.]+ \(.*\), of \d+ samples", text)
    assert re.search(r"Embeddings: Gaussianity ratio [\d.]+ \(1 is Gaussian\).*(No alarm|Alarm)", text)
    assert Path(re.search(r"The last checkpoint is (.*)\. To look", text)[1]).is_file()  # type: ignore[index]  # is there
    assert f"tensorboard --logdir {Path(run.trainer.log_dir)}" in text
    assert not re.search(r"Epoch 0|it/s|GPU available|Seed set|litlogger|Total params", text)


@pytest.mark.usefixtures("own_folder", "talkative")
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_a_run_with_all_evaluations_says_it_in_ten_lines(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("FashionMNIST", "MNIST"):
        write_idx(tmp_path / "idx" / name / "raw", seed=0)
    config = ("-c", str(ROOT / "configs" / "fashion_mnist.yaml"), f"--data.root={tmp_path / 'idx'}")
    smaller = ("--data.batch_size=8", "--monitor.num_samples=16", "--trainer.max_epochs=8")
    _, text = lines_of(*config, *smaller, capfd=capfd, caplog=caplog)
    assert len(text.splitlines()) == 10, text
    assert re.search(r"Training .* K parameters on FashionMNISTDataModule\. Computing in float32: .* To watch: ", text)
    assert re.search(
        r"on 16 samples of \w+\. It measures all of them, .* only within 5 % of the training time or 2 s\.\n", text
    )
    assert re.search(r"OnlineKNN, OnlineLinearProbe, LiDAR and FeatureStatistics measure features: ", text)
    assert all(f"\n{word}: " in text for word in ("Density", "Features", "Embeddings"))
