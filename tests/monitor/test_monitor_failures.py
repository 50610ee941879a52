"""Measurements that fail, loggers that cannot write, and alarms: training goes on, and what happened is said once."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from tests.monitor.helpers import Autoencoder, Memory, loader, monitor, read_events, trainer

# the frozen part of the project below is meant to be in eval mode
pytestmark = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")


@pytest.mark.filterwarnings("ignore:JEPAScoreMonitor")
@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_one_failure_does_not_stop_training_early(tmp_path: Path, fails_at: int) -> None:
    def encode(module: pl.LightningModule, x: Tensor) -> Tensor:
        if module.global_step == 6 * fails_at:
            raise RuntimeError("a bad day")
        return module(x)

    callback = monitor(encoder=encode, on_error="warn")
    stop = EarlyStopping("scores/jepa_score_median", patience=99)
    run = trainer(tmp_path, callback, stop, max_epochs=4)
    run.fit(Autoencoder(), loader(), loader(seed=1))
    assert run.current_epoch == 4
    assert callback.history.values["monitor/failed"].index(1.0) == fails_at


def test_one_bad_logger_does_not_keep_the_others_from_theirs(tmp_path: Path) -> None:
    class Full(Memory):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            if "density/spearman" in metrics:
                raise OSError("no space left on device")

    good = Memory()
    with pytest.warns(UserWarning, match="no space left") as warned:
        trainer(tmp_path, monitor(on_error="warn"), logger=[Full(), good]).fit(Autoencoder(), loader(), loader(seed=1))
    assert [step for step, _ in good.written] == [0, 6, 12]
    assert len([warning for warning in warned if "no space left" in str(warning.message)]) == 1


def test_a_logger_that_fails_does_not_end_training(tmp_path: Path) -> None:
    class Full(Memory):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            if "density/spearman" in metrics:
                raise OSError("no space left on device")

    run = trainer(tmp_path, monitor(on_error="warn"), logger=Full())
    with pytest.warns(UserWarning, match="could not write what it measured: OSError: no space left"):
        run.fit(Autoencoder(), loader(), loader(seed=1))
    assert run.global_step == 12
    with pytest.raises(OSError, match="no space left"):
        trainer(tmp_path, monitor(), logger=Full()).fit(Autoencoder(), loader(), loader(seed=1))


def test_a_failed_measurement_is_nan_with_a_reason_and_one_warning(tmp_path: Path) -> None:
    broken = [True]

    def encode(module: nn.Module, x: Tensor) -> Tensor:
        if broken[0]:
            raise RuntimeError("a bad day")
        return module(x)

    class Repair(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            broken[0] = trainer.current_epoch < 2

    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    best = ModelCheckpoint(tmp_path, monitor="density/spearman", mode="max")
    callback = monitor(encoder=encode, on_error="warn")
    run = trainer(tmp_path, callback, Repair(), best, max_epochs=3, logger=logger, enable_checkpointing=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.fit(Autoencoder(), loader(), loader(seed=1))
    warned = [str(warning.message) for warning in caught if "JEPAScoreMonitor" in str(warning.message)]
    assert len(warned) == 2
    assert "could not measure at step 0, and training goes on: RuntimeError: a bad day" in warned[0]
    assert "measurements succeed again since step 18" in warned[1]
    assert callback.history.values["monitor/failed"] == [1.0, 1.0, 1.0, 0.0]
    assert np.isnan(callback.history.values["density/spearman"]).tolist() == [True, True, True, False]
    text = read_events(Path(logger.log_dir)).Tensors("JEPA-SCORE/failures/text_summary")[0].tensor_proto.string_val[0]
    assert b"a bad day" in text


def test_alarms_are_warned_of_when_they_begin_and_when_they_end(tmp_path: Path) -> None:
    class Collapses(Autoencoder):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (0.0 if self.global_step == 6 else 1.0)

    callback = monitor(encoder=lambda module, x: Collapses.forward(module, x))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, callback).fit(Collapses(), loader(), loader(seed=1))
    warned = [str(warning.message) for warning in caught if "collapsed" in str(warning.message)]
    assert "the embeddings have collapsed: their variance is 0.0e+00" in warned[0]
    assert "the embeddings are no longer collapsed" in warned[-1]
    assert callback.history.values["monitor/alarm_collapse"] == [0.0, 1.0, 0.0]
