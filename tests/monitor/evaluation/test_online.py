"""The callbacks in a foreign project: what they log, when, and that training does not notice."""

from __future__ import annotations

import hashlib
import math
import random
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler, TensorDataset

from jepa_monitor import FeatureStatistics, LiDAR, OnlineKNN, OnlineLinearProbe
from jepa_monitor.evaluation import LinearProbe, crop_and_flip, feature_statistics, lidar, weighted_knn, whiten
from jepa_monitor.evaluation.classifiers import principal
from jepa_monitor.evaluation.labelled import Task
from jepa_monitor.evaluation.online import choose
from jepa_monitor.runtime.encoder import resolve_encoders
from jepa_monitor.tags import explanation
from tests.monitor.evaluation.labelled_projects import (
    Dicts,
    Labelled,
    classes,
    dicts,
    evaluations,
    labelled_module,
    tuples,
)
from tests.monitor.projects import Autoencoder, images, loader
from tests.monitor.test_monitor import read_events, trainer

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
}


def logged(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {tag: float(value) for tag, value in metrics.items() if "/" in tag}


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
    told = [str(warning.message) for warning in caught if "no class labels" in str(warning.message)]
    assert len(told) == 2
    assert told[0].startswith("OnlineKNN: samples of the probe have no class labels")
    assert set(logged(run.callback_metrics)) == {tag for tag in TAGS if tag.startswith("features/")}


def test_a_function_that_finds_no_class_is_told_once(tmp_path: Path) -> None:
    callback = OnlineKNN(labels=lambda sample: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = trainer(tmp_path, callback)
        run.fit(labelled_module(), tuples(24), tuples(12, seed=1))
    told = [str(warning.message) for warning in caught if "OnlineKNN" in str(warning.message)]
    assert len(told) == 1
    assert "samples of the probe have no class labels" in told[0]
    assert "knn/accuracy" not in run.callback_metrics


def test_without_training_samples_it_says_what_to_pass(tmp_path: Path) -> None:
    run = trainer(tmp_path, OnlineKNN())
    with pytest.warns(UserWarning, match="pass reference="):
        (values,) = run.validate(labelled_module(), tuples(12), verbose=False) or [{}]
    assert values == {}


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
    told = [str(warning.message) for warning in caught if why in str(warning.message)]
    assert len(told) == 4  # once for each, in two measurements
    values = logged(run.callback_metrics)
    zero = {"std_mean", "std_min", "std_l2_normalised_ratio"} if "collapsed" in why else set()
    for tag, value in values.items():
        if "pixels" in tag:
            assert value > 0.3
        elif tag.removeprefix("features/") in zero:
            assert value == 0.0, tag
        else:
            assert math.isnan(value), tag


def test_a_failure_is_nan_and_told_once_and_the_end_is_values(tmp_path: Path) -> None:
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


def test_a_bank_sorted_by_class_is_sampled_from_all_of_it(tmp_path: Path) -> None:
    run = trainer(tmp_path, OnlineKNN(bank_size=20, num_queries=20, encoder="encoder"))
    run.fit(labelled_module(), tuples(300), tuples(300, seed=1))
    assert float(run.callback_metrics["knn/accuracy_pixels"]) > 0.6


def test_the_same_samples_are_not_on_both_sides(tmp_path: Path) -> None:
    """Labels without any relation to the images: whoever sees them twice would be right."""
    x, y = images(64), torch.randint(2, (64,), generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, y)
    copied = TensorDataset(torch.cat([x, images(30, seed=7)]), torch.cat([y, y[:30]]))
    for train, val in ((data, data), (copied, data)):
        run = trainer(tmp_path, OnlineKNN(k=1), OnlineLinearProbe(ridge=1e-6), max_epochs=1)
        run.fit(labelled_module(), DataLoader(train, batch_size=8), DataLoader(val, batch_size=8))
        assert float(run.callback_metrics["knn/accuracy_pixels"]) < 0.75
    train, val = (DataLoader(TensorDataset(x.clone(), y), batch_size=8) for _ in range(2))
    with pytest.warns(UserWarning, match="are among those to classify"):
        trainer(tmp_path, OnlineKNN(), max_epochs=1).fit(labelled_module(), train, val)


def test_two_selections_of_one_dataset_are_taken_whole(tmp_path: Path) -> None:
    data = TensorDataset(*classes(60))
    train = DataLoader(data, batch_size=8, sampler=SubsetRandomSampler(range(0, 60, 2)))
    val = DataLoader(data, batch_size=8, sampler=SubsetRandomSampler(range(1, 60, 2)))
    callback = OnlineKNN(on_error="raise")
    trainer(tmp_path, callback, max_epochs=1).fit(labelled_module(), train, val)
    queries, bank = callback._parts or (None, None)
    assert queries is not None
    assert bank is not None
    assert len(queries.positions) == len(bank.positions) == 30


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        x, y = classes(90)
        order = torch.randperm(90, generator=torch.Generator().manual_seed(0)).tolist()
        return ((x[i], int(y[i])) for i in order)


@pytest.mark.filterwarnings("ignore:Your `IterableDataset`")
def test_streams(tmp_path: Path) -> None:
    stream = DataLoader(Stream(), batch_size=8)
    callback = OnlineKNN(bank_size=40, num_queries=30, on_error="raise")
    run = trainer(tmp_path, callback, max_epochs=1)
    run.fit(labelled_module(), stream, stream)
    queries, bank = callback._parts or (None, None)
    assert queries is not None
    assert bank is not None
    assert (len(queries.positions), len(bank.positions)) == (30, 40)
    assert float(run.callback_metrics["knn/accuracy_pixels"]) > 0.6


def test_datasets_too_large_to_keep_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for limit in (2**29, 0):
        monkeypatch.setattr("jepa_monitor.probe.shards.KEPT_BYTES", limit)
        run = trainer(tmp_path, *evaluations())
        run.fit(labelled_module(), dicts(60, augment=True), tuples(30, seed=1))
        found.append(logged(run.callback_metrics))
    assert found[0] == found[1]


def test_classes_of_any_number_and_those_without_one() -> None:
    labels, truth = torch.tensor([700, -1, 3, 700]), torch.tensor([3, 5, 700, -1, 900])
    task = Task.of(torch.arange(5.0)[:, None], torch.arange(4.0)[:, None], labels, truth)
    assert task.labels.tolist() == [1, 0, 1]
    assert task.bank.flatten().tolist() == [0.0, 2.0, 3.0]
    assert task.truth.tolist() == [0, -1, 1, -1]
    assert task.queries.flatten().tolist() == [0.0, 1.0, 2.0, 4.0]
    assert task.accuracy(torch.tensor([0, 0, 1, 1])) == 0.5


def test_positions_are_distinct_and_fixed() -> None:
    first = choose(100, 30)
    assert len(set(first.tolist())) == 30
    assert torch.equal(first, choose(100, 30))
    assert set(first.tolist()).isdisjoint(choose(100, 50, after=30).tolist())
    assert choose(10, 30).tolist() == list(range(10))


def test_encoders_by_name() -> None:
    module, x = labelled_module().eval(), images(3)

    def names(encoder: Any, of: nn.Module = module) -> list[str]:
        return list(resolve_encoders(of, encoder, "auto"))

    assert names(None) == ["features", "embedding"]
    assert names(None, Autoencoder()) == ["features"]
    named = {"z": "forward", "early": "encoder", "method": "features", "mine": lambda m, x: m(x)}
    all_of_them = resolve_encoders(module, named, "auto")
    assert list(all_of_them) == ["z", "early", "method", "mine"]
    expected = {"z": module(x), "early": module.encoder(x), "method": module.features(x), "mine": module(x)}
    for name, (encode, _) in all_of_them.items():
        torch.testing.assert_close(encode(x), expected[name])
    assert [text for _, text in all_of_them.values()][:3] == ["forward", "encoder (Sequential)", "features"]
    with pytest.raises(ValueError, match="no submodule 'nowhere'"):
        names("nowhere")
    with pytest.raises(ValueError, match="empty mapping"):
        names({})


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.expand(-1, 3, -1, -1))  # (B, 3, 4, 5)


def test_a_submodule_by_name_says_where_its_channels_are() -> None:
    module = nn.Module()
    module.encoder = ChannelsLast()
    ((encode, _),) = resolve_encoders(module, "encoder", "auto").values()
    torch.testing.assert_close(encode(images(3)), module.encoder(images(3)).mean((1, 2)))


def test_the_log_says_once_what_is_measured(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lidar_of = LiDAR(num_samples=8, views=2)
    with caplog.at_level("INFO"):
        trainer(tmp_path, lidar_of, max_epochs=2).fit(Autoencoder(), loader(), loader(seed=1))
    told = [record.message for record in caplog.records if "LiDAR measures" in record.message]
    assert told == ["LiDAR measures features: encoder (Sequential, because 'encoder' is in its name)."]


def test_pixels_are_probed_in_their_principal_components(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jepa_monitor.evaluation.accuracies.COMPONENTS", 1)
    run = trainer(tmp_path, OnlineLinearProbe(on_error="raise"), max_epochs=1)
    run.fit(labelled_module(), tuples(60), tuples(60, seed=1))
    (bank, labels), (queries, truth) = classes(60), classes(60, seed=1)
    few = principal(queries.flatten(1), bank.flatten(1), components=1)
    expected = (LinearProbe.fit(few[1], labels).predict(few[0]) == truth).double().mean()
    found = float(run.callback_metrics["linear_probe/accuracy_pixels"])
    assert found == pytest.approx(float(expected))
    whole = LinearProbe.fit(bank.flatten(1), labels).predict(queries.flatten(1))
    assert found != pytest.approx(float((whole == truth).double().mean()))


def test_a_further_encoder_has_a_tag_of_its_name(tmp_path: Path) -> None:
    run = trainer(tmp_path, OnlineKNN(encoder={"z": "forward", "early": "encoder"}, whiten=False, pixels=False))
    run.fit(Labelled(), tuples(48), tuples(24, seed=1))
    assert set(logged(run.callback_metrics)) == {"knn/accuracy", "knn/accuracy_early"}


def test_half_precision_weights(tmp_path: Path) -> None:
    statistics, knn = FeatureStatistics(on_error="raise"), OnlineKNN(on_error="raise")
    run = trainer(tmp_path, statistics, knn, precision="bf16-true", max_epochs=1)
    run.fit(labelled_module(), tuples(48), tuples(24, seed=1))
    assert math.isfinite(knn.values["knn/accuracy"])
    assert math.isfinite(statistics.values["features/rank_ratio"])


def test_inputs_that_are_no_images_need_views_of_their_own(tmp_path: Path) -> None:
    flat = DataLoader(TensorDataset(images(40).flatten(1)), batch_size=8)
    with pytest.warns(UserWarning, match="pass view="):
        trainer(tmp_path, LiDAR(), max_epochs=1).fit(Autoencoder(), flat, flat)

    def jitter(x: Tensor, generator: torch.Generator) -> Tensor:
        return x + 0.1 * torch.randn(x.shape, generator=generator)

    callback = LiDAR(view=jitter, on_error="raise")
    trainer(tmp_path, callback, max_epochs=1).fit(Autoencoder(), flat, flat)
    assert 1.0 < callback.values["features/lidar"] <= 12.0


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
        (lambda: OnlineKNN(encoder={"z": None, "pixels": "encoder"}), "cannot be called pixels"),
        (lambda: OnlineLinearProbe(ridge=0.0), "ridge must be positive"),
        (lambda: LiDAR(views=1), "views must be a whole number of at least 2"),
    ],
)
def test_settings_are_checked(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
