"""Callbacks that follow a tag find it from the first validation on, whatever was measured when."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor

from jepa_monitor import FeatureStatistics, JEPAScoreMonitor, LiDAR, OnlineKNN, OnlineLinearProbe
from tests.monitor.evaluation.helpers import Labelled, labelled_module, tuples
from tests.monitor.helpers import Memory, trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
]

KINDS: dict[str, Callable[..., Any]] = {
    "gaussianity/sliced_ep_ratio": lambda **settings: JEPAScoreMonitor(budget=None, **settings),
    "knn/accuracy": lambda **settings: OnlineKNN(reference=tuples(24), **settings),
    "linear_probe/accuracy": lambda **settings: OnlineLinearProbe(reference=tuples(24), **settings),
    "features/lidar": LiDAR,
    "features/rank_ratio": FeatureStatistics,
}
of_each_kind = pytest.mark.parametrize("tag", KINDS)


class Logged(Memory):
    """Steps and values at which a tag was logged."""

    def __init__(self, tag: str) -> None:
        super().__init__()
        self.tag = tag

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if self.tag in metrics:
            self.written.append((step, {self.tag: float(metrics[self.tag])}))

    @property
    def steps(self) -> list[int | None]:
        return [step for step, _ in self.written]


class Followed:
    """A Trainer whose checkpoints and early stopping follow a tag, and what they saw of it at the end of each epoch.

    An epoch has 3 steps, and every third one is measured.
    """

    def __init__(self, folder: Path, tag: str, *, epochs: int, options: Any = None, **settings: Any) -> None:
        self.seen, self.logged = Seen(tag), Logged(tag)
        self.callback = KINDS[tag](**({"encoder": "encoder", "every_n_epochs": 3} | settings))
        mode = "min" if tag.startswith("gaussianity") else "max"
        self.best = ModelCheckpoint(folder, monitor=tag, mode=mode, save_top_k=-1)
        self.trainer = trainer(
            folder,
            self.callback,
            self.best,
            self.seen,
            EarlyStopping(tag, mode=mode, patience=99),
            **({"max_epochs": epochs, "enable_checkpointing": True, "logger": self.logged} | (options or {})),
        )

    def fit(self, module: pl.LightningModule | None = None, **settings: Any) -> Followed:
        self.trainer.fit(module or labelled_module(), tuples(24), tuples(24, seed=1), **settings)
        return self

    def fit_on(self, *, epochs: int) -> Followed:
        self.trainer.fit_loop.max_epochs = epochs
        return self.fit(self.trainer.lightning_module)

    def without_early_stopping(self) -> Followed:
        kept = [callback for callback in self.trainer.callbacks if not isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]  # set by its callback connector
        self.trainer.callbacks = kept  # type: ignore[attr-defined]  # likewise
        return self


class Seen(pl.Callback):
    """Value of a tag at the end of each epoch, for whoever looks."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.values: list[float] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.values.append(float(trainer.callback_metrics.get(self.tag, math.inf)))


def unmonitored(folder: Path, epochs: int = 1) -> Path:
    """A checkpoint of a run without any of our callbacks."""
    run = trainer(folder, max_epochs=epochs)
    run.fit(labelled_module(), tuples(24), tuples(24, seed=1))
    run.save_checkpoint(folder / "plain.ckpt")
    return folder / "plain.ckpt"


def start(tag: str) -> dict[str, bool]:
    """Settings that leave out what the monitor alone measures before training."""
    return {"at_start": False} if tag.startswith("gaussianity") else {}


@of_each_kind
def test_the_first_validation_is_measured_and_its_value_kept(tmp_path: Path, tag: str) -> None:
    run = Followed(tmp_path, tag, epochs=4, **start(tag)).fit()
    assert run.logged.steps == [3, 9]
    first, third = (values[tag] for _, values in run.logged.written)
    assert run.seen.values == pytest.approx([first, first, third, third])
    assert all(math.isfinite(value) for value in run.seen.values)
    assert len(run.best.best_k_models) == 4


@of_each_kind
@pytest.mark.parametrize("between", [None, "validate", "test"])
def test_a_second_fit_measures_its_first_validation(tmp_path: Path, tag: str, between: str | None) -> None:
    run = Followed(tmp_path, tag, epochs=1, **start(tag)).fit()
    if between == "validate":
        run.trainer.validate(run.trainer.lightning_module, tuples(18, seed=5), verbose=False)
    elif between == "test":
        run.trainer.lightning_module.test_step = lambda batch, batch_idx: None  # type: ignore[method-assign]  # of this one
        run.trainer.test(run.trainer.lightning_module, tuples(18, seed=5), verbose=False)
    run.fit_on(epochs=2)
    assert [step for step in dict.fromkeys(run.logged.steps) if step] == [3, 6]
    assert len(run.seen.values) == 2
    assert all(math.isfinite(value) for value in run.seen.values)


@of_each_kind
def test_a_callback_added_at_a_resume_measures_the_first_validation(tmp_path: Path, tag: str) -> None:
    run = Followed(tmp_path, tag, epochs=2).fit(ckpt_path=unmonitored(tmp_path))
    assert run.logged.steps == [6]
    assert math.isfinite(run.seen.values[0])


@of_each_kind
def test_a_resumed_run_finds_what_an_unbroken_one_does(tmp_path: Path, tag: str) -> None:
    whole = Followed(tmp_path / "whole", tag, epochs=5).fit()
    broken = Followed(tmp_path / "broken", tag, epochs=4).fit()
    broken.trainer.save_checkpoint(tmp_path / "broken.ckpt")
    resumed = Followed(tmp_path / "broken", tag, epochs=5).fit(ckpt_path=tmp_path / "broken.ckpt")
    assert broken.seen.values + resumed.seen.values == whole.seen.values
    assert broken.logged.steps + resumed.logged.steps == whole.logged.steps


@of_each_kind
def test_an_epoch_without_validation_finds_the_last_value(tmp_path: Path, tag: str) -> None:
    settings = {"every_n_epochs": 6, "options": {"check_val_every_n_epoch": 2}} | start(tag)
    run = Followed(tmp_path, tag, epochs=2, **settings).without_early_stopping().fit()
    run.trainer.callbacks.append(EarlyStopping(tag, mode=run.best.mode, patience=99, check_on_train_epoch_end=True))  # type: ignore[attr-defined]  # set by its callback connector
    run.fit_on(epochs=4)
    assert run.logged.steps == [6, 12]
    _, *values = run.seen.values
    assert values == pytest.approx([values[0], values[0], run.logged.written[-1][1][tag]])


@of_each_kind
@pytest.mark.parametrize("fails_in", [{0}, {2}, {0, 1}])
@pytest.mark.filterwarnings("ignore:JEPAScoreMonitor. measurements succeed again")
def test_a_failure_keeps_the_last_value_and_is_tried_again(tmp_path: Path, tag: str, fails_in: set[int]) -> None:
    def encode(module: pl.LightningModule, x: Tensor) -> Any:
        if module.current_epoch in fails_in:
            raise RuntimeError("a bad day")
        return cast("Labelled", module).encoder(x)

    run = Followed(tmp_path, tag, epochs=4, encoder=encode, **start(tag))
    # while there is no value, early stopping takes NaN for a reason to stop
    run.without_early_stopping()
    with pytest.warns(UserWarning, match="a bad day"):
        run.fit()
    logged = [values[tag] for _, values in run.logged.written]
    if fails_in == {2}:
        assert run.logged.steps == [3, 9]
        assert math.isnan(logged[1])
        assert run.seen.values == pytest.approx(4 * logged[:1])
    else:
        first = len(fails_in)
        assert run.logged.steps == sorted({3 * epoch + 3 for epoch in fails_in} | {3 * first + 3, 9})
        assert np.isnan(run.seen.values).tolist() == [epoch in fails_in for epoch in range(4)]


def a_bad_first_epoch(module: pl.LightningModule, x: Tensor) -> Any:
    if module.current_epoch == 0:
        raise RuntimeError("a bad day")
    return cast("Labelled", module).encoder(x)


@of_each_kind
def test_early_stopping_is_named_where_it_stops_at_a_failure(tmp_path: Path, tag: str) -> None:
    run = Followed(tmp_path, tag, epochs=2, encoder=a_bad_first_epoch, **start(tag))
    with pytest.warns(UserWarning, match="unless EarlyStopping stops at the NaN of .*check_finite=False prevents it"):
        run.fit()
    assert run.trainer.current_epoch == 1


@pytest.mark.filterwarnings("ignore:JEPAScoreMonitor. measurements succeed again")
@pytest.mark.parametrize(
    "tag",
    [
        *(f"scores/{score}_{label}" for score in ("log_density", "jepa_score") for label in ("q10", "median", "q90")),
        "jacobian/nonfinite_fraction",
        "monitor/alarm_collapse",
        "monitor/samples",
    ],
)
def test_each_tag_of_a_measurement_is_there_after_a_first_one_that_failed(tmp_path: Path, tag: str) -> None:
    callback = JEPAScoreMonitor(encoder=a_bad_first_epoch, budget=None, at_start=False)
    seen, stop = Seen(tag), EarlyStopping(tag, patience=99, check_finite=False)
    run = trainer(tmp_path, callback, seen, stop, max_epochs=2)
    with pytest.warns(UserWarning, match="could not measure at step 3, and training goes on: RuntimeError: a bad day"):
        run.fit(labelled_module(), tuples(24), tuples(24, seed=1))
    assert np.isnan(seen.values).tolist() == [True, False]


@of_each_kind
def test_values_of_another_run_are_not_found(tmp_path: Path, tag: str) -> None:
    run = Followed(tmp_path, tag, epochs=1).fit()
    run.callback.values["from/before"] = 1.0
    trainer(tmp_path, run.callback, max_epochs=1).fit(labelled_module(), tuples(24, seed=7), tuples(24, seed=8))
    assert "from/before" not in run.callback.values
    (validated,) = run.trainer.validate(labelled_module(), tuples(24, seed=1), verbose=False)
    assert not {"density/stability", "monitor/overhead_percent", "from/before"} & validated.keys()


@of_each_kind
def test_a_scheduler_that_waits_for_a_plateau_finds_the_tag(tmp_path: Path, tag: str) -> None:
    module = labelled_module()

    def configure_optimizers() -> Any:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": tag}}

    module.configure_optimizers = configure_optimizers  # type: ignore[method-assign,assignment]  # of this one module
    run = Followed(tmp_path, tag, epochs=2, **start(tag)).fit(module)
    assert run.trainer.current_epoch == 2


def test_a_monitor_that_is_to_measure_never_does_not(tmp_path: Path) -> None:
    never = JEPAScoreMonitor(encoder="encoder", every_n_epochs=0, at_start=False)
    trainer(tmp_path, never).fit(labelled_module(), tuples(24), tuples(24, seed=1))
    assert len(never.history) == 0


def test_two_evaluations_of_one_kind_keep_their_own_values(tmp_path: Path) -> None:
    pair = [FeatureStatistics(encoder="encoder", name="hidden"), FeatureStatistics(encoder="forward", name="code")]
    run = trainer(tmp_path, *pair, max_epochs=1)
    run.fit(labelled_module(), tuples(24), tuples(24, seed=1))
    run.save_checkpoint(tmp_path / "both.ckpt")
    states = torch.load(tmp_path / "both.ckpt", weights_only=True)["callbacks"]
    for callback in pair:
        assert states[f"FeatureStatistics[{callback.name}]"]["last"] == callback.values
    assert pair[0].values != pair[1].values
