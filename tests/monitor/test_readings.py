"""Readings are values: they print short and can be cut."""

from __future__ import annotations

import torch

from jepa_monitor.readings import Readings, Scores


def test_scores_are_cut_together() -> None:
    scores = Scores(torch.arange(5.0), -torch.arange(5.0)).first(2)
    assert scores.jepa_score.tolist() == [0.0, 1.0]
    assert scores.log_density.tolist() == [0.0, -1.0]


def test_readings_print_shapes() -> None:
    scores = Scores(torch.zeros(7), torch.zeros(7))
    readings = Readings(torch.zeros(9, 3), None, torch.zeros(7, 3), 0, None, scores, torch.zeros(7), None)
    assert "z=Tensor(9, 3)" in repr(readings)
