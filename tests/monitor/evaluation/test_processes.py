"""Several processes log what one does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from jepa_monitor import OnlineKNN, OnlineLinearProbe
from tests.monitor.evaluation.helpers import Dicts, evaluations, labelled_module, tuples
from tests.monitor.helpers import trainer_on
from tests.processes import run_on

pytestmark = pytest.mark.slow
# of bank and probe: neither a multiple of two or three, and fewer than there are processes
SIZES = [(61, 25), (7, 2)]


def measure_sets(rank: int, world_size: int, sizes: list[tuple[int, int]]) -> dict[tuple[int, int], dict[str, float]]:
    """Sizes of bank and probe to the values of ``validate``, with a bank that augments at random."""
    found = {}
    for bank, probe in sizes:
        reference = Dicts(bank, augment=True)
        callbacks = [kind(reference=reference, on_error="raise") for kind in (OnlineKNN, OnlineLinearProbe)]
        run = trainer_on(rank, world_size, *callbacks, *evaluations()[2:])
        (found[bank, probe],) = run.validate(labelled_module(), tuples(probe, seed=1), verbose=False)
    return found


def train_and_follow(rank: int, world_size: int, folder: str) -> dict[str, Any]:
    """Last values of a ``fit``, and what ``ModelCheckpoint`` made of one of them."""
    best = ModelCheckpoint(folder, monitor="knn/accuracy", mode="max")
    run = trainer_on(rank, world_size, *evaluations(), best, enable_checkpointing=True)
    run.fit(labelled_module(), tuples(48), tuples(25, seed=1))
    values = {tag: float(value) for tag, value in run.callback_metrics.items() if "/" in tag}
    return values | {"best": float(best.best_model_score or "nan"), "path": best.best_model_path}


def follow_and_fail(rank: int, world_size: int, folder: str) -> tuple[dict[str, Any], tuple[str, int]]:
    """Both in one start of the processes."""
    return train_and_follow(rank, world_size, folder), fail_on_one(rank, world_size)


def fail_on_one(rank: int, world_size: int) -> tuple[str, int]:
    """An encoder that fails on the second process alone; what each says, and the steps it trained."""

    def encode(module: Any, x: Tensor) -> Tensor:
        if rank == 1:
            raise RuntimeError("the GPU fell off the bus")
        return module(x)

    callback = OnlineKNN(encoder=encode)
    run = trainer_on(rank, world_size, callback, max_epochs=1)
    run.fit(labelled_module(), tuples(24), tuples(9, seed=1))
    return str(callback.values), run.global_step


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
