"""The callback in a foreign project: what it logs, and when."""

from __future__ import annotations

import csv
import math
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from jepa_monitor import JEPAScoreMonitor, OnlineKNN
from jepa_monitor.evaluation import recovery
from tests.monitor.evaluation.helpers import Labelled, tuples
from tests.monitor.helpers import Autoencoder, Memory, images, loader, monitor, read_events, trainer, true_log_density

# the frozen part of the project below is meant to be in eval mode
pytestmark = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")


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
        "jacobian/intrinsic_dimension",
        "monitor/reference",
        "scores/kendall",
        "scores/auroc_low_density",
        "density/ood_auroc/noise",
        "density/ood_auroc_jepa_score/noise",
        "density/ood_auroc_typicality/noise",
        "density/ood_auroc_embedding/noise",
        "density/ood_auroc_knn/noise",
        "density/ood_fpr95_ood_positive/noise",
        "scores/complexity_spearman",
        "scores/knn_spearman",
        "scores/log_density_q10",
        "scores/jepa_score_median",
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
        "density/story",
        "pictures/score_against_truth",
        "pictures/histogram",
        "pictures/gallery",
        "pictures/gallery_over_training",
        "pictures/norm_qq",
        "pictures/spectrum",
        "pictures/spectrum_over_training",
    }
    for tag in tags["images"]:
        steps = [6, 12] if tag == "pictures/spectrum_over_training" else [0, 6, 12]
        assert [event.step for event in events.Images(tag)] == steps, tag
    for tag in ("scores/log_density", "scores/jepa_score"):
        assert [event.step for event in events.Histograms(tag)] == [0, 6, 12]
        assert all(event.histogram_value.num == 48 for event in events.Histograms(tag))
    # the story has the measurement that it is drawn at
    assert len({event.encoded_image_string for event in events.Images("density/story")}) == 3
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


def test_a_checkpoint_is_kept_by_the_features_that_a_module_offers(tmp_path: Path) -> None:
    class WithFeatures(Autoencoder):
        def features(self, x: Tensor) -> Tensor:
            return self.encoder(x)

    callback, module = monitor(encoder=None), WithFeatures()
    best = ModelCheckpoint(tmp_path / "best", monitor="monitor/keep", mode="max")
    run = trainer(tmp_path, callback, best, enable_checkpointing=True)
    run.fit(module, loader(), loader(seed=1))
    x = images(48, seed=1)
    expected = recovery(module.eval().features(x), x.flatten(1))
    assert callback.values["monitor/keep"] == pytest.approx(expected, abs=1e-5)
    assert best.best_model_score >= float(run.callback_metrics["monitor/keep"])
    of_embeddings = monitor()  # an encoder that is given is what is measured
    trainer(tmp_path, of_embeddings).validate(module, loader(seed=1), verbose=False)
    assert of_embeddings.values["monitor/keep"] == pytest.approx(recovery(module(x).detach(), x.flatten(1)), abs=1e-5)


class Gives(Autoencoder):
    """A module whose method ``features`` gives something else than vectors of images, or is none."""

    def __init__(self, what: str) -> None:
        super().__init__()
        if what == "a submodule":
            self.features = nn.ModuleList([nn.Linear(3, 2)])
        elif what == "a dictionary":
            self.features = lambda x: {"z": self(x)}
        elif what == "two arguments":
            self.features = lambda x, layer: self(x)
        else:
            self.features = lambda x: self(x)[:, 0]


@pytest.mark.parametrize("what", ["a submodule", "a dictionary", "two arguments", "numbers"])
def test_another_method_called_features_costs_its_own_tag_alone(tmp_path: Path, what: str) -> None:
    callback = monitor(encoder="encoder", on_error="warn") if what == "a submodule" else monitor(encoder=None)
    callback.on_error = "warn"
    best = ModelCheckpoint(tmp_path / "best", monitor="monitor/keep", mode="max")
    run = trainer(tmp_path, callback, best, enable_checkpointing=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.fit(Gives(what), loader(), loader(seed=1))
    assert callback.values["monitor/failed"] == 0.0
    assert math.isfinite(callback.values["density/spearman"])
    if what == "a submodule":  # which may stand behind others, and is not called
        assert math.isfinite(callback.values["monitor/keep"])
    elif what != "numbers":
        assert math.isnan(float(run.callback_metrics["monitor/keep"]))
        assert sum("the module's method features is left out" in str(warning.message) for warning in caught) == 1


def test_the_tag_is_there_after_a_first_measurement_that_failed(tmp_path: Path) -> None:
    def broken(module: nn.Module, x: Tensor) -> Tensor:
        raise RuntimeError("broken")

    callback = monitor(encoder=broken, on_error="warn")
    best = ModelCheckpoint(tmp_path / "best", monitor="monitor/keep", mode="max")
    with pytest.warns(UserWarning, match="broken"):
        trainer(tmp_path, callback, best, enable_checkpointing=True).fit(Autoencoder(), loader(), loader(seed=1))


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
    assert values["scores/jepa_score_median"] > -20.0  # a Jacobian of zeros would give 3 log 1e-6 = -41


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


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, {"cat": 0}, ["cat"], None])
def test_class_names_may_be_anything(tmp_path: Path, classes: Any) -> None:
    data = TensorDataset(images(16, seed=1), torch.arange(16) % 2)
    data.classes = classes  # type: ignore[attr-defined]  # as torchvision's datasets have it
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    trainer(tmp_path, monitor(probe=data), logger=logger, max_epochs=1).fit(Autoencoder(), loader(), loader(seed=1))
    assert "pictures/gallery" in read_events(Path(logger.log_dir)).Tags()["images"]


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


@pytest.mark.filterwarnings("ignore:OnlineKNN")
def test_accuracies_of_an_evaluation_before_it_are_part_of_its_history(tmp_path: Path) -> None:
    knn, callback = OnlineKNN(encoder="encoder", k=3), monitor(log_density=None)
    trainer(tmp_path, knn, callback).fit(Labelled(), tuples(48), tuples(24, 1))
    found = callback.history.beside
    assert found.keys() == {"knn/accuracy", "knn/accuracy_pixels"}
    assert list(found["knn/accuracy"]) == [6, 12]
    assert found["knn/accuracy"][12] == knn.values["knn/accuracy"]
