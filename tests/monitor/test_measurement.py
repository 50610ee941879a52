"""Readings of one encoder against the functions that compute each of them alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from jepa_monitor import EmbeddingReference, jacobian_gram, jepa_score, log_density
from jepa_monitor.measurement import Method, read, try_out
from jepa_monitor.probe.facts import ProbeFacts
from jepa_monitor.probe.shards import Shard
from jepa_monitor.probe.sparing import Sparing
from jepa_monitor.ranking import knn_distance
from jepa_monitor.readings import Readings
from jepa_monitor.runtime.plan import Plan, sketch_rows


def shard(count: int, *, seed: int = 1, scale: float = 1.0) -> Shard:
    generator = torch.Generator().manual_seed(seed)
    spread = 1.0 + 2.0 * torch.rand(count, 1, generator=generator)
    return Shard(torch.arange(count), scale * spread * torch.randn(count, 96, generator=generator))


def encoder(size: int = 6) -> nn.Module:
    layers = nn.Linear(96, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, size)
    return nn.Sequential(*layers).double()


def method(encode: nn.Module, **settings: Any) -> Method:
    return Method(encode=encode, to_device=Tensor.double, device=torch.device("cpu"), **settings)


def measure(
    encode: nn.Module,
    probe: Shard,
    plan: Plan,
    *,
    reference: Shard | None = None,
    rank: int | None = None,
    sparing: Sparing | None = None,
    **ood: Shard,
) -> Readings:
    count = len(probe.indices)
    facts = ProbeFacts(truths={}, gaussian=None, complexity=torch.zeros(count), reference=reference)
    return read(
        method(encode, rank=rank),
        probe,
        facts=facts,
        ood=ood,
        num_samples=count,
        plan=plan,
        sparing=sparing or Sparing(raises=True),
    )


def test_exact_readings_are_what_the_functions_give() -> None:
    encode, probe, far, reference = encoder(), shard(40), shard(9, seed=2, scale=3.0), shard(30, seed=3)
    found = measure(encode, probe, Plan(25), reference=reference, far=far)
    x = probe.inputs.double()
    fitted = EmbeddingReference.fit(encode(x).detach(), gram=jacobian_gram(encode, x[:25]))
    assert found.rank == fitted.rank
    torch.testing.assert_close(found.z, encode(x))
    torch.testing.assert_close(found.z_white, fitted.whiten(encode(x)))
    torch.testing.assert_close(found.knn, knn_distance(encode(x), encode(reference.inputs.double())))
    assert found.log_singular.shape == (25, 6)
    assert found.log_singular_white is not None
    torch.testing.assert_close(found.log_singular_white.mean(0), fitted.mean_log_spectrum)
    for scores, inputs in ((found.scores, x[:25]), (found.ood["far"], far.inputs.double())):
        torch.testing.assert_close(scores.jepa_score, jepa_score(encode, inputs))
        torch.testing.assert_close(scores.log_density, log_density(encode, inputs, reference=fitted))


def test_a_given_rank_is_at_most_the_number_of_whitened_directions() -> None:
    encode, probe = encoder(), shard(40)
    assert measure(encode, probe, Plan(40), rank=2).rank == 2
    assert measure(encode, probe, Plan(40), rank=9).rank == 6


def test_sketched_readings_rank_as_the_exact_ones() -> None:
    encode, probe = encoder(64), shard(200)
    exact, sketched = (measure(encode, probe, Plan(200, sketch=sketch), rank=8) for sketch in (False, True))
    assert exact.sketch_rows == 0
    assert sketched.sketch_rows == sketch_rows(64)
    assert sketched.log_singular.shape == (48, 64)  # of the samples that calibrate the sketch
    assert sketched.sketch_spearman is not None
    assert sketched.sketch_spearman > 0.8
    assert stats.spearmanr(exact.scores.log_density, sketched.scores.log_density).statistic > 0.95
    assert stats.spearmanr(exact.scores.jepa_score, sketched.scores.jepa_score).statistic > 0.2  # 8 rows of 64


def test_a_sketch_without_finite_jacobians_scores_nothing() -> None:
    probe = shard(100)
    probe.inputs[:40] = torch.nan
    found = measure(encoder(64), probe, Plan(100, sketch=True), far=shard(80, seed=2))
    for scores, count in ((found.scores, 100), (found.ood["far"], 80)):
        assert scores.jepa_score.shape == scores.log_density.shape == (count,)
        assert not torch.isfinite(scores.jepa_score).any()
        assert not torch.isfinite(scores.log_density).any()


def test_a_small_probe_is_whitened_by_the_reference_or_not_at_all() -> None:
    encode, probe, reference = encoder(), shard(5), shard(50, seed=2)
    alone = measure(encode, probe, Plan(5))
    assert alone.problem is not None
    assert alone.z_white is alone.log_singular_white is None
    assert alone.rank == 0
    assert torch.isnan(alone.scores.log_density).all()
    torch.testing.assert_close(alone.scores.jepa_score, jepa_score(encode, probe.inputs.double()))
    beside = measure(encode, probe, Plan(5), reference=reference, rank=3)
    assert beside.problem is None
    assert beside.few is not None
    fitted = EmbeddingReference.fit(encode(reference.inputs.double()).detach())
    expected = log_density(encode, probe.inputs.double(), reference=fitted, rank=3)
    torch.testing.assert_close(beside.scores.log_density, expected)


@pytest.mark.parametrize("sketch", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_fails_is_left_out_and_changes_nothing_else(sketch: bool) -> None:
    encode, probe, far = encoder(64), shard(100), shard(70, seed=2)
    broken = Shard(torch.arange(70), torch.randn(70, 5))
    sparing = Sparing()
    plan = Plan(70, sketch=sketch)
    found = measure(encode, probe, plan, reference=broken, sparing=sparing, broken=broken, far=far)
    expected = measure(encode, probe, plan, far=far)
    assert list(sparing.failures) == ["the reference", "the ood set 'broken'"]
    assert found.knn is None
    assert list(found.ood) == ["far"]
    assert torch.equal(found.scores.log_density, expected.scores.log_density)
    assert torch.equal(found.ood["far"].log_density, expected.ood["far"].log_density)


def test_a_trial_counts_all_sets_and_reports_no_progress() -> None:
    told: list[int] = []
    trial = try_out(method(encoder(), progress=told.append), shard(12), sets=3)
    assert trial.embedding_size == 6
    assert min(trial.per_jacobian, trial.per_forward, trial.embeddings) > 0.0
    assert not told
