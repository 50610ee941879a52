"""The verdict in the story tells a collapse, a scale and a Gaussian apart, and says nothing where nothing is known."""

from __future__ import annotations

import math

import pytest
import torch

from jepa_monitor.gaussianity import gaussianity_statistics
from jepa_monitor.measured import MEASURED
from jepa_monitor.scalars import alarms, variance_share
from jepa_monitor.verdict import ALARMS, COLLAPSED_EP, GAUSSIAN, verdict

N, K = 256, 16


def of(z: torch.Tensor) -> str:
    """The verdict on embeddings, from what the monitor would log of them."""
    values = {f"gaussianity/{name}": value for name, value in gaussianity_statistics(z).items()}
    values["gaussianity/variance_share"] = variance_share(z)
    rung = alarms(values, embedding_size=z.shape[1])
    return verdict(values | {tag: float(tag in rung) for tag in ALARMS}, num_samples=len(z))


def normal() -> torch.Tensor:
    return torch.randn(N, K, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_it_follows_the_embeddings() -> None:
    z = normal()
    assert of(z) == "No alarm. Embeddings are spread out, close to Gaussian."
    assert of(z.sign() + 0.1 * z).endswith(("roughly Gaussian.", "not Gaussian."))
    assert of(100.0 * z) == "No alarm. Embeddings are spread out, but not at scale 1."
    assert of(0.01 * z) == "No alarm. Embeddings are spread out, but not at scale 1."
    assert of(0.1 * z + 1.0) == "No alarm, but embeddings are hardly spread out."
    assert of(torch.ones(N, K, dtype=torch.float64)) == "Alarm: collapse."
    assert of(z[:, :1] * torch.ones(K)) == "Alarm: collapse."  # a line


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_further_from_gaussian_is_told_by_share_of_a_point(share: float) -> None:
    values = {"gaussianity/variance_share": 0.9, "gaussianity/sliced_ep_ratio": share * COLLAPSED_EP * N}
    said = "roughly Gaussian" if share < 0.15 else "not Gaussian"
    assert said in verdict(values, num_samples=N)
    # the band of the chart and the sentence above it say the same
    inside = values | {"gaussianity/sliced_ep_ratio": GAUSSIAN[1]}
    assert "close to Gaussian" in verdict(inside, num_samples=N)


def test_alarms_come_first_by_their_names() -> None:
    values = dict.fromkeys(ALARMS, 1.0) | {"gaussianity/variance_share": 0.9, "gaussianity/sliced_ep_ratio": 1.0}
    assert verdict(values, num_samples=N) == "The last measurement failed."
    values["monitor/failed"] = 0.0
    assert verdict(values, num_samples=N) == "Alarm: collapse, nonfinite jacobian, turned over."


@pytest.mark.parametrize("missing", ["gaussianity/variance_share", "gaussianity/sliced_ep_ratio"])
def test_nothing_is_said_of_what_is_not_known(missing: str) -> None:
    values = {"gaussianity/variance_share": 0.9, "gaussianity/sliced_ep_ratio": 1.0}
    assert verdict(values | {missing: math.nan}, num_samples=N) == ""
    assert verdict({tag: value for tag, value in values.items() if tag != missing}, num_samples=N) == ""
    assert verdict({}, num_samples=N) == ""


def test_too_few_samples_are_not_judged() -> None:
    """A ratio up to 2 is then that of a point as well: 0.38 N."""
    assert of(normal()[:4]) == of(normal()[:35]) == "No alarm. Too few samples to judge Gaussianity."
    assert "close to Gaussian" in of(normal()[:36])


def test_what_runs_showed_gets_the_verdict_of_its_kind() -> None:
    """docs/curves.md: medians of runs with SIGReg, without a scale, and without a term against collapse, N = 256."""
    variance, ratio = MEASURED["gaussianity/variance_share"], MEASURED["gaussianity/sliced_ep_ratio"]
    said = {
        kind: [
            verdict({"gaussianity/variance_share": share, "gaussianity/sliced_ep_ratio": ep}, num_samples=256)
            for share in ends(getattr(variance, kind))
            for ep in ends(getattr(ratio, kind))
        ]
        for kind in ("healthy", "off_scale", "collapsing")
    }
    assert set(said["healthy"]) == {"No alarm. Embeddings are spread out, roughly Gaussian."}
    assert set(said["off_scale"]) == {"No alarm. Embeddings are spread out, but not at scale 1."}
    assert set(said["collapsing"]) == {"No alarm, but embeddings are hardly spread out."}


def ends(written: str) -> list[float]:
    return [float(end) for end in written.split(" to ")]
