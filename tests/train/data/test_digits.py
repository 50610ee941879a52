"""scikit-learn's digits."""

from __future__ import annotations

import sys

import pytest
import torch
from sklearn.datasets import load_digits

from jepa_train.data import DigitsDataModule
from jepa_train.errors import ConfigurationError


def test_train_and_probe_are_all_digits_and_share_none() -> None:
    data = DigitsDataModule(contrast=0.5)
    train, probe = data.make_train(), data.make_probe()
    assert (len(train), len(probe)) == (1497, 300)
    assert train[0]["image"].shape == (1, 8, 8)
    pixels = torch.cat([train.images, probe.images]).flatten(1)
    known = torch.from_numpy(load_digits().data).float()
    brightness = pixels.double().sum(1).sort().values
    whole = ((known / 16 - 0.3055) * (0.5 / 0.3762)).double().sum(1).sort().values
    torch.testing.assert_close(brightness, whole, rtol=0.0, atol=1e-4)
    assert sorted(set(train.labels.tolist())) == sorted(set(probe.labels.tolist())) == list(range(10))
    assert int(probe.labels[1]) == int(load_digits().target[6])


def test_training_images_are_normalised() -> None:
    images = DigitsDataModule(contrast=2.0).make_train().images
    assert float(images.mean()) == pytest.approx(0.0, abs=1e-3)
    assert float(images.std()) == pytest.approx(2.0, abs=1e-3)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ConfigurationError, match=r"pip install -e '\.\[digits\]'"):
        DigitsDataModule().make_train()
