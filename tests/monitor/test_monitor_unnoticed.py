"""Training with the monitor is bitwise training without it, also after a measurement that failed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.monitor.helpers import Autoencoder, images, loader, monitor, trainer

# the frozen part of the project below is meant to be in eval mode
pytestmark = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")


def everything(tmp_path: Path, *callbacks: pl.Callback, **settings: Any) -> str:
    """sha256 of weights, optimizer state and random state after two epochs."""
    pl.seed_everything(0, verbose=False)
    module = Autoencoder()
    run = trainer(tmp_path, *callbacks, **settings)
    run.fit(module, loader(shuffle=True), loader(seed=1))
    digest = hashlib.sha256()
    for value in [*module.state_dict().values(), torch.get_rng_state()]:
        digest.update(value.numpy().tobytes())
    for state in run.optimizers[0].state.values():
        for value in state.values():
            digest.update(value.numpy().tobytes())
    digest.update(repr([random.getstate(), np.random.get_state()]).encode())
    digest.update(repr([submodule.training for submodule in module.modules()]).encode())
    return digest.hexdigest()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"accumulate_grad_batches": 2},
        {"val_check_interval": 2},
        pytest.param({"logger": True}, marks=pytest.mark.slow),
    ],
    ids=["plain", "accumulating", "validating often", "drawing"],
)
def test_training_is_bitwise_the_same(tmp_path: Path, settings: dict[str, Any]) -> None:
    without = everything(tmp_path, **settings)
    measured = monitor(every_n_steps=2)
    assert everything(tmp_path, measured, **settings) == without
    assert measured.readings is not None


@pytest.mark.filterwarnings("ignore:JEPAScoreMonitor")
@pytest.mark.parametrize("calls", [0, 1, 3, 12])
def test_training_is_the_same_after_a_measurement_that_failed_half_way(tmp_path: Path, calls: int) -> None:
    done = []

    def breaks(module: nn.Module, x: Tensor) -> Tensor:
        done.append(torch.rand(1))
        if len(done) > calls:
            raise RuntimeError("half-way")
        return module(x)

    callback = monitor(encoder=breaks, on_error="warn")
    assert everything(tmp_path, callback) == everything(tmp_path)
    assert len(done) > calls
    assert 1.0 in callback.history.values["monitor/failed"]


def test_a_careless_monitor_is_noticed(tmp_path: Path) -> None:
    """The comparison above can fail: each of these alone changes the hash."""

    class Careless(pl.Callback):
        def __init__(self, act: Callable[[pl.LightningModule], object]) -> None:
            self.act = act

        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.current_epoch == 0:
                self.act(pl_module)

    without = everything(tmp_path)
    careless: list[Callable[[pl.LightningModule], object]] = [
        lambda module: torch.rand(1),
        lambda module: random.random(),
        lambda module: np.random.rand(),
        lambda module: next(iter(loader(shuffle=True))),
        lambda module: module(images()),
        lambda module: module.eval(),
        lambda module: module.train(),
    ]
    assert all(everything(tmp_path, Careless(act)) != without for act in careless)
