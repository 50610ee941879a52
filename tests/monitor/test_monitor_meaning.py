"""Values of the monitor that have no meaning are NaN with a reason, or absent."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from jepa_monitor import JEPAScoreMonitor, jepa_score
from tests.monitor.helpers import Autoencoder, images, loader, monitor, trainer

pytestmark = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")


def test_without_truth_there_is_no_truth_tag(tmp_path: Path) -> None:
    run = trainer(tmp_path, JEPAScoreMonitor(encoder="encoder"))
    run.fit(Autoencoder(), loader(), loader(seed=1))
    assert "density/spearman" not in run.callback_metrics
    assert "scores/complexity_spearman" in run.callback_metrics


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.0 * x.flatten(1)[:, :3]


@pytest.mark.parametrize(
    ("settings", "data", "why"),
    [
        (
            {"encoder": lambda module, x: Constant()(x), "reference": images()},
            images(),
            "there is no log density: all embeddings are equal: the encoder has collapsed to a point",
        ),
        ({"num_samples": 8}, images(9), "8 different finite embeddings cannot give the intrinsic dimension"),
        ({"num_samples": 8}, images(9), "; to measure more than 8 samples, raise num_samples"),
        ({"num_samples": 1}, images(1), "at least 2 finite embeddings, got 1 of 1"),
        ({"reference": images()}, torch.full((9, 1, 4, 4), torch.nan), "log density cannot be ranked: 9 of 9 values"),
        ({}, torch.ones(40, 1, 4, 4), "all embeddings are equal"),
    ],
    ids=["collapsed encoder", "few samples", "small num_samples", "one image", "NaN images", "constant images"],
)
def test_without_meaning_it_is_nan_with_a_reason(
    tmp_path: Path, settings: dict[str, Any], data: Tensor, why: str
) -> None:
    callback = monitor(probe=data, **settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (values,) = trainer(tmp_path, callback).validate(Autoencoder(), loader(), verbose=False)
    assert any(why in str(warning.message) for warning in caught)
    assert math.isnan(values["density/spearman"])
    assert math.isnan(values["scores/log_density_median"])


def test_a_collapse_has_no_dimension_and_no_rank(tmp_path: Path) -> None:
    callback = monitor(encoder=lambda module, x: Constant()(x), reference=images())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (values,) = trainer(tmp_path, callback).validate(Autoencoder(), loader(), verbose=False)
    for tag in ("jacobian/intrinsic_dimension", "jacobian/intrinsic_dimension_low", "jacobian/rank"):
        assert math.isnan(values[tag]), tag
    assert sum("collapsed to a point" in str(warning.message) for warning in caught) == 1


class Steep(pl.LightningModule):
    """A map of 16 inputs to 8 coordinates, with singular values over six decades."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        frames = [torch.linalg.qr(torch.randn(size, 8, generator=generator)).Q for size in (8, 16)]
        self.weight = nn.Parameter(frames[0] @ torch.logspace(1.0, -5.4, 8).diag() @ frames[1].T)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).tanh() @ self.weight.T

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass


def test_rounding_is_warned_of_as_by_the_score_itself(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="48 of 48 scores may be off by more than 0.1 nats"):
        jepa_score(Steep(), images())
    with pytest.warns(UserWarning, match="JEPA-SCORE of some samples .* may be off by more than 0.1 nats"):
        (values,) = trainer(tmp_path, monitor()).validate(Steep(), loader(), verbose=False)
    assert values["jacobian/imprecise_fraction"] == 1.0
    (values,) = trainer(tmp_path, monitor()).validate(Steep().double(), loader(), verbose=False)  # and no warning
    assert values["jacobian/imprecise_fraction"] == 0.0


@pytest.mark.parametrize("has_reference", [True, False])
def test_a_probe_that_is_too_small_has_a_density_by_the_reference_or_names_what_to_change(
    tmp_path: Path, has_reference: bool
) -> None:
    class Few(pl.LightningDataModule):
        probe_advice = "raise --data.share"

        def probe_dataset(self) -> Any:
            return TensorDataset(images(10, seed=1))

        def reference_dataset(self) -> Any:
            return TensorDataset(images(80)) if has_reference else None

        def val_dataloader(self) -> Any:
            return loader()

    callback = monitor(encoder="encoder")
    reason = "use at least 12; to measure more than 10 samples, raise --data.share"
    # what features know of inputs no reference replaces
    with pytest.warns(UserWarning, match="keep is NaN: 10 samples are fewer than 16" if has_reference else reason):
        (values,) = trainer(tmp_path, callback).validate(Autoencoder(), datamodule=Few(), verbose=False)
    assert math.isfinite(values["density/spearman"]) == has_reference


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
    assert math.isfinite(values["scores/jepa_score_median"])
    assert math.isfinite(values["gaussianity/sliced_ep_ratio"])


def test_a_constant_reference_costs_only_its_baseline(tmp_path: Path) -> None:
    callback = monitor(probe=images(20), reference=torch.ones(9, 1, 4, 4))
    with pytest.warns(UserWarning, match="does not compute density/spearman_gaussian"):
        (values,) = trainer(tmp_path, callback).validate(Autoencoder(), loader(), verbose=False)
    assert "density/spearman_gaussian" not in values
    assert math.isfinite(values["density/spearman"])
