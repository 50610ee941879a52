"""Schedules against their closed forms."""

from __future__ import annotations

import math

import pytest

from jepa_train.schedules import cosine, linear, warmup_cosine


def test_linear() -> None:
    values = [linear(step, start=0.996, end=1.0, total_steps=10) for step in (0, 5, 10, 99)]
    assert values == pytest.approx([0.996, 0.998, 1.0, 1.0])


def test_cosine() -> None:
    values = [cosine(step, start=0.04, end=0.4, total_steps=8) for step in (0, 2, 4, 8, 20)]
    quarter = 0.4 + (0.04 - 0.4) * 0.5 * (1 + math.cos(math.pi / 4))
    assert values == pytest.approx([0.04, quarter, 0.22, 0.4, 0.4])


def test_warmup_cosine() -> None:
    settings = {"start": 2e-4, "peak": 1e-3, "end": 1e-6, "warmup_steps": 10, "total_steps": 110}
    values = [warmup_cosine(step, **settings) for step in (0, 5, 10, 60, 110)]
    assert values == pytest.approx([2e-4, 6e-4, 1e-3, (1e-3 + 1e-6) / 2, 1e-6])


def test_no_steps_at_all_is_the_end() -> None:
    assert warmup_cosine(0, start=0.1, peak=1.0, end=0.0, warmup_steps=0, total_steps=0) == pytest.approx(1.0)
