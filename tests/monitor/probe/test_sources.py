"""Data that are not given are found in the DataModule or the Trainer's loaders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

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


def test_no_data_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pass probe="):
        find_probe(monitor().sources, trainer(tmp_path))
