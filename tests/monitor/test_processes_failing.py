"""One of several processes fails: none waits for it, and all agree on what is left."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tests.monitor.helpers import images, loader, monitor_with_set, seeded, trainer_on
from tests.processes import run_on

pytestmark = pytest.mark.slow


def fail_in_hook(rank: int, world_size: int) -> tuple[float | None, int]:
    """A DataModule whose hook raises on one process."""

    class Data(pl.LightningDataModule):
        def train_dataloader(self) -> Any:
            return loader()

        def val_dataloader(self) -> Any:
            return loader(7, seed=1)

        def probe_dataset(self) -> Tensor:
            if rank == 1:
                raise FileNotFoundError("only on the first machine")
            return images(12)

    callback = monitor_with_set(on_error="warn")
    run = trainer_on(rank, world_size, callback, max_epochs=1)
    run.fit(seeded(), datamodule=Data())
    return callback.values.get("monitor/failed"), run.global_step


class Failing(Dataset[Tensor]):
    """A probe that one process cannot read."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        if self.fails:
            raise OSError("the disk is gone")
        return images(12)[index]


def fail_on_one(rank: int, world_size: int, where: str, on_error: str) -> dict[str, Any]:
    """One process fails while it reads or while it measures; what each says, and after how many seconds."""

    def encode(module: Any, x: Tensor) -> Tensor:
        if where == "measuring" and rank == 1 and not torch.is_grad_enabled() and len(x) > 2:
            raise RuntimeError("the GPU fell off the bus")
        return module(x)

    probe: Any = Failing(fails=rank == 1 and where == "reading")
    callback = monitor_with_set(probe=probe, encoder=encode, on_error=on_error)
    run = trainer_on(rank, world_size, callback, max_epochs=1)
    started = time.monotonic()
    said = ""
    try:
        run.fit(seeded(), loader(), loader(7, seed=1))
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    return {
        "said": said,
        "seconds": time.monotonic() - started,
        "steps": run.global_step,
        "failed": callback.values.get("monitor/failed"),
        "spearman": run.callback_metrics.get("density/spearman"),
    }


def leave_out(rank: int, world_size: int) -> tuple[list[str], dict[str, float]]:
    """Further sets that do not fit, one of them on one process alone; warnings, and the values."""
    sets = {
        "far": 3.0 * images(5, seed=5),
        "of three channels": images(5).expand(-1, 3, -1, -1),
        "unreadable on one": Failing(fails=rank == 1),
        "of other sizes on one": [torch.randn(1, 4, 4 + (i == 1)) for i in range(4)],
        "one": images(1, seed=6),
    }
    callback = monitor_with_set(ood=sets, probe=images(16, seed=2), reference=images(), on_error="warn")
    run = trainer_on(rank, world_size, callback)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (values,) = run.validate(seeded(), loader(7, seed=1), verbose=False)
    warned = [str(warning.message) for warning in caught if "is left out" in str(warning.message)]
    return warned, values


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


def test_sets_that_do_not_fit_are_left_out_by_all_processes() -> None:
    (warned, values), (_, second) = run_on(2, leave_out)
    assert len(warned) == 3
    np.testing.assert_equal(values, second)
    assert values["monitor/failed"] == 0.0
    for name in ("far", "one"):
        assert math.isfinite(values[f"density/ood_auroc/{name}"])
    for name in ("of three channels", "unreadable on one", "of other sizes on one"):
        assert any(f"the ood set {name!r} is left out" in text for text in warned)
        assert math.isnan(values[f"density/ood_auroc/{name}"])
