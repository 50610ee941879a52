"""Facts of the probe that need no encoder are gathered once, and what fails is left out."""

from __future__ import annotations

import torch

from jepa_monitor.probe.facts import KnownBySample, probe_facts
from jepa_monitor.probe.shards import Shard
from jepa_monitor.probe.sparing import Sparing

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def test_a_truth_that_writes_into_its_input_leaves_the_probe_whole() -> None:
    x, truths = X.clone(), {"truth": lambda inputs: inputs.square_().sum(1)}
    facts = probe_facts(
        Shard(torch.arange(5), x), log_densities=truths, gaussian=None, reference=None, sparing=Sparing()
    )
    torch.testing.assert_close(facts.truths["truth"].float(), X.square().sum(1))
    assert facts.headline == "truth"
    assert torch.equal(x, X)


def test_facts_are_in_the_order_of_the_probe_and_a_truth_that_fails_is_left_out() -> None:
    order, sparing = torch.tensor([4, 2, 0, 1, 3]), Sparing()
    truths = {"first": lambda inputs: inputs[:, 0], "wrong": lambda inputs: inputs}
    facts = probe_facts(
        Shard(order, X[order]),
        log_densities=truths,
        gaussian=lambda inputs: inputs[:, 1],
        reference=None,
        coordinates=lambda inputs: inputs[:, :2],
        sparing=sparing,
    )
    torch.testing.assert_close(facts.truths["first"].float(), X[:, 0])
    assert facts.gaussian is not None
    torch.testing.assert_close(facts.gaussian.float(), X[:, 1])
    assert facts.coordinates is not None
    torch.testing.assert_close(facts.coordinates.float(), X[:, :2])
    assert facts.complexity.shape == (5,)
    assert list(facts.truths) == ["first"]
    assert "shape (5,)" in sparing.failures["log_density 'wrong'"]
    assert "density/spearman_wrong" in sparing.lost


def test_a_truth_that_is_known_by_sample_is_looked_up_by_index() -> None:
    order, sparing = torch.tensor([4, 2, 0, 1, 3]), Sparing()
    values = torch.arange(7.0)
    truths = {
        "whole": KnownBySample(values, 7),
        "part": KnownBySample(values.numpy(), 7, places=[6, 5, 4, 3, 2]),
        "stream": KnownBySample(values, None),
        "short": KnownBySample(values, 9),
        "square": KnownBySample(values.expand(7, 7), None),
        "too few": KnownBySample(values[:3], None),
    }
    facts = probe_facts(Shard(order, X[order]), log_densities=truths, gaussian=None, reference=None, sparing=sparing)
    assert facts.truths["whole"].tolist() == [0, 1, 2, 3, 4]
    assert facts.truths["part"].tolist() == [6, 5, 4, 3, 2]
    assert facts.truths["stream"].tolist() == [0, 1, 2, 3, 4]
    assert list(facts.truths) == ["whole", "part", "stream"]
    assert (
        "one number for each of the dataset's 9 samples, of shape (9,), and has (7,)"
        in sparing.failures["log_density 'short'"]
    )
    assert "is of shape (7, 7)" in sparing.failures["log_density 'square'"]
    assert "is of shape (3,)" in sparing.failures["log_density 'too few'"]
