"""The schedule decides which validations are measured, and tags keep their last value."""

from __future__ import annotations

import math

import pytest

from jepa_monitor.runtime.schedule import Moment, Schedule


def validations(schedule: Schedule, moments: list[Moment]) -> list[int]:
    """Epochs whose validation is measured, with values."""
    measured = []
    for moment in moments:
        if schedule.takes_validation(moment):
            measured.append(moment.epoch)
            schedule.record(moment.step, {"a": float(moment.epoch)})
        assert not schedule.takes_validation(moment)
        schedule.end_validation()
    return measured


def epochs(count: int, **settings: bool) -> list[Moment]:
    return [Moment(step=10 * (epoch + 1), epoch=epoch, is_fitting=True, **settings) for epoch in range(count)]


@pytest.mark.parametrize(("every", "measured"), [(1, [0, 1, 2, 3, 4, 5]), (3, [0, 2, 5]), (0, [0])])
def test_the_first_validation_is_measured_and_then_each_nth(every: int, measured: list[int]) -> None:
    assert validations(Schedule(every), epochs(6)) == measured


def test_neither_the_sanity_check_nor_a_step_twice() -> None:
    schedule = Schedule(1)
    assert validations(schedule, epochs(1, is_sanity_check=True)) == []
    assert validations(schedule, [*epochs(1), *epochs(1)]) == [0]


def test_a_resumed_run_waits_for_its_turn_and_a_new_one_does_not() -> None:
    resumed = Schedule(3)
    resumed.begin(10)
    resumed.resume({"a": 1.0})
    assert validations(resumed, epochs(6)[1:]) == [2, 5]
    resumed.begin(0)
    assert resumed.last == {}
    assert validations(resumed, epochs(2)) == [0]


def test_epochs_without_validation() -> None:
    (moment,) = epochs(1)
    assert Schedule(1).takes_epoch(moment)
    assert not Schedule(1, needs_validation=True).takes_epoch(moment)
    (unvalidated,) = epochs(1, has_validation=False)
    assert Schedule(2).takes_epoch(unvalidated)  # the first
    assert Schedule(2, needs_validation=True).takes_epoch(unvalidated)


def test_a_tag_keeps_its_last_value_and_a_lost_one_is_nan() -> None:
    schedule = Schedule(1)
    schedule.record(1, {"a": 1.0, "b": 2.0})
    schedule.record(2, {"b": 3.0}, lost=["a", "c"])
    assert schedule.last["a"] == 1.0
    assert schedule.last["b"] == 3.0
    assert math.isnan(schedule.last["c"])
    assert math.isnan(schedule.latest["a"])
    fitting, validating = Moment(2, 0, is_fitting=True), Moment(2, 0, is_fitting=False)
    assert schedule.values_for(fitting) is schedule.last
    assert schedule.values_for(validating) is schedule.latest


def test_after_a_failure_the_next_validation_is_tried() -> None:
    schedule = Schedule(5)
    first, second, third = epochs(3)
    assert schedule.takes_validation(first)
    schedule.record(first.step, {}, lost=["a"], failed=True)
    schedule.end_validation()
    assert validations(schedule, [second, third]) == [1]
