"""The monitor within a budget: which samples it takes, how often, and by which estimator."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from jepa_monitor import JEPAScoreMonitor
from jepa_monitor.ranking import spearman
from tests.monitor.helpers import Autoencoder, images, loader, monitor, trainer

pytestmark = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")


def slowed(module: nn.Module, x: Tensor, *, seconds: float = 4e-3) -> Tensor:
    time.sleep(seconds * len(x))
    return module(x)


@pytest.mark.slow
def test_a_budget_is_decided_once_and_a_resumed_run_keeps_to_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def limited(encoder: Callable[[nn.Module, Tensor], Tensor]) -> JEPAScoreMonitor:
        return monitor(encoder=encoder, probe=images(200, seed=1), reference=images(), ood={}, budget=0.05)

    first = limited(slowed)
    run, path = trainer(tmp_path, first, max_epochs=6), tmp_path / "last.ckpt"
    run.fit(Autoencoder(), loader(), loader(seed=1))
    run.save_checkpoint(path)
    (samples,) = set(first.history.values["monitor/samples"])  # the same at each measurement
    assert 16.0 <= samples < 200.0
    assert first.readings is not None
    assert len(first.readings.z) == 200  # embeddings are of all of them
    assert first.history.steps[0] == 0
    assert first.history.steps[-1] == 36
    assert f"uses exact Jacobians of {samples:.0f} samples at each measurement" in caplog.text
    assert caplog.text.count("at each measurement") == 1
    resumed = limited(lambda module, x: module(x))  # now there would be time for all of them
    again = trainer(tmp_path, resumed, max_epochs=8)
    again.fit(Autoencoder(), loader(), loader(seed=1), ckpt_path=path)
    assert resumed.history.steps[-1] == 48
    assert set(resumed.history.values["monitor/samples"]) == {samples}
    assert set(resumed.history.values["monitor/subspace_rows"]) == {0.0}
    assert resumed.history.followed == first.history.followed
    assert all(torch.isfinite(row).all() for row in resumed.history.percentiles.values())
    assert resumed.seconds_spent > first.seconds_spent
    again.validate(Autoencoder(), loader(seed=1), verbose=False)
    assert resumed.values["monitor/samples"] == samples  # so that its values can be compared with those of the run


@pytest.mark.slow
def test_samples_that_were_asked_for_are_measured_less_often_rather_than_fewer(tmp_path: Path) -> None:
    callback = monitor(encoder=slowed, probe=images(100, seed=1), reference=images(), num_samples=100, budget=1e-6)
    trainer(tmp_path, callback, max_epochs=20).fit(Autoencoder(), loader(), loader(seed=1))
    assert set(callback.history.values["monitor/samples"]) == {100.0}
    assert callback.history.steps[0] == 0
    assert callback.history.steps[-1] == 120
    assert len(callback.history.steps) < 10


@pytest.mark.slow
def test_a_set_that_does_not_fit_in_the_budget_costs_its_own_values(tmp_path: Path) -> None:
    sets = {str(index): 3.0 * images(40, seed=index) for index in range(4)}
    slow = partial(slowed, seconds=0.01)
    callback = monitor(encoder=slow, probe=images(40, seed=1), reference=images(), ood=sets, budget=0.05)
    with pytest.warns(UserWarning, match="no time for Jacobians of the ood sets .*'3', which are ranked by their"):
        trainer(tmp_path, callback, max_epochs=1).fit(Autoencoder(), loader(), loader(seed=1))
    values = callback.values
    assert math.isnan(values["density/ood_auroc/3"])
    assert math.isnan(values["density/ood_fpr95_ood_positive/3"])
    assert {"density/spearman", "density/ood_auroc_embedding/3", "density/ood_auroc_knn/3"} <= values.keys()
    assert values["density/ood_auroc_embedding/3"] > 0.7
    assert math.isfinite(values["density/spearman"])
    assert values["monitor/failed"] == 0.0


def test_a_subspace_that_cannot_be_calibrated_is_not_replaced(tmp_path: Path) -> None:
    probe = images(64, seed=1)
    probe[:41] = torch.nan
    callback = monitor(encoder="encoder", estimator="subspace", probe=probe, reference=images(64), rank=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (values,) = trainer(tmp_path, callback).validate(Autoencoder(), loader(), verbose=False)
    assert values["monitor/samples"] == 64.0
    assert values["monitor/subspace_rows"] == 6.0
    assert math.isnan(values["density/spearman"])
    assert math.isnan(values["scores/subspace_spearman"])
    assert values["jacobian/nonfinite_fraction"] == pytest.approx(41 / 48)


@pytest.mark.slow
def test_a_subspace_ranks_as_exact_jacobians_do(tmp_path: Path) -> None:
    pl.seed_everything(0, verbose=False)
    module = Autoencoder()
    module.encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 32), nn.Tanh())
    probe = images(256, seed=1)
    scores = {}
    for estimator in ("exact", "subspace"):
        callback = monitor(encoder="encoder", estimator=estimator, probe=probe, reference=images(64), rank=8)
        trainer(tmp_path, callback).validate(module, loader(), verbose=False)
        assert callback.readings is not None
        scores[estimator] = callback.readings.scores
    assert callback.values["monitor/subspace_rows"] == 12.0
    assert callback.values["scores/subspace_spearman"] > 0.9
    assert spearman(scores["exact"].log_density, scores["subspace"].log_density) > 0.99
    torch.testing.assert_close(scores["exact"].jepa_score[:48], scores["subspace"].jepa_score[:48])
    assert torch.isnan(scores["subspace"].jepa_score[48:]).all()
