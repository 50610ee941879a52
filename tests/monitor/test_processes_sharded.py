"""Weights that are spread over several processes are measured as those of one."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from jepa_monitor import FeatureStatistics
from tests.monitor.helpers import Autoencoder, compare, images, loader, monitor_with_set, trainer_on
from tests.processes import run_on

pytestmark = pytest.mark.slow


class Sharded(Autoencoder):
    """Weights are spread over the processes (FSDP2), the encoder within a larger part that runs as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = nn.Sequential(self.encoder, self.bottleneck)

    def configure_model(self) -> None:
        if not isinstance(self.whole, FSDPModule):
            for part in (self.encoder, self.bottleneck, self.whole, self.decoder):
                fully_shard(part)

    def forward(self, x: Tensor) -> Tensor:
        return self.whole(x)


def sharding_trainer(rank: int, world_size: int, *callbacks: pl.Callback, **settings: Any) -> pl.Trainer:
    limit = timedelta(seconds=30)
    strategy = ModelParallelStrategy(data_parallel_size=world_size, tensor_parallel_size=1, timeout=limit)
    return trainer_on(rank, world_size, *callbacks, strategy=strategy if world_size > 1 else None, **settings)


def measure_sharded(rank: int, world_size: int, size: int) -> dict[str, float]:
    """Values of ``validate``; on one process of the module as it is."""
    trainer = sharding_trainer(rank, world_size, monitor_with_set(probe=images(size, seed=2), reference=images()))
    pl.seed_everything(0, verbose=False)
    (values,) = trainer.validate(Sharded() if world_size > 1 else Autoencoder(), loader(7, seed=1), verbose=False)
    return values


def train_sharded(rank: int, world_size: int, folder: str) -> dict[str, Any]:
    """Trains a sharded model with a monitor of a part of it, which must not run before the whole, and follows a tag."""
    tag = "gaussianity/sliced_ep_ratio"
    callback = monitor_with_set(encoder="encoder", probe=images(16, seed=2), every_n_epochs=2)
    statistics = FeatureStatistics(encoder="encoder", every_n_epochs=2, on_error="raise")
    best, stop = ModelCheckpoint(folder, monitor=tag, save_top_k=-1), EarlyStopping("features/rank_ratio", patience=99)
    callbacks = (callback, statistics, best, stop)
    run = sharding_trainer(rank, world_size, *callbacks, max_epochs=2, enable_checkpointing=True)
    run.fit(Sharded(), loader(), loader(7, seed=1))
    return {
        "values": callback.history.values[tag],
        "rank": statistics.values["features/rank_ratio"],
        "saved": len(best.best_k_models),
    }


@pytest.mark.parametrize("size", [7, 1])  # each forward pass is a collective, also where a process has no sample
def test_weights_spread_over_two_processes_measure_the_same(size: int) -> None:
    (one,) = run_on(1, measure_sharded, size)
    first, second = run_on(2, measure_sharded, size)
    compare(first, one, rtol=1e-5, atol=1e-5)
    compare(second, first, rtol=0.0, atol=0.0)


def test_a_sharded_model_trains_with_callbacks_that_follow_a_monitor_of_its_part(tmp_path: Path) -> None:
    first, second = run_on(2, train_sharded, str(tmp_path))
    assert first == second
    assert first["saved"] == 2
    assert len(first["values"]) == 2
    assert all(math.isfinite(value) for value in [*first["values"], first["rank"]])
