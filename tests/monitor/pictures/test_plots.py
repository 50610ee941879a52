"""Scores against the truth and other sets: bins, colours, words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jepa_monitor import pictures
from jepa_monitor.pictures import figure
from jepa_monitor.pictures.plots import bin_edges
from tests.monitor.pictures.helpers import has, histogram


def test_bins_hold_every_set() -> None:
    edges = bin_edges([np.linspace(0, 1, 1000), np.linspace(5, 6, 900)])
    assert edges is not None
    assert len(edges) == 51
    assert edges[0] == pytest.approx(0.005)
    assert edges[-1] == pytest.approx(5.995)
    constant = bin_edges([np.full(3, 2.0)])
    assert constant is not None
    assert constant[0] < 2 < constant[-1]
    assert bin_edges([]) is None


def test_the_auroc_is_in_the_legend() -> None:
    assert not torch.equal(histogram(1.0), histogram(1.0, aurocs={"_set 0": 0.6}))
    assert not torch.equal(histogram(1.0, aurocs={"_set 0": 0.9}), histogram(1.0, aurocs={"_set 0": 0.6}))


def test_dots_have_the_colour_of_their_percentile() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    first, swapped = (pictures.heat_map_picture(points, {"x": torch.tensor(v)}) for v in ([1.0, 5.0], [5.0, 1.0]))
    assert not torch.equal(first, swapped)
    for shade in (0.25, 0.75):
        assert has(first, figure.colours(shade))
    assert torch.equal(first, pictures.heat_map_picture(points, {"x": torch.tensor([1e-3, 5e9])}))
