"""Alarms: the measurements at which they ring, and what is logged when that begins and ends."""

from __future__ import annotations

import math

import pytest
import torch

from jepa_monitor.gaussianity import gaussianity_statistics
from jepa_monitor.scalars import MESSAGES, alarms, changes, variance_share


def of_cloud(z: torch.Tensor) -> dict[str, str]:
    values = {f"gaussianity/{name}": value for name, value in gaussianity_statistics(z).items()}
    return alarms(values | {"gaussianity/variance_share": variance_share(z)}, embedding_size=z.shape[1])


def cloud(k: int) -> torch.Tensor:
    return torch.randn(256, k, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("k", [1, 2, 32])
def test_a_gaussian_does_not_ring(k: int) -> None:
    assert of_cloud(cloud(k)) == {}
    assert of_cloud(1e-3 * cloud(k) + 0.1) == {}


@pytest.mark.parametrize("k", [2, 32])
def test_a_line_rings(k: int) -> None:
    line = cloud(k)[:, :1] * torch.ones(1, k, dtype=torch.float64)
    assert list(of_cloud(line + 1e-4 * cloud(k))) == ["alarm/collapse"]


@pytest.mark.parametrize(
    ("first", "now", "rings"),
    [
        (0.5, 1e-3, True),
        (0.015, 1e-3, True),
        (0.005, 1e-3, False),  # hardly less than in the beginning
        (0.5, 3e-3, False),  # varies
        (math.nan, 1e-3, False),  # the first measurement
        (math.nan, 1e-7, True),
    ],
)
def test_a_variance_that_vanishes_while_training_rings(first: float, now: float, rings: bool) -> None:
    values = {"gaussianity/effective_rank_ratio": 0.9, "gaussianity/variance_share": now}
    assert ("alarm/collapse" in alarms(values, embedding_size=8, first_variance_share=first)) == rings


@pytest.mark.parametrize("z", [torch.zeros(64, 4), torch.ones(64, 4), 1.0 + 1e-5 * cloud(4)])
def test_a_point_rings(z: torch.Tensor) -> None:
    assert "variance" in of_cloud(z.double())["alarm/collapse"]


def test_jacobians_and_rankings() -> None:
    assert alarms({"jacobian/nonfinite_fraction": 0.0, "density/stability": math.nan}, embedding_size=4) == {}
    ringing = alarms({"jacobian/nonfinite_fraction": 0.25, "density/stability": -0.5}, embedding_size=4)
    assert ringing == {
        "alarm/nonfinite_jacobian": "25.0 % of the samples",
        "alarm/turned_over": "rank correlation -0.50",
    }
    assert ringing.keys() <= MESSAGES.keys()


def test_each_alarm_is_told_when_it_begins_and_when_it_ends() -> None:
    ringing = {"alarm/collapse": "why"}
    assert changes({}, ringing) == ["the embeddings have collapsed: why."]
    assert changes(ringing, {"alarm/collapse": "another reason"}) == []
    assert changes(ringing, {}) == ["over: the embeddings have collapsed."]


def test_variance_share() -> None:
    z = cloud(3) + 2.0
    assert variance_share(z) == pytest.approx(float(z.var(0, correction=0).sum() / z.square().sum(1).mean()))
    assert math.isnan(variance_share(z[:1]))
