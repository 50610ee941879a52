"""How much of a measurement a budget allows."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepa_monitor.budget import (
    CALIBRATION_SAMPLES,
    FEWEST_SAMPLES,
    FIRST_SECONDS,
    GRACE_SECONDS,
    Clock,
    Plan,
    allowed_seconds,
    choose_plan,
    exact_equivalents,
    may_paint,
    overhead_percent,
    sketch_rows,
)

seconds = st.floats(1e-3, 1e6)
positive = st.floats(1e-6, 1e4)


@given(trained=st.floats(100.0, 1e6), budget=st.floats(0.02, 0.5), measurements=st.integers(1, 50))
def test_a_run_that_spends_what_is_allowed_stays_within_its_budget(
    trained: float, budget: float, measurements: int
) -> None:
    spent = 0.0
    for turn in range(1, measurements + 1):
        progress = turn / measurements
        clock = Clock(trained * progress, spent, progress, 1.0 / measurements)
        spent += max(0.0, allowed_seconds(clock, budget))
    assert spent <= max(GRACE_SECONDS, budget * trained) * (1.0 + 1e-9)


@given(trained=st.floats(100.0, 1e6), budget=st.floats(0.02, 0.5))
def test_without_a_known_end_only_what_was_earned_is_spent(trained: float, budget: float) -> None:
    spent = 0.0
    for turn in range(1, 20):
        spent += max(0.0, allowed_seconds(Clock(trained * turn, spent, None), budget))
        assert spent <= max(GRACE_SECONDS, budget * trained * turn) * (1.0 + 1e-9)


def test_before_training_nothing_is_known() -> None:
    assert allowed_seconds(Clock(0.0, 0.0, None), 0.05) == FIRST_SECONDS
    assert math.isinf(overhead_percent(Clock(0.0, 1.0, None)))
    assert overhead_percent(Clock(50.0, 1.0, 0.5)) == pytest.approx(2.0)


def test_pictures_wait_until_they_are_earned() -> None:
    assert may_paint(Clock(0.0, 1.0, None), 0.05, 0.5)  # within what a run may always spend
    assert not may_paint(Clock(0.0, 1.0, None), 0.05, 0.6)  # the last ones will cost as much again
    assert not may_paint(Clock(100.0, 4.1, 0.5), 0.05, 0.5)
    assert may_paint(Clock(200.0, 4.1, 0.5), 0.05, 0.5)
    assert allowed_seconds(Clock(100.0, 4.0, 1.0), 0.05, reserve=0.4) == pytest.approx(0.6)


@given(seconds=st.floats(0.0, 1e5), per_sample=positive, num_samples=st.integers(1, 4096), size=st.integers(1, 2048))
def test_a_plan_is_the_most_that_fits(seconds: float, per_sample: float, num_samples: int, size: int) -> None:
    plan = choose_plan(seconds, seconds_per_sample=per_sample, num_samples=num_samples, embedding_size=size)
    assert min(FEWEST_SAMPLES, num_samples) <= plan.samples <= num_samples
    if plan.rows is None:
        cost = plan.samples * per_sample
    else:
        assert 2 <= plan.rows < size
        cost = (CALIBRATION_SAMPLES + plan.samples * 2 * plan.rows / size) * per_sample
    if plan.samples > FEWEST_SAMPLES:
        assert cost <= seconds * (1.0 + 1e-9)
    exact = seconds / per_sample >= num_samples
    assert not exact or plan == Plan(num_samples)


def test_the_order_is_exact_then_fewer_then_a_sketch() -> None:
    def plan(affordable: float, estimator: str = "auto") -> Plan:
        return choose_plan(
            affordable,
            seconds_per_sample=1.0,
            num_samples=512,
            embedding_size=192,
            estimator=estimator,  # type: ignore[arg-type]  # each of its names
        )

    assert plan(512) == Plan(512)
    assert plan(300) == Plan(256)  # in steps, so that small changes of speed change nothing
    assert plan(270) == plan(300)
    assert plan(150) == Plan(512, 16)
    assert plan(60) == Plan(64)
    assert plan(0) == Plan(64)
    assert plan(150, "exact") == Plan(128)
    assert plan(1000, "sketch") == Plan(512, 16)
    assert str(plan(150)) == "sketches of 16 rows of 512 samples"


@given(affordable=st.floats(0.0, 2000.0), samples=st.sampled_from([64, 128, 512]), rows=st.sampled_from([None, 16]))
def test_a_plan_is_kept_while_it_is_about_right(affordable: float, samples: int, rows: int | None) -> None:
    settings = {"seconds_per_sample": 1.0, "num_samples": 512, "embedding_size": 192}
    current = Plan(samples, rows)
    chosen = choose_plan(affordable, current=current, **settings)  # type: ignore[arg-type]  # numbers all of them
    cost = exact_equivalents(current, 192)
    if 0.8 * cost <= affordable <= 2.0 * cost:
        assert chosen == current
    else:
        assert chosen == choose_plan(affordable, **settings)  # type: ignore[arg-type]  # as above


def test_rows_of_a_sketch_are_fewer_than_directions() -> None:
    assert [sketch_rows(size) for size in (2, 16, 64, 192, 2048)] == [2, 2, 8, 16, 16]
