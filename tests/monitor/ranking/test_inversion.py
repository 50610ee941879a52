"""A forecast of inversion from held-out samples, on maps whose volume grows or shrinks outwards."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from jepa_monitor import jepa_score
from jepa_monitor.ranking import NearestNeighbours, auroc, predict_inversion

# one coordinate: name, map, and whether the log of its slope grows with the distance from the middle
MAPS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "cubic": (lambda x: x + x**3, True),
    "hyperbolic sine": (torch.sinh, True),
    "arc tangent": (torch.atan, False),
    "Gaussian integral": (torch.special.ndtr, False),
}


def normal(count: int, seed: int) -> Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", MAPS)
def test_equation_5_inverts_where_it_is_forecast(name: str) -> None:
    encode, inverts = MAPS[name]
    inside, outside = normal(200, 1), 3.0 * normal(200, 2)
    typical = NearestNeighbours.fit(encode(normal(2_000, 0))).score(encode(inside))
    found = predict_inversion(jepa_score(encode, inside), typical)
    assert found.is_expected is inverts
    assert (auroc(jepa_score(encode, inside), jepa_score(encode, outside)) < 0.5) is inverts


def test_the_correlation_is_spearmans_and_its_interval_holds_the_truth() -> None:
    generator = np.random.default_rng(0)
    truth, held, count = 0.5, 0, 60
    of_ranks = 6.0 / math.pi * math.asin(truth / 2.0)  # Spearman's of a bivariate normal
    for _ in range(400):
        first, second = generator.multivariate_normal([0.0, 0.0], [[1.0, truth], [truth, 1.0]], size=count).T
        found = predict_inversion(first, second)
        assert found.correlation == pytest.approx(stats.spearmanr(first, second).statistic)
        held += found.low < of_ranks < found.high
    assert held / 400 == pytest.approx(0.95, abs=0.03)


def test_what_is_open_is_not_decided() -> None:
    values = np.arange(40.0)
    assert predict_inversion(values, -values).is_expected is True
    assert predict_inversion(values, values).is_expected is False
    assert predict_inversion(values, np.random.default_rng(0).permutation(values)).is_expected is None
    for scores in (np.ones(40), np.full(40, math.nan)):
        found = predict_inversion(scores, values)
        assert math.isnan(found.correlation)
        assert found.is_expected is None
    assert predict_inversion([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).is_expected is None
    wide, narrow = (predict_inversion(values, values**2 % 7, level=level) for level in (0.99, 0.5))
    assert narrow.high - narrow.low < wide.high - wide.low


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match="same samples"):
        predict_inversion([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        predict_inversion([1.0, 2.0], [1.0, 2.0], level=1.0)
