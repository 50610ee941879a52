"""Data that are not given are found in the DataModule or the Trainer's loaders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Subset, SubsetRandomSampler, TensorDataset, random_split

from jepa_monitor.probe.sources import find_probe
from tests.monitor.helpers import Autoencoder, images, loader, monitor, trainer

# the frozen part of the project is meant to be in eval mode
pytestmark = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_baselines_are_fitted_to_other_samples_than_the_probe(tmp_path: Path) -> None:
    data = TensorDataset(images(64))
    found = {}
    for name, validation in {"a part": DataLoader(Subset(data, range(16))), "none": None}.items():
        callback = monitor(num_samples=32)
        run = trainer(tmp_path, callback, limit_val_batches=0 if validation is None else 1.0)
        run.fit(Autoencoder(), DataLoader(data, batch_size=8), validation)
        assert callback.prepared is not None
        reference = callback.prepared.facts.reference
        assert reference is not None
        found[name] = reference.inputs
    assert torch.equal(found["a part"], images(64)[16:32])  # 16 of the first 32 are in the probe
    assert torch.equal(found["none"], images(64)[32:])


def test_validation_data_are_the_probe_even_if_they_are_loaded_late(tmp_path: Path) -> None:
    callback = monitor(reference=images(16, seed=4))
    run = trainer(tmp_path, callback, num_sanity_val_steps=0, check_val_every_n_epoch=2)
    run.fit(Autoencoder(), loader(), loader(seed=1))
    assert callback.prepared is not None
    assert torch.equal(callback.prepared.probe.inputs, images(48, seed=1))


class Measured(TensorDataset):
    """Samples whose densities are known by index alone."""

    def __init__(self, count: int) -> None:
        super().__init__(images(count))
        self.log_densities = {"truth": -torch.arange(float(count))}


@pytest.mark.filterwarnings("ignore:JEPAScoreMonitor. monitor/keep is NaN. .* samples are fewer than 16")
@pytest.mark.parametrize("kind", ["whole", "split", "split twice", "sampler", "more than are measured"])
def test_truths_by_sample_follow_the_samples(tmp_path: Path, kind: str) -> None:
    dataset = Measured(24)
    part, _ = random_split(dataset, [12, 12], torch.Generator().manual_seed(0))
    sampler = SubsetRandomSampler([9, 20, 3, 7])
    loaders = {
        "whole": DataLoader(dataset),
        "split": DataLoader(part),
        "split twice": DataLoader(Subset(part, [5, 2, 8, 11])),
        "sampler": DataLoader(dataset, sampler=sampler),
        "more than are measured": DataLoader(dataset),
    }
    twice = [part.indices[index] for index in (5, 2, 8, 11)]
    expected = {"split": list(part.indices), "split twice": twice, "sampler": [3, 7, 9, 20]}.get(kind, range(24))
    callback = monitor(log_density=None, num_samples=16, reference=images(16, seed=4))
    trainer(tmp_path, callback).validate(Autoencoder(), loaders[kind], verbose=False)
    assert callback.prepared is not None
    found = callback.prepared.facts.truths["truth"].tolist()
    assert found == [-float(index) for index in expected][:16]
    assert torch.equal(callback.prepared.probe.inputs, dataset.tensors[0][list(expected)[:16]])


def test_a_given_truth_may_be_a_tensor_beside_a_tuple_of_tensors(tmp_path: Path) -> None:
    truth = torch.arange(20.0)
    callback = monitor(probe=(images(20), torch.zeros(20)), log_density={"depth": truth.numpy(), "height": truth})
    trainer(tmp_path, callback).validate(Autoencoder(), loader(), verbose=False)
    assert callback.prepared is not None
    assert all(torch.equal(found, truth.double()) for found in callback.prepared.facts.truths.values())


def test_no_data_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pass probe="):
        find_probe(monitor().sources, trainer(tmp_path))
