"""The metric classes: one call, many batches and several processes give the same values."""

from __future__ import annotations

import math
import pickle
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Metric, MetricCollection
from torchmetrics.functional.classification import binary_auroc

from jepa_monitor.ranking import DensityRanking, OODDetection, auroc, auroc_low_density, concordance, slope
from tests.monitor.ranking.helpers import THREE, measure_shards, plain, samples
from tests.processes import run_on

RANKING = {"spearman", "kendall", "concordance", "auroc_low_density", "slope"}
DETECTION = {"auroc", "aupr_in", "aupr_out", "fpr95_id_positive", "fpr95_ood_positive"}


def updated(metric: Metric, *values: Tensor, size: int = 7) -> Metric:
    for batch in zip(*(value.split(size) for value in values), strict=True):
        metric.update(*batch)
    return metric


def test_density_ranking_is_its_oracles() -> None:
    scores, truth, _ = samples()
    s, t = scores.numpy(), truth.numpy()
    values = plain(updated(DensityRanking(), scores, truth))
    assert values["spearman"] == pytest.approx(stats.spearmanr(s, t).statistic, abs=1e-12)
    assert values["kendall"] == pytest.approx(stats.kendalltau(s, t).statistic, abs=1e-12)
    assert values["concordance"] == concordance(s, t)
    assert values["auroc_low_density"] == pytest.approx(roc_auc_score(t > np.quantile(t, 0.1), s), abs=1e-12)
    assert values["slope"] == slope(s, t)
    assert values.keys() == RANKING


def test_ood_detection_is_scikit_learns() -> None:
    scores, _, is_ood = samples()
    s, out = scores.numpy(), is_ood.numpy()
    values = plain(updated(OODDetection(), scores, is_ood))
    assert values["auroc"] == pytest.approx(roc_auc_score(~out, s), abs=1e-12)
    for name, labels, ranked in (("in", ~out, s), ("out", out, -s)):
        assert values[f"aupr_{name}"] == pytest.approx(average_precision_score(labels, ranked), abs=1e-12)
    for name, labels, ranked in (("id", ~out, s), ("ood", out, -s)):
        fpr, tpr, _ = roc_curve(labels, ranked, drop_intermediate=False)
        assert values[f"fpr95_{name}_positive"] == pytest.approx(fpr[tpr >= 0.95].min(), abs=1e-12)
    assert values["fpr95_id_positive"] != values["fpr95_ood_positive"]
    assert values.keys() == DETECTION


@pytest.mark.slow
def test_processes_are_one_call_on_everything() -> None:
    scores, truth, is_ood = samples()
    expected = plain(updated(DensityRanking(), scores, truth)) | plain(updated(OODDetection(), scores, is_ood))
    processes = run_on(3, measure_shards)
    for global_rank, found in enumerate(processes):
        assert found["three"] == pytest.approx(expected, abs=1e-12)
        assert found["kept"] == THREE[global_rank + 1] - THREE[global_rank]  # its own again after compute
        assert all(math.isnan(value) for value in found["nothing"].values())
        assert "only 0 sample" in found["reason"]
    assert [global_rank for global_rank, found in enumerate(processes) if "two" in found] == [0, 1]
    for found in processes[:2]:
        assert found["two"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("cast", ["half", "float", "bfloat16", "to"])
def test_no_cast_costs_digits(cast: str) -> None:
    scores, truth, _ = samples()
    metric = updated(DensityRanking(), scores[:20], truth[:20])
    around = nn.ModuleList([metric])
    around.to(torch.float16) if cast == "to" else getattr(around, cast)()
    metric.set_dtype(torch.float32)
    updated(metric, scores[20:], truth[20:])
    assert metric.dtype == torch.float64
    assert plain(metric) == plain(updated(DensityRanking(), scores, truth))


def test_scores_stay_on_the_cpu_where_the_device_has_no_float64() -> None:
    metric = updated(OODDetection(), *samples()[::2])
    metric._apply(lambda _: SimpleNamespace(device=torch.device("mps")))
    assert metric.device == torch.device("cpu")


def test_torchmetrics_squashes_large_scores() -> None:
    is_ood = torch.arange(1000) % 2 == 0
    scores = 100.0 + 30.0 * torch.randn(1000) - 20.0 * is_ood
    truth = roc_auc_score(~is_ood.numpy(), scores.numpy())
    assert truth > 0.65
    assert float(binary_auroc(scores, (~is_ood).int())) < 0.55
    assert plain(updated(OODDetection(), scores, is_ood))["auroc"] == pytest.approx(truth, abs=1e-12)


SPOILT = [
    (torch.ones(9), torch.arange(9.0), "all values are equal (scores)"),
    (torch.arange(9.0), torch.ones(9), "all values are equal (truth)"),
    (torch.tensor([1.0, torch.nan, 2.0]), torch.arange(3.0), "1 of 3 values are not finite (scores)"),
    (torch.arange(3.0), torch.tensor([1.0, 0.0, torch.inf]), "1 of 3 values are not finite (truth)"),
    (torch.ones(1), torch.ones(1), "only 1 sample (scores)"),
]


@pytest.mark.parametrize(("scores", "truth", "reason"), SPOILT, ids=[reason for _, _, reason in SPOILT])
def test_density_ranking_without_meaning_is_nan_with_a_reason(scores: Tensor, truth: Tensor, reason: str) -> None:
    metric = updated(DensityRanking(), scores, truth)
    with pytest.warns(UserWarning, match="DensityRanking has values that are NaN") as caught:
        values = plain(metric)
    assert len(caught) == 1
    assert all(math.isnan(value) for value in values.values())
    assert metric.reason == reason
    metric.reset()
    assert metric.reason is None


def test_one_value_without_meaning_leaves_the_others() -> None:
    metric = updated(DensityRanking(), torch.randn(100), torch.arange(100.0).clamp_max(1.0))
    with pytest.warns(UserWarning, match="the lowest decile of truth is all samples"):
        values = plain(metric)
    assert [name for name, value in values.items() if math.isnan(value)] == ["auroc_low_density"]


@pytest.mark.parametrize(
    ("scores", "is_ood", "reason"),
    [
        (torch.ones(4), torch.tensor([0, 1, 0, 1]), "all values are equal"),
        (torch.tensor([0.0, 1.0, torch.inf]), torch.tensor([0, 1, 0]), "1 of 3 values are not finite"),
        (torch.arange(4.0), torch.zeros(4), "no sample is out of distribution"),
        (torch.arange(4.0), torch.ones(4).bool(), "no sample is in distribution"),
    ],
)
def test_ood_detection_without_meaning_is_nan_with_a_reason(scores: Tensor, is_ood: Tensor, reason: str) -> None:
    metric = updated(OODDetection(), scores, is_ood)
    with pytest.warns(UserWarning, match=reason) as caught:
        values = plain(metric)
    assert len(caught) == 1
    assert all(math.isnan(value) for value in values.values())
    assert metric.reason == reason


@pytest.mark.filterwarnings("ignore:The ``compute`` method")  # torchmetrics' own warning
@pytest.mark.parametrize("kind", [DensityRanking, OODDetection])
def test_before_the_first_batch_it_is_nan_with_a_reason(kind: type[DensityRanking] | type[OODDetection]) -> None:
    metric = kind()
    with pytest.warns(UserWarning, match="only 0 sample"):
        values = plain(metric)
    assert all(math.isnan(value) for value in values.values())
    assert "only 0 sample" in str(metric.reason)


def test_a_later_batch_gives_it_meaning() -> None:
    metric = updated(DensityRanking(), torch.ones(3), torch.arange(3.0))
    with pytest.warns(UserWarning, match="equal"):
        metric.compute()
    metric.update(torch.tensor([2.0]), torch.tensor([5.0]))
    assert math.isfinite(plain(metric)["spearman"])
    assert metric.reason is None


def test_wrong_shapes_are_one_sentence() -> None:
    for metric in (DensityRanking(), OODDetection()):
        for shapes in (((3,), (4,)), ((3, 1), (3, 1)), ((), ())):
            with pytest.raises(ValueError, match=r"must have one shape \(N,\), got"):
                metric.update(*(torch.zeros(shape) for shape in shapes))
    for wrong in (torch.tensor([0, 2]), torch.tensor([0.0, torch.nan])):
        with pytest.raises(ValueError, match="is_ood must be bool, or 0 and 1"):
            OODDetection().update(torch.zeros(2), wrong)


def test_a_buffer_may_be_filled_again() -> None:
    scores, truth, _ = samples()
    metric, buffer = DensityRanking(), torch.empty(20, dtype=torch.float64)
    for part in range(2):
        buffer.copy_(scores[20 * part : 20 * part + 20])
        metric.update(buffer, truth[20 * part : 20 * part + 20])
    assert plain(metric) == plain(updated(DensityRanking(), scores, truth))


def test_it_is_pickled_reset_and_called() -> None:
    scores, _, is_ood = samples()
    metric = updated(OODDetection(), scores, is_ood)
    again = pickle.loads(pickle.dumps(metric))
    assert plain(again) == plain(metric)
    again.reset()
    in_batches = [again(scores[at : at + 20], is_ood[at : at + 20]) for at in (0, 20)]
    assert float(in_batches[1]["auroc"]) == pytest.approx(auroc(scores[20:][~is_ood[20:]], scores[20:][is_ood[20:]]))
    assert plain(again) == plain(metric)


def test_both_work_in_a_collection() -> None:
    scores, truth, is_ood = samples()
    collection = MetricCollection([DensityRanking(), OODDetection()], prefix="test/")
    for at in (0, 20):
        collection.update(scores=scores[at:][:20], truth=truth[at:][:20], is_ood=is_ood[at:][:20])
    values = collection.compute()
    assert values.keys() == {f"test/{name}" for name in RANKING | DETECTION}
    assert float(values["test/auroc_low_density"]) == auroc_low_density(scores, truth)


class _Scorer(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.ranking = DensityRanking()

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        self.ranking.update(*batch)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.ranking.compute())
        self.ranking.reset()


def test_lightning_logs_it(tmp_path: Path) -> None:
    settings: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = pl.Trainer(accelerator="cpu", devices=1, default_root_dir=tmp_path, **settings)
    scores, truth, _ = samples()
    trainer.validate(_Scorer(), DataLoader(TensorDataset(scores, truth), batch_size=8), verbose=False)
    expected = plain(updated(DensityRanking(), scores, truth))
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_hundred_thousand_samples_take_seconds() -> None:
    scores, truth = torch.randn(2, 100_000).double()
    ranking, detection = updated(DensityRanking(), scores, truth), updated(OODDetection(), scores, truth > 0)
    started = time.process_time()
    values = plain(ranking) | plain(detection)
    assert time.process_time() - started < 5.0  # measured: 0.3
    assert all(math.isfinite(value) for value in values.values())
