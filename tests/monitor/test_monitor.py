"""The callback in a foreign project: what it logs, when, and that training does not notice."""

from __future__ import annotations

import hashlib
import math
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from jepa_monitor import JEPAScoreMonitor
from jepa_monitor.sources import find_probe
from tests.monitor.projects import Autoencoder, images, loader, true_log_density

# the frozen part of the project below is meant to be in eval mode
pytestmark = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")


def trainer(tmp_path: Path, *callbacks: pl.Callback, **settings: Any) -> pl.Trainer:
    defaults = {"max_epochs": 2, "logger": False, "enable_checkpointing": False, "num_sanity_val_steps": 2}
    return pl.Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        default_root_dir=tmp_path,
        **(defaults | settings),
    )


DEFAULTS = {
    "encoder": lambda module, x: module(x),
    "log_density": true_log_density,
    "budget": None,
    "on_error": "raise",
}


def monitor(**settings: Any) -> JEPAScoreMonitor:
    return JEPAScoreMonitor(**(DEFAULTS | settings))


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
    digest.update(repr([submodule.training for submodule in module.modules()]).encode())
    return digest.hexdigest()


@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 2}], ids=["plain", "accumulating"])
def test_training_is_bitwise_the_same(tmp_path: Path, settings: dict[str, Any]) -> None:
    without = everything(tmp_path, **settings)
    measured = monitor(every_n_steps=2)
    assert everything(tmp_path, measured, **settings) == without
    assert measured.readings is not None


def test_a_careless_monitor_is_noticed(tmp_path: Path) -> None:
    """The comparison above can fail: batches in train mode, or a draw from the global generator, change the hash."""

    class Careless(pl.Callback):
        def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            torch.rand(1)

    assert everything(tmp_path, Careless()) != everything(tmp_path)


def read_events(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "histograms": 0, "scalars": 0})
    return events.Reload()


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
        "density/kendall",
        "density/auroc_low_density",
        "density/ood_auroc/noise",
        "density/ood_auroc_jepa_score/noise",
        "density/ood_auroc_typicality/noise",
        "density/complexity_spearman",
        "density/knn_spearman",
        "density/log_density_q10(nats)",
        "density/jepa_score_median(nats)",
        "gaussianity/sliced_ep_ratio",
        "gaussianity/effective_rank_ratio",
        "jacobian/rank",
        "jacobian/nonfinite_fraction",
        "monitor/seconds(s)",
    ):
        assert [event.step for event in events.Scalars(tag)] == [0, 6, 12], tag
        assert all(math.isfinite(event.value) for event in events.Scalars(tag)), tag
    assert [event.step for event in events.Scalars("density/stability")] == [6, 12]
    assert [event.step for event in events.Scalars("monitor/overhead(%)")] == [6, 12]
    assert set(tags["images"]) == {
        "density/score_against_truth",
        "density/histogram",
        "density/gallery",
        "jacobian/spectrum",
    }
    for tag in tags["images"]:
        assert [event.step for event in events.Images(tag)] == [0, 6, 12], tag
    for tag in ("density/log_density(nats)", "density/jepa_score(nats)"):
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
    assert values["density/jepa_score_median(nats)"] > -20.0  # a Jacobian of zeros would give 3 log 1e-6 = -41


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


def test_checkpoints_can_follow_our_tags_and_stay_small(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, monitor="density/spearman", mode="max", save_last=True)
    run = trainer(tmp_path, monitor(num_samples=48), best, enable_checkpointing=True)
    run.fit(Autoencoder(), loader(), loader(seed=1))
    assert best.best_model_score is not None
    assert Path(best.best_model_path).is_file()
    state = torch.load(best.last_model_path, weights_only=True)["callbacks"]["JEPAScoreMonitor"]
    assert state["previous"].shape == (48,)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_stability_goes_on_after_a_resume(tmp_path: Path) -> None:
    save = ModelCheckpoint(tmp_path, save_last=True)
    trainer(tmp_path, monitor(), save, enable_checkpointing=True).fit(Autoencoder(), loader(), loader(seed=1))
    again = ModelCheckpoint(tmp_path / "resumed", save_last=True)
    resumed = trainer(tmp_path, monitor(), again, max_epochs=3, num_sanity_val_steps=0, enable_checkpointing=True)
    resumed.fit(Autoencoder(), loader(), loader(seed=1), ckpt_path=save.last_model_path)
    assert "density/stability" in resumed.callback_metrics


def test_without_truth_there_is_no_truth_tag(tmp_path: Path) -> None:
    run = trainer(tmp_path, JEPAScoreMonitor(encoder="encoder"))
    run.fit(Autoencoder(), loader(), loader(seed=1))
    assert "density/spearman" not in run.callback_metrics
    assert "density/complexity_spearman" in run.callback_metrics


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.0 * x.flatten(1)[:, :3]


@pytest.mark.parametrize(
    ("settings", "data", "why"),
    [
        ({"encoder": lambda module, x: Constant()(x)}, images(), "collapsed to a point"),
        ({"encoder": "encoder"}, images(8), "8 finite embeddings cannot give the covariance of 12"),
        ({}, images(1), "1 finite embeddings cannot"),
        ({}, torch.full((9, 1, 4, 4), torch.nan), "0 finite embeddings"),
        ({}, torch.ones(9, 1, 4, 4), "all embeddings are equal"),
    ],
    ids=["collapsed encoder", "K above the probe", "one image", "NaN images", "constant images"],
)
def test_without_meaning_it_is_nan_with_a_reason(
    tmp_path: Path, settings: dict[str, Any], data: Tensor, why: str
) -> None:
    callback = monitor(probe=data, reference=images(), **settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (values,) = trainer(tmp_path, callback).validate(Autoencoder(), loader(), verbose=False)
    assert any(why in str(warning.message) for warning in caught)
    assert math.isnan(values["density/spearman"])
    assert math.isnan(values["density/log_density_median(nats)"])


def test_some_nan_images_are_counted_and_named(tmp_path: Path) -> None:
    data = images(20)
    data[3] = torch.nan
    callback = monitor(probe=data, reference=images())
    with (
        pytest.warns(UserWarning, match="1 of 20 values are not finite"),
        pytest.warns(UserWarning, match="some Jacobians are not finite: 5.0 %"),
    ):
        (values,) = trainer(tmp_path, callback).validate(Autoencoder(), loader(), verbose=False)
    assert values["jacobian/nonfinite_fraction"] == pytest.approx(0.05)
    assert math.isnan(values["density/spearman"])
    assert math.isfinite(values["density/jepa_score_median(nats)"])
    assert math.isfinite(values["gaussianity/sliced_ep_ratio"])


def test_a_constant_reference_costs_only_its_baseline(tmp_path: Path) -> None:
    callback = monitor(probe=images(20), reference=torch.ones(9, 1, 4, 4))
    with pytest.warns(UserWarning, match="leaves density/spearman_gaussian out"):
        (values,) = trainer(tmp_path, callback).validate(Autoencoder(), loader(), verbose=False)
    assert "density/spearman_gaussian" not in values
    assert math.isfinite(values["density/spearman"])


def test_no_data_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pass probe="):
        find_probe(monitor().sources, trainer(tmp_path))


@pytest.mark.parametrize("settings", [{"num_samples": 0}, {"rank": 0}])
def test_settings_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        JEPAScoreMonitor(**settings)
