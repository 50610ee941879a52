"""Several processes measure what one does."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from jepa_monitor import FeatureStatistics
from jepa_monitor.probe.shards import gather_by_index
from jepa_monitor.tag_groups import set_tags
from tests.monitor.helpers import (
    compare,
    images,
    loader,
    monitor,
    monitor_with_set,
    seeded,
    trainer_on,
    true_log_density,
)
from tests.processes import run_on

pytestmark = pytest.mark.slow
SIZES = [1, 7, 16]


def measure_probes(rank: int, world_size: int, sizes: list[int]) -> dict[int, dict[str, float]]:
    """Probe size to the values before training, and to those of ``validate``."""
    found = {}
    for size in sizes:
        callback = monitor_with_set(probe=images(size, seed=2))
        trainer_on(rank, world_size, callback, max_epochs=1).fit(seeded(), loader(), loader(7, seed=1))
        found[size] = {tag: values[0] for tag, values in callback.history.values.items()}
        (validated,) = trainer_on(rank, world_size, callback).validate(seeded(), loader(7, seed=1), verbose=False)
        found[size] |= {f"validated {tag}": value for tag, value in validated.items()}
    return found


def measure_with_truth_by_sample(rank: int, world_size: int, size: int) -> float:
    """Ranking quality of a probe of ``size`` of 20 samples, whose densities are a tensor."""
    truth = true_log_density(images(20, seed=2))
    callback = monitor_with_set(probe=images(20, seed=2), log_density=truth, num_samples=size)
    trainer_on(rank, world_size, callback).validate(seeded(), loader(7, seed=1), verbose=False)
    return callback.values["density/spearman"]


def measure_with_reference(rank: int, world_size: int) -> dict[str, float]:
    """A reference that is read in two parts, the second uneven and with samples of the probe."""
    probe, reference = images(16, seed=2), images(53, seed=4)
    reference[[20, 21, 40]] = probe[:3]
    callback = monitor_with_set(probe=probe, reference=reference, num_samples=16)
    trainer_on(rank, world_size, callback).validate(seeded(), loader(7, seed=1), verbose=False)
    return callback.values


def measure_in_subspace(rank: int, world_size: int) -> dict[str, float]:
    """Volumes from 12 of 32 rows, of a probe and of a further set that are uneven on two and on three processes."""
    wide = seeded()
    wide.encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 32), nn.Tanh())
    far, probe, reference = 3.0 * images(53, seed=5), images(101, seed=2), images(200, seed=4)
    settings = {"encoder": "encoder", "estimator": "subspace", "rank": 8}
    callback = monitor(ood={"far": far}, probe=probe, reference=reference, **settings)
    trainer_on(rank, world_size, callback).validate(wide, loader(7, seed=1), verbose=False)
    return callback.values


def gather_uneven(rank: int, world_size: int, counts: list[int]) -> list[list[float]]:
    """Positions and values of which each process has another number, some of them twice."""
    start = sum(counts[:rank])
    indices = torch.arange(start, start + counts[rank])
    if rank == 0:
        indices = torch.cat([indices, torch.tensor([0])])  # as a padding sampler repeats a sample
    return gather_by_index(indices, torch.stack([indices.double(), -indices.double()], dim=1)).tolist()


def follow_tags(rank: int, world_size: int) -> dict[str, Any]:
    """``ModelCheckpoint`` and ``EarlyStopping`` on our tags."""
    folder = Path(tempfile.gettempdir()) / f"follow_{os.getppid()}"
    best = ModelCheckpoint(folder, monitor="density/spearman", mode="max", save_last=True)
    stop = EarlyStopping("gaussianity/sliced_ep_ratio", patience=1, min_delta=1e6)  # no improvement is that large
    run = trainer_on(rank, world_size, monitor_with_set(), best, stop, max_epochs=9, enable_checkpointing=True)
    run.fit(seeded(), loader(), loader(7, seed=1))
    score = best.best_model_score
    return {
        "score": float("nan") if score is None else float(score),
        "epochs": run.current_epoch,
        "path": best.best_model_path,
    }


class Unpicklable(IterableDataset[Any]):
    """A stream whose samples cannot be sent to another process."""

    def __iter__(self) -> Iterator[Any]:
        return ({"image": image, "later": lambda: None} for image in images(20, seed=2))


def measure_stream(rank: int, world_size: int) -> dict[str, float]:
    callback = monitor_with_set(probe=Unpicklable(), reference=images())
    (values,) = trainer_on(rank, world_size, callback).validate(seeded(), loader(7, seed=1), verbose=False)
    return values


def keep_a_budget(rank: int, world_size: int) -> tuple[list[float], list[float]]:
    """Samples and overhead of each measurement, with an encoder that is slower on one process."""

    def encode(module: Any, x: Tensor) -> Tensor:
        time.sleep(4e-3 * (1 + rank) * len(x))
        return module(x)

    callback = monitor_with_set(encoder=encode, probe=images(200, seed=2), ood={}, budget=0.05)
    trainer_on(rank, world_size, callback, max_epochs=3).fit(seeded(), loader(), loader(7, seed=1))
    values = callback.history.values
    return values["monitor/samples"], values["monitor/overhead_percent"]


def follow_from_the_first_validation(rank: int, world_size: int, folder: str) -> dict[str, Any]:
    """A tag that is measured each third epoch, in a second ``fit`` and after a resume without our callbacks' state."""
    found: dict[str, Any] = {}
    for name, tag, callback in (
        ("monitor", "gaussianity/sliced_ep_ratio", monitor_with_set(every_n_epochs=3, at_start=False)),
        ("statistics", "features/std_mean", FeatureStatistics(every_n_epochs=3, on_error="raise")),
    ):
        best, stop = ModelCheckpoint(f"{folder}/{name}", monitor=tag, save_top_k=-1), EarlyStopping(tag, patience=99)
        run = trainer_on(rank, world_size, callback, best, stop, max_epochs=1, enable_checkpointing=True)
        autoencoder = seeded()
        run.fit(autoencoder, loader(), loader(7, seed=1))
        run.validate(autoencoder, loader(5, seed=3), verbose=False)
        run.fit_loop.max_epochs = 3
        run.fit(autoencoder, loader(), loader(7, seed=1))
        found[name] = [run.current_epoch, len(best.best_k_models), callback.values[tag]]
    return found


def test_each_process_fits_the_same_density_to_the_same_reference() -> None:
    (one,) = run_on(1, measure_with_reference)
    assert one["monitor/reference"] == 50.0
    assert math.isfinite(one["density/spearman"])
    assert math.isfinite(one["jacobian/intrinsic_dimension"])
    assert math.isfinite(one["density/spearman_gaussian_embedding"])
    for other in run_on(2, measure_with_reference):
        assert other["monitor/reference"] == 50.0
        compare(other, one, rtol=1e-5, atol=1e-5)


def test_uneven_shards_measure_what_one_process_does() -> None:
    (one,) = run_on(1, measure_probes, SIZES)
    assert math.isfinite(one[7]["density/spearman"])
    assert math.isnan(one[1]["density/spearman"])
    assert math.isfinite(one[1]["scores/jepa_score_median"])
    for world_size in (2, 3):
        each = run_on(world_size, measure_probes, SIZES)
        for size in SIZES:
            compare(each[0][size], one[size], rtol=1e-5, atol=1e-5)
            for other in each[1:]:
                compare(other[size], each[0][size], rtol=0.0, atol=0.0)


def test_volumes_from_few_rows_are_those_of_one_process() -> None:
    (one,) = run_on(1, measure_in_subspace)
    assert (one["monitor/samples"], one["monitor/subspace_rows"]) == (101.0, 12.0)
    for tag in ("density/spearman", "density/spearman_gaussian_embedding", "scores/subspace_spearman"):
        assert math.isfinite(one[tag])
    assert all(math.isfinite(one[tag]) == ("jepa_score" not in tag) for tag in set_tags("far"))
    for world_size in (2, 3):
        first, *others = run_on(world_size, measure_in_subspace)
        compare(first, one, rtol=1e-4, atol=1e-4)
        for other in others:
            compare(other, first, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("counts", [[4, 3], [1, 0], [3, 3, 1]])
def test_uneven_and_empty_parts_are_put_together(counts: list[int]) -> None:
    expected = [[float(i), -float(i)] for i in range(sum(counts))]
    assert run_on(len(counts), gather_uneven, counts) == [expected] * len(counts)


def test_each_process_looks_up_the_densities_of_its_own_samples() -> None:
    (one,) = run_on(1, measure_with_truth_by_sample, 15)
    assert math.isfinite(one)
    assert run_on(2, measure_with_truth_by_sample, 15) == pytest.approx([one, one])


def test_checkpoints_and_early_stopping_follow_our_tags_on_two_processes() -> None:
    first, second = run_on(2, follow_tags)
    assert first == second
    assert math.isfinite(first["score"])
    assert first["epochs"] == 2


def test_all_processes_measure_the_first_ones_stream() -> None:
    (one,) = run_on(1, measure_stream)
    first, second = run_on(2, measure_stream)
    compare(first, one, rtol=1e-5, atol=1e-5)
    compare(second, first, rtol=0.0, atol=0.0)


def test_a_tag_is_followed_from_the_first_validation_on_two_processes(tmp_path: Path) -> None:
    first, second = run_on(2, follow_from_the_first_validation, str(tmp_path))
    assert first == second
    for epochs, saved, value in first.values():
        assert (epochs, saved) == (3, 3)
        assert math.isfinite(value)


def test_all_processes_choose_the_same_samples() -> None:
    first, second = run_on(2, keep_a_budget)
    np.testing.assert_array_equal(first, second)  # what was chosen, and the seconds that it cost
    assert min(first[0]) < 200.0
