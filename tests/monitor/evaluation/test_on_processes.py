"""Several processes log what one does."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.monitor.evaluation.helpers import follow_and_fail, measure_sets
from tests.processes import run_on

pytestmark = pytest.mark.slow
# of bank and probe: neither a multiple of two or three, and fewer than there are processes
SIZES = [(61, 25), (7, 2)]


def test_shares_of_any_size_measure_what_one_process_does() -> None:
    (one,) = run_on(1, measure_sets, SIZES)
    assert {"knn/accuracy", "linear_probe/accuracy_pixels", "features/lidar_ratio", "features/rank_ratio"} <= set(
        one[SIZES[0]]
    )
    assert all(math.isfinite(value) for value in one[SIZES[0]].values())
    for world_size in (2, 3):
        first, *others = run_on(world_size, measure_sets, SIZES)
        for size in SIZES:
            assert first[size].keys() == one[size].keys()
            for tag, value in one[size].items():
                np.testing.assert_allclose(first[size][tag], value, atol=1e-6, rtol=1e-6, err_msg=tag)
        np.testing.assert_equal(others, [first] * len(others))


def test_checkpoints_follow_and_a_failure_on_one_process_is_nan_on_all(tmp_path: Path) -> None:
    reports = run_on(2, follow_and_fail, str(tmp_path))
    assert reports[0] == reports[1]
    followed, failed = reports[0]
    assert math.isfinite(followed["best"])
    assert followed["path"]
    assert failed == ("{'knn/accuracy': nan, 'knn/accuracy_unwhitened': nan}", 2)  # and training went on
