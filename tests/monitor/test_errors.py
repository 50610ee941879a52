"""A setting that can never work is an error before anything is trained; tags that cannot exist are not logged."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from jepa_monitor import FeatureStatistics, JEPAScoreMonitor, LiDAR, OnlineKNN, OnlineLinearProbe, SettingError
from jepa_monitor.tags import TAGS, meaning_of
from tests.monitor.evaluation.helpers import classes, dicts, labelled_module, tuples
from tests.monitor.helpers import Autoencoder, Memory, images, loader, trainer, true_log_density

pytestmark = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")
KINDS = (JEPAScoreMonitor, OnlineKNN, OnlineLinearProbe, LiDAR, FeatureStatistics)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "backbonne"}, "has no submodule 'backbonne'; its submodules are: bottleneck"),
        ({"images": "picture"}, "a sample of the probe has no images='picture'; it has 'image', 'label'"),
    ],
)
@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_a_name_that_does_not_exist(
    tmp_path: Path, kind: Any, settings: dict[str, Any], message: str, stage: str
) -> None:
    run = trainer(tmp_path, kind(**settings), num_sanity_val_steps=0)
    loaders = (dicts(24), dicts(24, seed=1)) if stage == "fit" else (dicts(24),)
    with pytest.raises(SettingError, match=message):
        getattr(run, stage)(labelled_module(), *loaders)
    assert run.global_step == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: JEPAScoreMonitor(labels="class_name"),
        lambda: JEPAScoreMonitor(preprocess="embeddings"),
        lambda: OnlineKNN(labels="class_name"),
        lambda: OnlineLinearProbe(encoder={"z": "encoder", "y": "projector"}),
        lambda: OnlineKNN(encoder={}),
        lambda: JEPAScoreMonitor(ood={1: images(9), "1": images(9)}),
    ],
)
def test_other_names_that_do_not_exist(tmp_path: Path, make: Any) -> None:
    run = trainer(tmp_path, make())
    with pytest.raises(SettingError):
        run.fit(labelled_module(), dicts(24), dicts(24, seed=1))
    assert run.global_step == 0


NO_SUCH: dict[str, tuple[Any, str]] = {
    "encoder": (3, "encoder must be the path of a submodule, a function .* or None, got 3"),
    "preprocess": (3, "preprocess must be a function, the path of a submodule or None, got 3"),
    "probe": (3, "int has no length or no access by index"),
    "ood": ([images(9)], "ood must be a mapping from names to data, got a list"),
    "log_density": ("abc", "log_density must be a function of inputs, or a tensor of one number for each"),
}


@pytest.mark.parametrize(
    ("kind", "setting", "value", "message"),
    [
        *((JEPAScoreMonitor, setting, *wrong) for setting, wrong in NO_SUCH.items()),
        *((kind, setting, *NO_SUCH[setting]) for kind in KINDS[1:] for setting in ("encoder", "probe")),
        (OnlineKNN, "encoder", {"z": "encoder", "y": 3}, "encoder must be the path of a submodule"),
        (JEPAScoreMonitor, "log_density", {"a": 3}, "log_density must be a function of inputs"),
        (
            JEPAScoreMonitor,
            "log_density",
            dict.fromkeys(("a", "gaussian"), true_log_density),
            "log_density cannot have the name 'gaussian', because a tag has it",
        ),
    ],
)
def test_a_value_of_the_wrong_kind(tmp_path: Path, kind: Any, setting: str, value: Any, message: str) -> None:
    run = trainer(tmp_path, kind(**{setting: value}))
    with pytest.raises(SettingError, match=message):
        run.fit(labelled_module(), tuples(24), tuples(24, seed=1))
    assert run.global_step == 0


class Unusual(pl.LightningModule):
    """Neither a forward nor a submodule that is named like an encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Autoencoder()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_a_module_in_which_nothing_can_be_called(tmp_path: Path, kind: Any) -> None:
    message = r"Unusual has no forward and no submodule with a usual name: pass encoder=, .* submodule \(stem\)"
    with pytest.raises(SettingError, match=message):
        trainer(tmp_path, kind()).validate(Unusual(), tuples(24), verbose=False)


def test_features_of_a_module_without_forward_are_measured(tmp_path: Path) -> None:
    class OnlyFeatures(Unusual):
        def features(self, x: Tensor) -> Tensor:
            return torch.as_tensor(self.stem(x))

    callback = OnlineKNN(reference=tuples(24), on_error="raise")
    (values,) = trainer(tmp_path, callback).validate(OnlyFeatures(), tuples(24, seed=1), verbose=False)
    assert math.isfinite(values["knn/accuracy"])
    assert "knn/accuracy_embedding" not in values


@pytest.mark.parametrize("kind", KINDS)
def test_a_pooling_that_does_not_exist(kind: Any) -> None:
    with pytest.raises(SettingError, match="pool must be auto, mean, cls, flatten or a function, got 'max'"):
        kind(pool="max")


def test_tags_that_cannot_exist_are_not_logged_by_a_failure(tmp_path: Path) -> None:
    def breaks(module: Any, x: Tensor) -> Tensor:
        raise RuntimeError("a bad day")

    logged: dict[bool, set[str]] = {}
    for known in (False, True):
        logger = Metrics()
        truth = {"log_density": lambda x: -x.flatten(1).square().sum(1)} if known else {}
        callback = JEPAScoreMonitor(encoder=breaks, ood={"far": images(9)}, **truth)
        with pytest.warns(UserWarning, match="a bad day"):
            trainer(tmp_path, callback, logger=logger, max_epochs=1).fit(Autoencoder(), loader(), loader(seed=1))
        logged[known] = logger.tags
    truth_tags = {row.name for row in TAGS if row.needs == "a truth"}
    assert logged[True] - logged[False] == truth_tags
    assert not {"density/stability", "scores/subspace_spearman"} & logged[True]
    assert {"density/ood_auroc/far", "gaussianity/sliced_ep_ratio", "scores/knn_spearman"} <= logged[False]


def test_accuracies_of_all_encoders_can_be_followed_after_a_failure(tmp_path: Path) -> None:
    def breaks(module: Any, x: Tensor) -> Tensor:
        raise RuntimeError("a bad day")

    best = ModelCheckpoint(tmp_path, monitor="knn/accuracy_early", mode="max")
    callback = OnlineKNN(encoder={"z": breaks, "early": "encoder"})
    with pytest.warns(UserWarning, match="a bad day"):
        trainer(tmp_path, callback, best, enable_checkpointing=True).fit(labelled_module(), tuples(24), tuples(24))
    assert set(callback.values) == {"knn/accuracy", "knn/accuracy_unwhitened", "knn/accuracy_early"}


class Metrics(Memory):
    """Tags that were logged."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.tags |= {tag for tag in metrics if "/" in tag and not tag.startswith("reference/")}


@pytest.mark.parametrize(
    ("callback", "tag", "wanted"),
    [
        (JEPAScoreMonitor(encoder="encoder", name="mine"), "mine/gaussianity/effective_rank_ratio", "max"),
        (JEPAScoreMonitor(encoder="encoder"), "gaussianity/sliced_ep_ratio", "min"),
        (OnlineKNN(), "knn/accuracy", "max"),
        (FeatureStatistics(), "features/rank_ratio", "max"),
    ],
)
@pytest.mark.parametrize("kind", [ModelCheckpoint, EarlyStopping])
def test_a_callback_that_follows_the_wrong_way_is_warned_of(
    tmp_path: Path, callback: pl.Callback, tag: str, wanted: str, kind: Any
) -> None:
    others = [LiDAR(), OnlineLinearProbe()]
    for mode in ("min", "max"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            follower = kind(monitor=tag, mode=mode)
            run = trainer(tmp_path, callback, *others, follower, max_epochs=1, enable_checkpointing=True)
            run.fit(labelled_module(), tuples(24), tuples(24, seed=1))
        warned = [str(warning.message) for warning in caught if "is better, so pass" in str(warning.message)]
        assert len(warned) == (mode != wanted)
        assert all(f"{kind.__name__} follows {tag} with mode={mode!r}" in text for text in warned)


def test_each_tag_says_which_way_is_better() -> None:
    assert {row.better for row in TAGS} == {"higher", "lower", "near 0", "near 1", "-"}
    for tag in ("density/spearman", "knn/accuracy_embedding", "features/lidar", "density/ood_auroc/mnist"):
        row = meaning_of(tag)
        assert row is not None
        assert row.better == "higher", tag
    assert meaning_of("val_loss") is None


@pytest.mark.parametrize("callback", [JEPAScoreMonitor(encoder="encoder"), *(kind() for kind in KINDS[1:])])
def test_the_first_of_several_validation_loaders_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, callback: pl.Callback
) -> None:
    class Several(type(labelled_module())):  # type: ignore[misc]  # a class that is found at run time
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            pass

    loaders = [tuples(24, seed=1), tuples(16, seed=2)]
    trainer(tmp_path, callback).fit(Several(), tuples(24), loaders)
    assert caplog.text.count("measures the first of 2 validation loaders: pass probe= for another.") == 1


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (lambda labels: labels.double(), None),
        (lambda labels: torch.nn.functional.one_hot(labels, 3), None),
        (lambda labels: labels + 0.5, "are no classes"),
        (lambda labels: torch.arange(len(labels)), "labels are all different, of 24 samples of the probe and of 48"),
    ],
    ids=["floats", "one-hot", "fractions", "numbers of samples"],
)
def test_labels_of_any_type(tmp_path: Path, label: Any, expected: str | None) -> None:
    def data(count: int, seed: int) -> DataLoader[Any]:
        x, labels = classes(count, seed)
        return DataLoader(TensorDataset(x, label(labels)), batch_size=8)

    values = {}
    for name, loaders in {"own": (data(48, 0), data(24, 1)), "integers": (tuples(48), tuples(24, seed=1))}.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run = trainer(tmp_path, OnlineKNN(), max_epochs=1)
            run.fit(labelled_module(), *loaders)
        values[name] = float(run.callback_metrics.get("knn/accuracy", math.nan))
        warned = [str(warning.message) for warning in caught if "OnlineKNN" in str(warning.message)]
        if name == "own" and expected is not None:
            assert math.isnan(values["own"])
            assert len(warned) == 1
            assert expected in warned[0]
        else:
            assert not warned
            assert math.isfinite(values[name])
    if expected is None:
        assert values["own"] == values["integers"]
