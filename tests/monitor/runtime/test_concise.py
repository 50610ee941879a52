"""An object that holds tensors prints their shapes, in a line."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest
import torch

import jepa_monitor
import jepa_train
from jepa_monitor import EmbeddingReference
from jepa_monitor.ranking import GaussianBaseline
from jepa_monitor.runtime.concise import Concise


@pytest.mark.parametrize("package", [jepa_monitor, jepa_train])
def test_every_public_dataclass_with_tensors_is_concise(package: ModuleType) -> None:
    names = [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    classes = {
        found for name in names for _, found in inspect.getmembers(importlib.import_module(name), inspect.isclass)
    }
    holding = [
        found
        for found in classes
        if dataclasses.is_dataclass(found)
        and not found.__name__.startswith("_")
        and found.__module__.startswith(package.__name__)
        and any(
            "Tensor" in str(field.type) and "Callable" not in str(field.type) for field in dataclasses.fields(found)
        )
    ]
    assert holding
    assert [found.__name__ for found in holding if found.__repr__ is not Concise.__repr__] == []


def test_shapes_stand_for_values() -> None:
    z = torch.randn(200, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reference = EmbeddingReference.fit(z)
    assert "embeddings=Tensor(200, 64)" in repr(reference)
    for fitted in (reference, GaussianBaseline.fit(z.view(-1, 1, 8, 8))):
        assert len(repr(fitted)) < 200
        assert "\n" not in repr(fitted)
