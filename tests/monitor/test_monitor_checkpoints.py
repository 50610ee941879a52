"""Checkpoints that follow what the monitor logs, and what of it they keep for a resumed run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from jepa_monitor import JEPAScoreMonitor
from tests.monitor.helpers import Autoencoder, images, loader, monitor, read_events, trainer

# the frozen part of the project below is meant to be in eval mode
pytestmark = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")


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
    for tag in ("density/spearman", "scores/jepa_score_median", "density/stability"):
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
    assert "pictures/gallery_over_training" in read_events(Path(logger.log_dir)).Tags()["images"]


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
        assert f"{name}/pictures/gallery" in events.Tags()["images"]
        assert f"{name}/JEPA-SCORE/tags/text_summary" in events.Tags()["tensors"]
    assert [event.step for event in events.Scalars("reference/gaussian_ratio")] == [0, 6, 12]
    layout = events.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0].decode(errors="replace")
    assert "code/density/spearman" in layout
    assert "hidden/density/spearman" in layout
    assert float(run.callback_metrics["code/density/spearman"]) != float(
        run.callback_metrics["hidden/density/spearman"]
    )
