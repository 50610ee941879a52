"""The callbacks in a foreign project: what they log, when, and that training does not notice."""

from __future__ import annotations

import hashlib
import math
import random
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from jepa_monitor import FeatureStatistics, LiDAR, OnlineKNN, OnlineLinearProbe
from jepa_monitor.description import explanation
from jepa_monitor.evaluation import (
    LinearProbe,
    crop_and_flip,
    feature_statistics,
    lidar,
    recovery,
    weighted_knn,
    whiten,
)
from jepa_monitor.evaluation.online import choose
from tests.monitor.evaluation.helpers import (
    Dicts,
    classes,
    dicts,
    evaluations,
    labelled_module,
    logged,
    tuples,
)
from tests.monitor.helpers import Autoencoder, loader, read_events, trainer

# the frozen part of the project is meant to be in eval mode
pytestmark = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")

TAGS = {
    "knn/accuracy",
    "knn/accuracy_unwhitened",
    "knn/accuracy_embedding",
    "knn/accuracy_pixels",
    "knn/accuracy_pixels_whitened",
    "linear_probe/accuracy",
    "linear_probe/train_accuracy",
    "linear_probe/accuracy_embedding",
    "linear_probe/accuracy_pixels",
    "features/lidar",
    "features/lidar_ratio",
    "features/std_mean",
    "features/std_min",
    "features/std_l2_normalised_ratio",
    "features/rank_ratio",
    "features/recovery",
}


def everything(tmp_path: Path, *callbacks: pl.Callback, **settings: Any) -> str:
    """sha256 of weights, buffers, optimizer state, modes and random state after two epochs."""
    module = labelled_module()
    run = trainer(tmp_path, *callbacks, **settings)
    train = DataLoader(Dicts(48, augment=True), batch_size=8, shuffle=True)
    run.fit(module, train, tuples(24, seed=1))
    digest = hashlib.sha256()
    states = [value for state in run.optimizers[0].state.values() for value in state.values()]
    for value in [*module.state_dict().values(), *states, torch.get_rng_state()]:
        digest.update(value.numpy().tobytes())
    modes = [submodule.training for submodule in module.modules()]
    digest.update(repr([random.getstate(), np.random.get_state(), modes]).encode())
    return digest.hexdigest()


@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 2}, {"val_check_interval": 2}])
def test_training_is_bitwise_the_same(tmp_path: Path, settings: dict[str, Any]) -> None:
    callbacks = evaluations()
    assert everything(tmp_path, *callbacks, **settings) == everything(tmp_path, **settings)
    assert set().union(*(callback.values for callback in callbacks)) == TAGS


def test_training_is_the_same_after_a_failure_half_way(tmp_path: Path) -> None:
    def breaks(module: nn.Module, x: Tensor) -> Tensor:
        torch.rand(1)
        module(x)
        raise RuntimeError("half-way")

    with pytest.warns(UserWarning, match="could not measure at step 6, and training goes on: RuntimeError: half-way"):
        found = everything(tmp_path, OnlineKNN(encoder=breaks))
    assert found == everything(tmp_path)


@pytest.mark.parametrize("make", [tuples, dicts])
def test_values_are_those_of_the_formulas(tmp_path: Path, make: Any) -> None:
    module = labelled_module()
    run = trainer(tmp_path, *evaluations())
    run.fit(module, make(60), make(30, seed=1))
    assert set(logged(run.callback_metrics)) == TAGS
    values = logged(run.callback_metrics)
    (bank, labels), (queries, truth) = classes(60), classes(30, seed=1)
    module.eval()

    def accuracy(predicted: Tensor) -> float:
        return float((predicted == truth).double().mean())

    with torch.no_grad():
        features = module.features(queries), module.features(bank)
        embeddings = module(queries), module(bank)
        views = [
            crop_and_flip(image.expand(8, -1, -1, -1), torch.Generator().manual_seed(i))
            for i, image in enumerate(queries)
        ]
        z_NQK = torch.stack([module.features(view) for view in views])
    pixels = queries.flatten(1), bank.flatten(1)
    white, of_features = whiten(*features), LinearProbe.fit(features[1], labels)
    expected = {
        "knn/accuracy": accuracy(weighted_knn(white[0].float(), white[1].float(), labels)),
        "knn/accuracy_unwhitened": accuracy(weighted_knn(*features, labels)),
        "knn/accuracy_embedding": accuracy(weighted_knn(*embeddings, labels)),
        "knn/accuracy_pixels": accuracy(weighted_knn(*pixels, labels)),
        "knn/accuracy_pixels_whitened": accuracy(weighted_knn(*whiten(*pixels), labels)),
        "linear_probe/accuracy": accuracy(of_features.predict(features[0])),
        "linear_probe/train_accuracy": float((of_features.predict(features[1]) == labels).double().mean()),
        "linear_probe/accuracy_embedding": accuracy(LinearProbe.fit(embeddings[1], labels).predict(embeddings[0])),
        "linear_probe/accuracy_pixels": accuracy(LinearProbe.fit(pixels[1], labels).predict(pixels[0])),
        "features/lidar": lidar(z_NQK),
        "features/lidar_ratio": lidar(z_NQK) / 12,
        **{f"features/{name}": value for name, value in feature_statistics(features[0]).items()},
        "features/recovery": recovery(features[0], pixels[0]),
    }
    assert values == pytest.approx(expected, rel=1e-5)
    assert len({values["knn/accuracy"], values["knn/accuracy_pixels"], values["features/lidar"]}) == 3


def test_every_logger_gets_them_and_a_page_explains_them(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    callbacks = [*evaluations(), OnlineKNN(name="late", every_n_epochs=2)]
    trainer(tmp_path, *callbacks, logger=logger).fit(labelled_module(), tuples(48), tuples(24, seed=1))
    events = read_events(Path(logger.log_dir))
    for tag in TAGS:
        assert [event.step for event in events.Scalars(tag)] == [6, 12], tag
    assert [event.step for event in events.Scalars("late/knn/accuracy")] == [6, 12]
    page = events.Tensors("OnlineKNN/tags/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "`knn/accuracy_*`" in page
    assert "lidar" not in page
    rows = explanation(TAGS)
    assert all(f"`{tag}`" in rows for tag in TAGS if "embedding" not in tag)


def test_validate_logs_too(tmp_path: Path) -> None:
    knn = OnlineKNN(reference=Dicts(30), on_error="raise")
    (values,) = trainer(tmp_path, knn, LiDAR()).validate(labelled_module(), tuples(12, seed=1), verbose=False)
    assert {"knn/accuracy", "features/lidar"} <= set(values)


@pytest.mark.parametrize(
    ("settings", "every", "steps"),
    [
        ({}, 1, [6, 12, 18, 24]),
        ({}, 3, [6, 18]),
        ({"val_check_interval": 3}, 2, [3, 9, 12, 21, 24]),
        ({"check_val_every_n_epoch": 2}, 1, [12, 24]),
        ({"limit_val_batches": 0}, 2, [6, 12, 24]),
    ],
)
def test_when_it_measures(tmp_path: Path, settings: dict[str, Any], every: int, steps: list[int]) -> None:
    class Steps(FeatureStatistics):
        measured: list[int]

        def observe(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Any:
            assert not trainer.sanity_checking
            self.measured.append(trainer.global_step)
            return super().observe(trainer, pl_module)

    callback = Steps(every_n_epochs=every)
    callback.measured = []
    trainer(tmp_path, callback, max_epochs=4, **settings).fit(labelled_module(), tuples(48), tuples(24, seed=1))
    assert callback.measured == steps


def test_a_checkpoint_finds_the_tag_in_every_epoch(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, monitor="knn/accuracy", mode="max", save_top_k=-1)
    run = trainer(tmp_path, OnlineKNN(every_n_epochs=2), best, max_epochs=3, enable_checkpointing=True)
    run.fit(labelled_module(), tuples(48), tuples(24, seed=1))
    assert len(best.best_k_models) == 3
    assert math.isfinite(float(best.best_model_score or math.nan))


@pytest.mark.parametrize("first", [True, False])
def test_averaged_weights_are_measured_in_any_order_of_callbacks(tmp_path: Path, first: bool) -> None:
    averaging, statistics = WeightAveraging(avg_fn=lambda ours, theirs, n: torch.zeros_like(ours)), FeatureStatistics()
    callbacks = [averaging, statistics] if first else [statistics, averaging]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer(tmp_path, *callbacks).fit(labelled_module(), tuples(48), tuples(24, seed=1))
    assert statistics.values["features/std_mean"] == 0.0


def test_without_labels_accuracies_warn_once_and_the_rest_is_there(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = trainer(tmp_path, *evaluations())
        run.fit(Autoencoder(), loader(), loader(seed=1))
    warned = [str(warning.message) for warning in caught if "no class labels" in str(warning.message)]
    assert len(warned) == 2
    assert warned[0].startswith("OnlineKNN: samples of the probe have no class labels")
    assert set(logged(run.callback_metrics)) == {tag for tag in TAGS if tag.startswith("features/")}


@pytest.mark.parametrize(
    ("encode", "why"),
    [
        (lambda module, x: 0.0 * x.flatten(1) + 3.0, "collapsed to a point"),
        (lambda module, x: x.flatten(1) / 0.0, "are not finite"),
    ],
)
def test_without_meaning_it_is_nan_with_a_reason(tmp_path: Path, encode: Any, why: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = trainer(tmp_path, *evaluations(encoder=encode))
        run.fit(labelled_module(), tuples(48), tuples(24, seed=1))
    warned = [str(warning.message) for warning in caught if why in str(warning.message)]
    assert len(warned) == 4  # once for each, in two measurements
    values = logged(run.callback_metrics)
    zero = {"std_mean", "std_min", "std_l2_normalised_ratio"} if "collapsed" in why else set()
    for tag, value in values.items():
        if "pixels" in tag:
            assert value > 0.3
        elif tag.removeprefix("features/") in zero:
            assert value == 0.0, tag
        else:
            assert math.isnan(value), tag


def test_a_failure_is_nan_and_warned_of_once_and_the_end_is_values(tmp_path: Path) -> None:
    def encode(module: Any, x: Tensor) -> Tensor:
        if module.current_epoch < 2:
            raise RuntimeError("a bad day")
        return module(x)

    class Record(pl.Callback):
        seen: list[float]

        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            self.seen.append(float(trainer.callback_metrics["knn/accuracy"]))

    record = Record()
    record.seen = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = trainer(tmp_path, OnlineKNN(encoder=encode), record, max_epochs=3)
        run.fit(labelled_module(), tuples(48), tuples(24, seed=1))
    assert len([warning for warning in caught if "a bad day" in str(warning.message)]) == 1
    assert np.isnan(record.seen).tolist() == [True, True, False]
    with pytest.raises(RuntimeError, match="a bad day"):
        trainer(tmp_path, OnlineKNN(encoder=encode, on_error="raise")).fit(labelled_module(), tuples(48), tuples(24))


def test_datasets_too_large_to_keep_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for limit in (2**29, 0):
        monkeypatch.setattr("jepa_monitor.probe.shards.KEPT_BYTES", limit)
        run = trainer(tmp_path, *evaluations())
        run.fit(labelled_module(), dicts(60, augment=True), tuples(30, seed=1))
        found.append(logged(run.callback_metrics))
    assert found[0] == found[1]


def test_positions_are_distinct_and_fixed() -> None:
    first = choose(100, 30)
    assert len(set(first.tolist())) == 30
    assert torch.equal(first, choose(100, 30))
    assert set(first.tolist()).isdisjoint(choose(100, 50, after=30).tolist())
    assert choose(10, 30).tolist() == list(range(10))


def test_the_log_says_once_what_is_measured(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lidar_of = LiDAR(num_samples=8, views=2)
    with caplog.at_level("INFO"):
        trainer(tmp_path, lidar_of, max_epochs=2).fit(Autoencoder(), loader(), loader(seed=1))
    warned = [record.message for record in caplog.records if "LiDAR measures" in record.message]
    assert warned == ["LiDAR measures features: encoder (Sequential, found by its name)."]


def test_evaluations_that_measure_the_same_share_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def flat(module: Any, images: Tensor) -> Tensor:
        return images.flatten(1)

    other = FeatureStatistics(encoder=flat, name="pixels")
    with caplog.at_level("INFO"):
        run = trainer(tmp_path, OnlineKNN(), FeatureStatistics(), OnlineLinearProbe(), other, max_epochs=2)
        run.fit(labelled_module(), tuples(48), tuples(24, seed=1))
    said = [record.message for record in caplog.records if " measure" in record.message]
    alike, alone = sorted(said, key=len, reverse=True)
    assert alike.startswith("OnlineKNN, FeatureStatistics and OnlineLinearProbe measure features: ")
    assert alone.startswith("FeatureStatistics")
    assert "measures features: " in alone


def test_half_precision_weights(tmp_path: Path) -> None:
    statistics, knn = FeatureStatistics(on_error="raise"), OnlineKNN(on_error="raise")
    run = trainer(tmp_path, statistics, knn, precision="bf16-true", max_epochs=1)
    run.fit(labelled_module(), tuples(48), tuples(24, seed=1))
    assert math.isfinite(knn.values["knn/accuracy"])
    assert math.isfinite(statistics.values["features/rank_ratio"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OnlineKNN(k=0), "k must be a whole number of at least 1, got 0"),
        (lambda: OnlineKNN(temperature=0.0), "temperature must be positive"),
        (lambda: OnlineKNN(bank_size=0), "bank_size must be a whole number of at least 1"),
        (lambda: OnlineKNN(num_queries=0), "the number of samples must be a whole number"),
        (lambda: OnlineKNN(bank_size="many"), "bank_size must be a whole number"),  # type: ignore[arg-type]  # likewise
        (lambda: OnlineKNN(every_n_epochs=0), "every_n_epochs"),
        (lambda: OnlineKNN(on_error="ignore"), "warn or raise"),  # type: ignore[arg-type]  # that is the test
        (lambda: OnlineKNN(encoder={"z": None, "pixels": "encoder"}), "cannot have the name pixels"),
        (lambda: OnlineLinearProbe(ridge=0.0), "ridge must be positive"),
        (lambda: LiDAR(views=1), "views must be a whole number of at least 2"),
    ],
)
def test_settings_are_checked(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
