"""Readings of one encoder against the functions that compute each of them alone."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from jepa_monitor import EmbeddingReference, jacobian_gram, jepa_score, log_density, log_volume
from jepa_monitor.measurement import read, try_out
from jepa_monitor.method import Method
from jepa_monitor.probe.facts import ProbeFacts
from jepa_monitor.probe.shards import Shard
from jepa_monitor.probe.sparing import Sparing
from jepa_monitor.ranking import knn_distance
from jepa_monitor.readings import Readings
from jepa_monitor.runtime.plan import Plan


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
    fitted = EmbeddingReference.measure(encode, reference.inputs.double())
    assert found.rank == fitted.rank
    assert found.dimension == fitted.dimension
    assert found.reference == 30
    gaussian = fitted.refit(density="gaussian")
    torch.testing.assert_close(found.z, encode(x))
    torch.testing.assert_close(found.z_white, gaussian.coordinates(encode(x)))
    torch.testing.assert_close(found.knn, knn_distance(encode(x), encode(reference.inputs.double())))
    assert found.log_singular.shape == (25, 6)
    by_gaussian = log_density(encode, x[:25], reference=gaussian) - found.gaussian
    torch.testing.assert_close(by_gaussian, by_gaussian[:1].expand(25))  # up to the volume of the whitening
    z_reference = encode(reference.inputs.double())
    for scores, whole, inputs in ((found.scores, x, x[:25]), (found.ood["far"], *2 * (far.inputs.double(),))):
        torch.testing.assert_close(scores.jepa_score, jepa_score(encode, inputs))
        torch.testing.assert_close(scores.log_density, log_density(encode, inputs, reference=fitted))
        of_embedding = fitted.log_density(fitted.coordinates(encode(whole)))
        torch.testing.assert_close(scores.of_embeddings["embedding"], of_embedding)
        torch.testing.assert_close(scores.of_embeddings["knn"], -knn_distance(encode(whole), z_reference))


@pytest.mark.parametrize("subspace", [False, True])
def test_sets_without_jacobians_cost_their_own_values_alone(subspace: bool) -> None:
    encode, probe, reference = encoder(64), shard(70), shard(90, seed=3)
    sets = {"near": shard(60, seed=2), "far": shard(60, seed=4, scale=3.0)}
    plan = Plan(60, subspace=subspace)
    expected = measure(encode, probe, plan, reference=reference, rank=4, **sets)
    found = measure(encode, probe, replace(plan, further_sets=1), reference=reference, rank=4, **sets)
    torch.testing.assert_close(found.scores.log_density, expected.scores.log_density)
    torch.testing.assert_close(found.ood["near"].log_density, expected.ood["near"].log_density)
    assert found.ood["far"].log_density.shape == found.ood["far"].jepa_score.shape == (0,)
    assert set(expected.ood["far"].of_embeddings) == {"embedding", "knn"}
    for name, scores in expected.ood["far"].of_embeddings.items():
        torch.testing.assert_close(found.ood["far"].of_embeddings[name], scores)
        assert len(scores) == 60


def test_a_gaussian_counts_white_directions_where_a_rank_is_given() -> None:
    encode, probe = encoder(), shard(40)
    x = probe.inputs.double()
    found = read(
        method(encode, rank=2, embedding_density="gaussian"),
        probe,
        facts=ProbeFacts(truths={}, gaussian=None, complexity=torch.zeros(40), reference=None),
        ood={},
        num_samples=40,
        plan=Plan(40),
        sparing=Sparing(raises=True),
    )
    fitted = EmbeddingReference.measure(encode, x, density="gaussian", rank=2)
    torch.testing.assert_close(found.scores.log_density, log_density(encode, x, reference=fitted))


def test_a_given_rank_is_at_most_the_number_of_directions() -> None:
    encode, probe = encoder(), shard(40)
    found = measure(encode, probe, Plan(40), rank=2)
    assert found.rank == 2
    assert found.dimension == measure(encode, probe, Plan(40)).dimension  # is measured nevertheless
    assert measure(encode, probe, Plan(40), rank=9).rank == 6
    narrow = Shard(probe.indices, probe.inputs[:, :2])
    assert measure(nn.Sequential(nn.Linear(2, 96).double(), encode), narrow, Plan(40), rank=9).rank == 2


def test_without_a_reference_each_sample_is_scored_by_the_others() -> None:
    encode, probe = encoder(), shard(40)
    z = encode(probe.inputs.double()).detach()
    found = measure(encode, probe, Plan(40), rank=3)
    assert found.reference == 0
    volume = log_volume(jacobian_gram(encode, probe.inputs.double()), convention="rank", rank=3)
    for i in (0, 7, 39):
        others = EmbeddingReference.fit(torch.cat([z[:i], z[i + 1 :]]), rank=3)
        expected = others.log_density(z[i : i + 1]) + volume[i]
        torch.testing.assert_close(found.scores.log_density[i : i + 1], expected)


def test_embeddings_of_the_probe_that_are_not_finite_are_nan_alone() -> None:
    encode, probe = encoder(), shard(40)
    clean = measure(encode, Shard(torch.arange(39), torch.cat([probe.inputs[:5], probe.inputs[6:]])), Plan(39), rank=3)
    probe.inputs[5] = torch.nan
    found = measure(encode, probe, Plan(40), rank=3).scores.log_density
    assert torch.isnan(found).nonzero().flatten().tolist() == [5]
    torch.testing.assert_close(torch.cat([found[:5], found[6:]]), clean.scores.log_density)


def test_estimated_readings_rank_as_the_exact_ones() -> None:
    encode, probe, far = encoder(64), shard(200), shard(80, seed=2)
    plans = (Plan(200), Plan(200, subspace=True))
    exact, found = (measure(encode, probe, plan, rank=8, far=far) for plan in plans)
    assert (exact.subspace_rows, exact.subspace_spearman) == (0, None)
    assert found.subspace_rows == 12
    assert found.subspace_spearman is not None
    assert found.subspace_spearman > 0.9
    assert found.log_singular.shape == (48, 64)  # of the samples that calibrate the subspace
    assert stats.spearmanr(exact.scores.log_density, found.scores.log_density).statistic > 0.99
    torch.testing.assert_close(found.gaussian, exact.gaussian[:48])  # which counts all directions
    assert stats.spearmanr(exact.ood["far"].log_density, found.ood["far"].log_density).statistic > 0.99
    # Eq. 5 needs exact Jacobians
    torch.testing.assert_close(found.scores.jepa_score[:48], exact.scores.jepa_score[:48])
    assert torch.isnan(found.scores.jepa_score[48:]).all()
    assert torch.isnan(found.ood["far"].jepa_score).all()


def test_a_subspace_without_finite_jacobians_scores_nothing() -> None:
    probe = shard(100)
    probe.inputs[:41] = torch.nan
    with pytest.warns(UserWarning, match="no log density: a subspace needs at least 8 .* got 7 of 48"):
        found = measure(encoder(64), probe, Plan(100, subspace=True), rank=4, far=shard(80, seed=2))
    assert torch.isfinite(found.scores.jepa_score).nonzero().flatten().tolist() == list(range(41, 48))
    for scores, count in ((found.scores, 100), (found.ood["far"], 80)):
        assert scores.jepa_score.shape == scores.log_density.shape == (count,)
        assert not torch.isfinite(scores.log_density).any()


def test_a_small_probe_has_a_density_by_the_reference_or_none_at_all() -> None:
    encode, probe, reference = encoder(), shard(5), shard(50, seed=2)
    alone = measure(encode, probe, Plan(5))
    assert alone.problem is not None
    assert alone.z_white is alone.dimension is None
    assert alone.rank == 0
    assert torch.isnan(alone.scores.log_density).all()
    assert torch.isnan(alone.gaussian).all()
    torch.testing.assert_close(alone.scores.jepa_score, jepa_score(encode, probe.inputs.double()))
    beside = measure(encode, probe, Plan(5), reference=reference, rank=3)
    assert beside.problem is beside.problem_of_gaussian is None
    fitted = EmbeddingReference.fit(encode(reference.inputs.double()).detach(), rank=3)
    expected = log_density(encode, probe.inputs.double(), reference=fitted)
    torch.testing.assert_close(beside.scores.log_density, expected)


def test_a_reference_without_a_density_leaves_that_to_the_probe() -> None:
    encode, probe = encoder(), shard(40)
    constant = Shard(torch.arange(30), torch.ones(30, 96))
    beside, alone = (measure(encode, probe, Plan(40), reference=it) for it in (constant, None))
    assert beside.reference == 0
    assert torch.equal(beside.scores.log_density, alone.scores.log_density)
    assert torch.equal(beside.gaussian, alone.gaussian)


def test_more_coordinates_than_reference_samples_cost_the_gaussian_alone() -> None:
    found = measure(encoder(64), shard(30), Plan(30), reference=shard(40, seed=2))
    assert found.problem is None
    assert found.problem_of_gaussian is not None
    assert found.problem_of_gaussian.startswith("30 finite embeddings cannot give the covariance of 64 coordinates")
    assert torch.isfinite(found.scores.log_density).all()
    assert torch.isnan(found.gaussian).all()


@pytest.mark.parametrize("subspace", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_fails_is_left_out_and_changes_nothing_else(subspace: bool) -> None:
    encode, probe, far = encoder(64), shard(100), shard(70, seed=2)
    broken = Shard(torch.arange(70), torch.randn(70, 5))
    sparing = Sparing()
    plan = Plan(70, subspace=subspace)
    found = measure(encode, probe, plan, reference=broken, sparing=sparing, broken=broken, far=far)
    expected = measure(encode, probe, plan, far=far)
    assert list(sparing.failures) == ["the reference", "the ood set 'broken'"]
    assert found.knn is None
    assert list(found.ood) == ["far"]
    assert torch.equal(found.scores.log_density, expected.scores.log_density)
    assert torch.equal(found.ood["far"].log_density, expected.ood["far"].log_density)


def test_a_trial_counts_all_sets_and_a_whole_measurement() -> None:
    plans: list[Plan] = []
    found = measure(encoder(), shard(40), Plan(2), rank=3)

    def whole(plan: Plan) -> Readings:
        plans.append(plan)
        time.sleep(0.4 if len(plans) == 1 else 0.1)  # the first is held up
        return found

    hold_ups = [0.3]

    def to_device(inputs: Tensor) -> Tensor:
        if len(inputs) > 2 and hold_ups:  # once, by what has nothing to do with the encoder
            time.sleep(hold_ups.pop())
        return inputs.double()

    trial = try_out(replace(method(encoder()), to_device=to_device), shard(12), whole, sets=3)
    assert trial.per_jacobian < 0.02
    assert (trial.embedding_size, trial.rank) == (6, 3)
    assert min(trial.per_jacobian, trial.per_forward) > 0.0
    assert 0.05 < trial.rest < 0.3  # of which two samples in each set have a Jacobian
    assert plans == [Plan(2)] * 2


def test_a_trial_on_a_busy_machine_times_samples_and_not_passes() -> None:
    def to_device(inputs: Tensor) -> Tensor:
        time.sleep(0.12)  # each pass waits for a processor, however many samples it has
        return inputs.double()

    def whole(plan: Plan) -> Readings:
        return measure(encoder(), shard(40), plan, rank=3)

    trial = try_out(replace(method(encoder()), to_device=to_device), shard(200), whole, sets=1)
    assert trial.per_jacobian < 0.12 / 100  # not 0.12 / 8, of the first pass that is long enough to be timed
