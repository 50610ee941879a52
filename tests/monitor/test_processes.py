"""Several processes measure what one does, and none waits for another that has failed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.monitor.on_processes import (
    fail_in_hook,
    fail_on_one,
    follow_from_the_first_validation,
    follow_tags,
    gather_uneven,
    keep_a_budget,
    leave_out,
    measure_probes,
    measure_sharded,
    measure_stream,
    train_sharded,
)
from tests.processes import run_on

pytestmark = pytest.mark.slow
SIZES = [1, 7, 16]


def compare(found: dict[str, float], expected: dict[str, float], **tolerance: float) -> None:
    names = [name for name in expected if "monitor/" not in name]
    assert len(names) > 30
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], err_msg=name, **tolerance)


def test_uneven_shards_measure_what_one_process_does() -> None:
    (one,) = run_on(1, measure_probes, SIZES)
    assert math.isfinite(one[7]["density/spearman"])
    assert math.isnan(one[1]["density/spearman"])
    assert math.isfinite(one[1]["density/jepa_score_median(nats)"])
    for world_size in (2, 3):
        each = run_on(world_size, measure_probes, SIZES)
        for size in SIZES:
            compare(each[0][size], one[size], rtol=1e-5, atol=1e-5)
            for other in each[1:]:
                compare(other[size], each[0][size], rtol=0.0, atol=0.0)


@pytest.mark.parametrize("counts", [[4, 3], [1, 0], [3, 3, 1]])
def test_uneven_and_empty_parts_are_put_together(counts: list[int]) -> None:
    expected = [[float(i), -float(i)] for i in range(sum(counts))]
    assert run_on(len(counts), gather_uneven, counts) == [expected] * len(counts)


def test_checkpoints_and_early_stopping_follow_our_tags_on_two_processes() -> None:
    first, second = run_on(2, follow_tags)
    assert first == second
    assert math.isfinite(first["score"])
    assert first["epochs"] == 2


@pytest.mark.parametrize("where", ["reading", "measuring"])
def test_a_process_that_fails_does_not_hang_the_others(where: str) -> None:
    reports: list[dict[str, Any]] = run_on(2, fail_on_one, where, "raise")
    for report in reports:
        assert "process 1: " in report["said"]
        assert "process 0: " not in report["said"]
        assert report["seconds"] < 20.0


@pytest.mark.parametrize("where", ["reading", "measuring"])
def test_training_goes_on_where_one_process_fails(where: str) -> None:
    for report in run_on(2, fail_on_one, where, "warn"):
        assert report["said"] == ""
        assert report["steps"] == 3
        assert report["failed"] == 1.0
        assert math.isnan(report["spearman"])


def test_a_hook_that_fails_on_one_process_is_agreed_on() -> None:
    assert run_on(2, fail_in_hook) == [(1.0, 3), (1.0, 3)]


def test_all_processes_measure_the_first_ones_stream() -> None:
    (one,) = run_on(1, measure_stream)
    first, second = run_on(2, measure_stream)
    compare(first, one, rtol=1e-5, atol=1e-5)
    compare(second, first, rtol=0.0, atol=0.0)


def test_weights_spread_over_two_processes_measure_the_same() -> None:
    (one,) = run_on(1, measure_sharded, 7)
    first, second = run_on(2, measure_sharded, 7)
    compare(first, one, rtol=1e-5, atol=1e-5)
    compare(second, first, rtol=0.0, atol=0.0)


def test_a_sharded_model_trains_with_callbacks_that_follow_a_monitor_of_its_part(tmp_path: Path) -> None:
    first, second = run_on(2, train_sharded, str(tmp_path))
    assert first == second
    assert first["saved"] == 2
    assert len(first["values"]) == 2
    assert all(math.isfinite(value) for value in [*first["values"], first["rank"]])


def test_a_tag_is_followed_from_the_first_validation_on_two_processes(tmp_path: Path) -> None:
    first, second = run_on(2, follow_from_the_first_validation, str(tmp_path))
    assert first == second
    for epochs, saved, value in first.values():
        assert (epochs, saved) == (3, 3)
        assert math.isfinite(value)


def test_sets_that_do_not_fit_are_left_out_by_all_processes() -> None:
    (told, values), (_, second) = run_on(2, leave_out)
    assert len(told) == 3
    np.testing.assert_equal(values, second)
    assert values["monitor/failed"] == 0.0
    for name in ("far", "one"):
        assert math.isfinite(values[f"density/ood_auroc/{name}"])
    for name in ("of three channels", "unreadable on one", "of other sizes on one"):
        assert any(f"the ood set {name!r} is left out" in text for text in told)
        assert math.isnan(values[f"density/ood_auroc/{name}"])


def test_all_processes_choose_the_same_samples() -> None:
    first, second = run_on(2, keep_a_budget)
    np.testing.assert_array_equal(first, second)  # what was chosen, and the seconds that it cost
    assert min(first[0]) < 200.0
