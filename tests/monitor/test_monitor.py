"""The callback in a foreign project: what it logs, when, and that training does not notice."""

from __future__ import annotations

import csv
import hashlib
import math
import random
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from jepa_monitor import JEPAScoreMonitor
from tests.monitor.helpers import Autoencoder, Memory, images, loader, monitor, read_events, trainer, true_log_density

# the frozen part of the project below is meant to be in eval mode
pytestmark = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")


def everything(tmp_path: Path, *callbacks: pl.Callback, **settings: Any) -> str:
    """sha256 of weights, optimizer state and random state after two epochs."""
    pl.seed_everything(0, verbose=False)
    module = Autoencoder()
    run = trainer(tmp_path, *callbacks, **settings)
    run.fit(module, loader(shuffle=True), loader(seed=1))
    digest = hashlib.sha256()
    for value in [*module.state_dict().values(), torch.get_rng_state()]:
        digest.update(value.numpy().tobytes())
    for state in run.optimizers[0].state.values():
        for value in state.values():
            digest.update(value.numpy().tobytes())
    digest.update(repr([random.getstate(), np.random.get_state()]).encode())
    digest.update(repr([submodule.training for submodule in module.modules()]).encode())
    return digest.hexdigest()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"accumulate_grad_batches": 2},
        {"val_check_interval": 2},
        pytest.param({"logger": True}, marks=pytest.mark.slow),
    ],
    ids=["plain", "accumulating", "validating often", "drawing"],
)
def test_training_is_bitwise_the_same(tmp_path: Path, settings: dict[str, Any]) -> None:
    without = everything(tmp_path, **settings)
    measured = monitor(every_n_steps=2)
    assert everything(tmp_path, measured, **settings) == without
    assert measured.readings is not None


@pytest.mark.filterwarnings("ignore:JEPAScoreMonitor")
@pytest.mark.parametrize("calls", [0, 1, 3, 12])
def test_training_is_the_same_after_a_measurement_that_failed_half_way(tmp_path: Path, calls: int) -> None:
    done = []

    def breaks(module: nn.Module, x: Tensor) -> Tensor:
        done.append(torch.rand(1))
        if len(done) > calls:
            raise RuntimeError("half-way")
        return module(x)

    callback = monitor(encoder=breaks, on_error="warn")
    assert everything(tmp_path, callback) == everything(tmp_path)
    assert len(done) > calls
    assert 1.0 in callback.history.values["monitor/failed"]


def test_a_careless_monitor_is_noticed(tmp_path: Path) -> None:
    """The comparison above can fail: each of these alone changes the hash."""

    class Careless(pl.Callback):
        def __init__(self, act: Callable[[pl.LightningModule], object]) -> None:
            self.act = act

        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.current_epoch == 0:
                self.act(pl_module)

    without = everything(tmp_path)
    careless: list[Callable[[pl.LightningModule], object]] = [
        lambda module: torch.rand(1),
        lambda module: random.random(),
        lambda module: np.random.rand(),
        lambda module: next(iter(loader(shuffle=True))),
        lambda module: module(images()),
        lambda module: module.eval(),
        lambda module: module.train(),
    ]
    assert all(everything(tmp_path, Careless(act)) != without for act in careless)


def test_everything_is_in_tensorboard(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    callback = monitor(ood={"noise": 3.0 * images(20, seed=5)})
    trainer(tmp_path, callback, logger=logger).fit(Autoencoder(), loader(), loader(seed=1))
    events = read_events(Path(logger.log_dir))
    tags = events.Tags()
    for tag in (
        "density/spearman",
        "density/spearman_jepa_score",
        "density/spearman_gaussian",
        "density/spearman_gaussian_embedding",
        "density/intrinsic_dimension",
        "monitor/reference",
        "density/kendall",
        "density/auroc_low_density",
        "density/ood_auroc/noise",
        "density/ood_auroc_jepa_score/noise",
        "density/ood_auroc_typicality/noise",
        "density/ood_auroc_embedding/noise",
        "density/ood_auroc_knn/noise",
        "density/ood_fpr95_ood_positive/noise",
        "density/complexity_spearman",
        "density/knn_spearman",
        "density/log_density_q10",
        "density/jepa_score_median",
        "gaussianity/sliced_ep_ratio",
        "gaussianity/effective_rank_ratio",
        "jacobian/rank",
        "jacobian/nonfinite_fraction",
        "monitor/seconds",
    ):
        assert [event.step for event in events.Scalars(tag)] == [0, 6, 12], tag
        assert all(math.isfinite(event.value) for event in events.Scalars(tag)), tag
    assert [event.step for event in events.Scalars("density/stability")] == [6, 12]
    assert [event.step for event in events.Scalars("monitor/overhead_percent")] == [6, 12]
    assert set(tags["images"]) == {
        "density/score_against_truth",
        "density/histogram",
        "density/gallery",
        "density/gallery_over_training",
        "gaussianity/norm_qq",
        "jacobian/spectrum",
        "jacobian/spectrum_over_training",
    }
    for tag in tags["images"]:
        steps = [6, 12] if tag == "jacobian/spectrum_over_training" else [0, 6, 12]
        assert [event.step for event in events.Images(tag)] == steps, tag
    for tag in ("density/log_density", "density/jepa_score"):
        assert [event.step for event in events.Histograms(tag)] == [0, 6, 12]
        assert all(event.histogram_value.num == 48 for event in events.Histograms(tag))
    page = events.Tensors("JEPA-SCORE/tags/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "`density/spearman`" in page
    assert "custom_scalars__config__" in tags["tensors"]


def test_logged_values_are_those_of_the_formulas(tmp_path: Path) -> None:
    callback, module = monitor(), Autoencoder()
    run = trainer(tmp_path, callback)
    run.fit(module, loader(), loader(seed=1))
    readings = callback.readings
    assert readings is not None
    x, encode = images(48, seed=1), module.eval()
    torch.testing.assert_close(readings.z, encode(x).detach().double())
    jacobian = torch.autograd.functional.jacobian(lambda batch: encode(batch).sum(0), x).flatten(2).permute(1, 0, 2)
    expected = torch.linalg.svdvals(jacobian.double()).log().sum(1)
    torch.testing.assert_close(readings.scores.jepa_score, expected, rtol=0.0, atol=1e-4)
    assert float(run.callback_metrics["density/spearman"]) == pytest.approx(
        torch.corrcoef(
            torch.stack([readings.scores.log_density, true_log_density(x).double()]).argsort(1).argsort(1).double()
        )[0, 1].item()
    )


def test_validate_under_inference_mode_repeats_the_last_measurement(tmp_path: Path) -> None:
    callback, module = monitor(reference=images()), Autoencoder()
    run = trainer(tmp_path, callback)
    run.fit(module, loader(), loader(seed=1))
    in_fit = dict(run.callback_metrics)
    again = trainer(tmp_path, monitor(reference=images()))
    (values,) = again.validate(module, loader(seed=1), verbose=False)
    compared = [tag for tag in values if not tag.startswith("monitor/")]
    assert len(compared) > 20
    for tag in compared:
        assert values[tag] == pytest.approx(float(in_fit[tag]), abs=1e-4, nan_ok=True), tag
    assert values["density/jepa_score_median"] > -20.0  # a Jacobian of zeros would give 3 log 1e-6 = -41


def test_test_measures_too(tmp_path: Path) -> None:
    class Tested(Autoencoder):
        def test_step(self, batch: Any, batch_idx: int) -> None:
            pass

    (values,) = trainer(tmp_path, monitor()).test(Tested(), loader(), verbose=False)
    assert "density/spearman" in values


def test_without_validation_it_measures_after_the_training_epoch(tmp_path: Path) -> None:
    class TrainOnly(Autoencoder):
        validation_step = None  # type: ignore[assignment]  # as in a project that has none

    logger = CSVLogger(tmp_path)
    callback = monitor()
    run = trainer(tmp_path, callback, logger=logger)
    run.fit(TrainOnly(), loader())
    logger.save()
    assert "density/spearman" in run.callback_metrics
    written = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    assert "density/spearman" in written[0]


def saved(tmp_path: Path, *callbacks: pl.Callback, **settings: Any) -> tuple[pl.Trainer, Path]:
    save = ModelCheckpoint(tmp_path / f"{len(list(tmp_path.iterdir()))}", save_last=True)
    run = trainer(tmp_path, *callbacks, save, enable_checkpointing=True, **settings)
    return run, Path(save.dirpath or "") / "last.ckpt"


def test_checkpoints_can_follow_our_tags(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, monitor="density/spearman", mode="max", save_last=True)
    run = trainer(tmp_path, monitor(num_samples=48), best, enable_checkpointing=True)
    run.fit(Autoencoder(), loader(), loader(seed=1))
    assert best.best_model_score is not None
    assert Path(best.best_model_path).is_file()


def test_callbacks_find_our_tags_in_epochs_without_a_measurement(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, monitor="density/spearman", mode="max")
    callback = monitor(every_n_epochs=2)
    trainer(tmp_path, callback, best, max_epochs=3, enable_checkpointing=True).fit(
        Autoencoder(), loader(), loader(seed=1)
    )
    assert callback.history.steps == [0, 12]
    assert best.best_model_score is not None


@pytest.mark.slow
def test_checkpoints_stay_small_and_load_safely(tmp_path: Path) -> None:
    sizes = []
    for callbacks in ((), (monitor(num_samples=2048, probe=images(2048, seed=1), every_n_steps=1),)):
        run, path = saved(tmp_path, *callbacks, max_epochs=10)
        run.fit(Autoencoder(), loader(), loader(seed=1))
        sizes.append(path.stat().st_size)
        assert torch.load(path, weights_only=True)["state_dict"].keys() == Autoencoder().state_dict().keys()
    assert sizes[1] - sizes[0] < 100_000


@pytest.mark.filterwarnings("ignore:JEPAScoreMonitor")
@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_one_failure_does_not_stop_training_early(tmp_path: Path, fails_at: int) -> None:
    def encode(module: pl.LightningModule, x: Tensor) -> Tensor:
        if module.global_step == 6 * fails_at:
            raise RuntimeError("a bad day")
        return module(x)

    callback = monitor(encoder=encode, on_error="warn")
    stop = EarlyStopping("density/jepa_score_median", patience=99)
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


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, {"cat": 0}, ["cat"], None])
def test_class_names_may_be_anything(tmp_path: Path, classes: Any) -> None:
    data = TensorDataset(images(16, seed=1), torch.arange(16) % 2)
    data.classes = classes  # type: ignore[attr-defined]  # as torchvision's datasets have it
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    trainer(tmp_path, monitor(probe=data), logger=logger, max_epochs=1).fit(Autoencoder(), loader(), loader(seed=1))
    assert "density/gallery" in read_events(Path(logger.log_dir)).Tags()["images"]


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_resumed_run_goes_on_with_its_history(tmp_path: Path) -> None:
    def callback() -> JEPAScoreMonitor:
        return monitor(reference=images())

    whole = callback()
    pl.seed_everything(0, verbose=False)
    trainer(tmp_path, whole, max_epochs=3).fit(Autoencoder(), loader(), loader(seed=1))
    run, path = saved(tmp_path, callback())
    pl.seed_everything(0, verbose=False)
    run.fit(Autoencoder(), loader(), loader(seed=1))
    resumed = callback()
    again, _ = saved(tmp_path, resumed, max_epochs=3)
    again.fit(Autoencoder(), loader(), loader(seed=1), ckpt_path=path)
    assert resumed.history.steps == whole.history.steps == [0, 6, 12, 18]
    for tag in ("density/spearman", "density/jepa_score_median", "density/stability"):
        np.testing.assert_array_equal(resumed.history.values[tag][:3], whole.history.values[tag][:3])
    assert math.isfinite(resumed.history.values["density/stability"][3])  # with the last ranking before the stop
    assert list(resumed.history.spectra) == [0, 6, 12, 18]


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_run_resumed_with_a_smaller_probe_shows_the_images_that_are_left(tmp_path: Path) -> None:
    run, path = saved(tmp_path, monitor(probe=images(48, seed=3)))
    run.fit(Autoencoder(), loader(), loader(seed=1))
    logger, resumed = TensorBoardLogger(tmp_path, default_hp_metric=False), monitor(probe=images(20, seed=3))
    again, _ = saved(tmp_path, resumed, max_epochs=3, logger=logger)
    again.fit(Autoencoder(), loader(), loader(seed=1), ckpt_path=path)
    assert min(resumed.history.followed) < 20 <= max(resumed.history.followed)
    assert "density/gallery_over_training" in read_events(Path(logger.log_dir)).Tags()["images"]


@pytest.mark.slow
def test_two_monitors_in_one_run(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    pair = [monitor(name="code"), monitor(encoder="encoder", name="hidden")]
    run, path = saved(tmp_path, *pair, logger=logger)
    run.fit(Autoencoder(), loader(), loader(seed=1))
    states = torch.load(path, weights_only=True)["callbacks"]
    assert {"JEPAScoreMonitor[code]", "JEPAScoreMonitor[hidden]"} <= states.keys()
    events = read_events(Path(logger.log_dir))
    for name in ("code", "hidden"):
        assert [event.step for event in events.Scalars(f"{name}/density/spearman")] == [0, 6, 12]
        assert f"{name}/density/gallery" in events.Tags()["images"]
        assert f"{name}/JEPA-SCORE/tags/text_summary" in events.Tags()["tensors"]
    assert [event.step for event in events.Scalars("null/ratio")] == [0, 6, 12]
    layout = events.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0].decode(errors="replace")
    assert "code/density/spearman" in layout
    assert "hidden/density/spearman" in layout
    assert float(run.callback_metrics["code/density/spearman"]) != float(
        run.callback_metrics["hidden/density/spearman"]
    )


@pytest.mark.slow
def test_any_loggers_get_the_scalars(tmp_path: Path) -> None:
    unknown, tables = Memory(), CSVLogger(tmp_path / "csv")
    boards = TensorBoardLogger(tmp_path / "board", default_hp_metric=False)
    callback = monitor()
    trainer(tmp_path, callback, logger=[unknown, tables, boards]).fit(Autoencoder(), loader(), loader(seed=1))
    assert [step for step, _ in unknown.written] == callback.history.steps == [0, 6, 12]
    with (Path(tables.log_dir) / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["density/spearman"]]
    written = [values["density/spearman"] for _, values in unknown.written]
    assert [float(row["density/spearman"]) for row in rows] == pytest.approx(written)
    assert [int(row["step"]) for row in rows] == [0, 6, 12]
    events = read_events(Path(boards.log_dir))
    assert [event.value for event in events.Scalars("density/spearman")] == pytest.approx(written)


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
    assert "measures again at step 18" in warned[1]
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
    assert "over: the embeddings have collapsed" in warned[-1]
    assert callback.history.values["alarm/collapse"] == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("settings", "asked", "steps"),
    [
        ({"val_check_interval": 3}, {}, [0, 3, 6, 9, 12]),
        ({"check_val_every_n_epoch": 2}, {}, [0, 6, 12]),
        ({"limit_val_batches": 0}, {}, [0, 6, 12]),
        ({"limit_val_batches": 1}, {}, [0, 6, 12]),
        ({"accumulate_grad_batches": 3}, {"every_n_steps": 1}, [0, 1, 2, 3, 4]),
        ({}, {"every_n_steps": 5, "every_n_epochs": 0, "at_start": False}, [5, 10]),
        ({"max_epochs": 4}, {"every_n_epochs": 3, "at_start": False}, [6, 18]),
    ],
)
def test_when_it_measures(tmp_path: Path, settings: dict[str, Any], asked: dict[str, Any], steps: list[int]) -> None:
    callback = monitor(**asked)
    trainer(tmp_path, callback, **settings).fit(Autoencoder(), loader(), loader(seed=1))
    assert callback.history.steps == steps


def test_the_sanity_check_is_silent(tmp_path: Path) -> None:
    logger = Memory()
    run = trainer(tmp_path, monitor(at_start=False), logger=logger, num_sanity_val_steps=-1)
    run.fit(Autoencoder(), loader(), loader(seed=1))
    assert [step for step, _ in logger.written] == [6, 12]


def test_several_validation_loaders(tmp_path: Path) -> None:
    class Several(Autoencoder):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            pass

    callback = monitor()
    run = trainer(tmp_path, callback)
    run.fit(Several(), loader(), [loader(16, seed=1), loader(8, seed=2)])
    assert callback.history.steps == [0, 6, 12]
    assert callback.readings is not None
    assert len(callback.readings.z) == 16
    assert "density/spearman" in run.callback_metrics


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 0}, "num_samples must be a whole number of at least 1 or None, got 0"),
        ({"num_samples": "many"}, "num_samples must be a whole number"),
        ({"num_samples": 8.0}, "num_samples must be a whole number"),
        ({"rank": 0}, "rank must be a whole number of at least 1 or 'auto', got 0"),
        ({"rank": "atuo"}, "rank must be a whole number of at least 1 or 'auto', got 'atuo'"),
        ({"chunk": 0}, "chunk must be a whole number of at least 1 or None, got 0"),
        ({"chunk": "a"}, "chunk must be a whole number"),
        ({"every_n_epochs": -1}, "every_n_epochs must be a whole number of at least 0, got -1"),
        ({"every_n_steps": -5}, "every_n_steps must be a whole number of at least 0, got -5"),
        ({"every_n_steps": True}, "every_n_steps must be a whole number"),
        ({"budget": 0.0}, "budget must be a positive share"),
        ({"budget": "5 %"}, "budget must be a positive share"),
        ({"estimator": "guess"}, "estimator must be"),
        ({"on_error": "ignore"}, "on_error must be warn or raise"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JEPAScoreMonitor(**settings)


def test_the_seconds_are_those_that_it_took(tmp_path: Path) -> None:
    calls: list[int] = []

    def slow(module: nn.Module, x: Tensor) -> Tensor:
        calls.append(len(x))
        time.sleep(0.02)
        return module(x)

    callback = monitor(encoder=slow, at_start=False)
    started = time.monotonic()
    trainer(tmp_path, callback, max_epochs=1).fit(Autoencoder(), loader(), loader(seed=1))
    (seconds,) = callback.history.values["monitor/seconds"]
    assert 0.02 * len(calls) <= seconds <= callback.seconds_spent <= time.monotonic() - started
    (percent,) = callback.history.values["monitor/overhead_percent"]
    assert percent >= 100.0 * seconds / (time.monotonic() - started)
