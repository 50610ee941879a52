"""A set that a measurement can do without costs its own values, with one warning that names it."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.utils.data import Dataset

from jepa_monitor import SettingError
from jepa_monitor.ranking import auroc
from jepa_monitor.runtime.distributed import MeasurementError
from jepa_monitor.tag_groups import set_tags
from tests.monitor.helpers import Autoencoder, Memory, images, loader, monitor, trainer, true_log_density

pytestmark = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")
OF_SET = tuple(beginning.removesuffix("far") for beginning in set_tags("far"))


class OneUnreadable(Dataset[Tensor]):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        if index == 7:
            raise OSError("broken data stream when reading image file")
        return images(12)[index]


UNFIT: dict[str, Any] = {
    "other channels": images(12).expand(-1, 3, -1, -1),
    "other size": torch.randn(12, 1, 5, 5),
    "integers": torch.randint(255, (12, 1, 4, 4)),
    "integers beside floats": [torch.zeros(1, 4, 4, dtype=torch.long), torch.zeros(1, 5, 4)],
    "of several sizes": [torch.randn(1, 4, 4), torch.randn(1, 5, 5)],
    "one unreadable sample": OneUnreadable(),
    "empty": torch.zeros(0, 1, 4, 4),
    "without images": [{"label": 3}],
    "no data": 3,
}


def measured(tmp_path: Path, **settings: Any) -> tuple[dict[str, list[float]], dict[str, float], list[str]]:
    """History, the logger's last values, and warnings, of two epochs."""
    callback, logger = monitor(**({"reference": images(), "on_error": "warn"} | settings)), Memory()
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, callback, logger=logger).fit(Autoencoder(), loader(), loader(seed=1))
    warned = [str(warning.message) for warning in caught if "JEPAScoreMonitor" in str(warning.message)]
    return callback.history.values, logger.written[-1][1], warned


@pytest.mark.parametrize("estimator", ["exact", "subspace"])
@pytest.mark.parametrize("unfit", UNFIT)
def test_a_set_that_does_not_fit_costs_its_own_values(tmp_path: Path, unfit: str, estimator: str) -> None:
    fits = {"far": 3.0 * images(20, seed=5)}
    settings = {"estimator": estimator, "encoder": "encoder"}
    expected, _, _ = measured(tmp_path, ood=fits, **settings)
    found, logged, warned = measured(tmp_path, ood=fits | {"svhn": UNFIT[unfit]}, **settings)
    (sentence,) = [text for text in warned if "svhn" in text]
    assert "the ood set 'svhn' is left out: " in sentence
    assert found["monitor/failed"] == [0.0, 0.0, 0.0]
    compared = [tag for tag in expected if not tag.startswith("monitor/")]
    assert len(compared) > 20
    for tag in compared:
        np.testing.assert_array_equal(found[tag], expected[tag], err_msg=tag)
    assert all(math.isnan(logged[f"{tag}svhn"]) for tag in OF_SET)


def test_names_of_sets_may_be_of_any_type(tmp_path: Path) -> None:
    found, _, _ = measured(tmp_path, ood={"far": 3.0 * images(20, seed=5), 1: images(9, seed=6)})
    assert all(math.isfinite(value) for name in ("far", "1") for value in found[f"density/ood_auroc/{name}"])
    with pytest.raises(ValueError, match="two of the ood sets have the same name"):
        measured(tmp_path, ood={"1": images(20), 1: images(9)}, on_error="raise")


@pytest.mark.parametrize("name", ["", "probe"])
def test_a_set_cannot_have_the_name_of_the_probe(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingError, match=f"an ood set cannot have the name '{name}'"):
        measured(tmp_path, ood={name: images(20), "far": images(9)})


@pytest.mark.parametrize("broken", [slice(None), slice(3, 5)], ids=["all", "two"])
def test_a_set_that_is_not_finite_is_named_once(tmp_path: Path, broken: slice) -> None:
    far = images(20, seed=5)
    far[broken] = math.nan
    found, _, warned = measured(tmp_path, ood={"far": far, "near": images(9)})
    count = int(far.isnan().flatten(1).all(1).sum())
    title = "JEPAScoreMonitor: the ood set 'far' cannot be ranked:"
    assert [text for text in warned if "ood set" in text] == [f"{title} {count} of 20 scores are not finite."]
    assert all(math.isnan(value) for tag in OF_SET for value in found[f"{tag}far"])
    assert all(math.isfinite(value) for tag in OF_SET for value in found[f"{tag}near"])


def test_a_set_of_one_sample_is_measured(tmp_path: Path) -> None:
    callback = monitor(ood={"one": 3.0 * images(1, seed=5)}, reference=images())
    (values,) = trainer(tmp_path, callback).validate(Autoencoder(), loader(seed=1), verbose=False)
    assert callback.readings is not None
    density, other = callback.readings.scores.log_density, callback.readings.ood["one"].log_density
    outranked = (density > other).double().mean()
    assert values["density/ood_auroc/one"] == pytest.approx(float(outranked)) == pytest.approx(auroc(density, other))


def test_a_set_that_fails_later_keeps_its_last_value_for_followers(tmp_path: Path) -> None:
    def encode(module: Any, x: Tensor) -> Tensor:
        if module.global_step == 12 and x.shape[-1] == 8:
            raise RuntimeError("out of memory")
        return module(x[..., :4, :4])

    callback = monitor(encoder=encode, ood={"far": torch.randn(20, 1, 8, 8)}, on_error="warn")
    run = trainer(tmp_path, callback)
    with pytest.warns(UserWarning, match="the ood set 'far' is left out: RuntimeError: out of memory"):
        run.fit(Autoencoder(), loader(), loader(seed=1))
    _, second, third = callback.history.values["density/ood_auroc/far"]
    assert math.isfinite(second)
    assert math.isnan(third)
    assert float(run.callback_metrics["density/ood_auroc/far"]) == pytest.approx(second)


def test_who_wants_an_error_gets_one_that_names_the_set(tmp_path: Path) -> None:
    callback = monitor(ood={"svhn": UNFIT["other channels"]})
    with pytest.raises(MeasurementError, match="the ood set 'svhn': RuntimeError"):
        trainer(tmp_path, callback).fit(Autoencoder(), loader(), loader(seed=1))


def fails(*arguments: Any) -> Any:
    raise RuntimeError("not today")


@pytest.mark.parametrize(
    ("settings", "part", "absent"),
    [
        ({"log_density": lambda x: x.flatten(1)}, "log_density 'truth'", "density/spearman"),
        ({"log_density": fails}, "log_density 'truth'", "density/spearman"),
        ({"log_density": {"a": fails, "b": true_log_density}}, "log_density 'a'", "density/spearman"),
        ({"reference": torch.randn(20, 1, 5, 5)}, "the reference", "scores/knn_spearman"),
        ({"labels": fails}, "the class labels", None),
    ],
)
def test_so_does_all_else_that_is_not_the_probe(
    tmp_path: Path, settings: dict[str, Any], part: str, absent: str | None
) -> None:
    found, logged, warned = measured(tmp_path, **settings)
    (sentence,) = [text for text in warned if "is left out" in text]
    assert f"{part} is left out: " in sentence
    assert found["monitor/failed"] == [0.0, 0.0, 0.0]
    assert all(math.isfinite(value) for value in found["scores/log_density_median"])
    if absent is not None:
        assert math.isnan(logged.get(absent, math.nan))
    if "'a'" in part:
        assert math.isfinite(logged["density/spearman_b"])


def test_a_truth_of_the_wrong_shape_is_described_in_numbers_of_inputs(tmp_path: Path) -> None:
    _, _, warned = measured(tmp_path, log_density=lambda x: true_log_density(x)[:, None])
    assert any("one number for each of 48 inputs, of shape (48,), and gave (48, 1)" in text for text in warned)


def by_scipy(x: Tensor) -> Any:
    return stats.multivariate_normal(np.zeros(16)).logpdf(x.flatten(1))


@pytest.mark.parametrize(
    "truth",
    [
        by_scipy,
        lambda x: by_scipy(x).tolist(),
        lambda x: by_scipy(x)[::-1][::-1],
        lambda x: list(torch.from_numpy(by_scipy(x))),
        lambda x: true_log_density(x).requires_grad_(),
    ],
    ids=["array", "list", "array with strides", "list of tensors", "with gradient"],
)
def test_a_truth_may_be_of_any_kind_of_numbers(tmp_path: Path, truth: Any) -> None:
    expected, _, _ = measured(tmp_path)
    found, _, warned = measured(tmp_path, log_density=truth)
    assert not warned
    for tag in ("density/spearman", "scores/kendall", "scores/auroc_low_density"):
        np.testing.assert_allclose(found[tag], expected[tag], rtol=1e-12)


def test_a_truth_by_sample_of_the_wrong_length_costs_its_own_values(tmp_path: Path) -> None:
    truths = {"short": torch.zeros(47), "right": torch.arange(48.0)}
    found, _, (sentence,) = measured(tmp_path, log_density=truths)
    assert "'short'" in sentence
    assert "one number for each of the dataset's 48 samples, of shape (48,), and has (47,)" in sentence
    assert math.isfinite(found["density/spearman_right"][-1])


@pytest.mark.parametrize("truth", [-3.5, None])
def test_a_truth_of_one_number_is_described_in_a_sentence(tmp_path: Path, truth: Any) -> None:
    _, _, warned = measured(tmp_path, log_density=lambda x: truth)
    (sentence,) = warned
    assert "one number for each of 48 inputs, of shape (48,), and gave ()." in sentence
