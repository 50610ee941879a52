"""No public name of a package hides one of its modules."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import pytest


def packages(name: str) -> list[ModuleType]:
    """A package and the packages within it."""
    root = importlib.import_module(name)
    inner = [info.name for info in pkgutil.walk_packages(root.__path__, f"{name}.") if info.ispkg]
    return [root, *map(importlib.import_module, inner)]


@pytest.mark.parametrize("name", ["jepa_monitor", "jepa_train"])
def test_no_module_is_hidden_by_a_function_of_its_name(name: str) -> None:
    hidden = [
        f"{package.__name__}.{module.name}"
        for package in packages(name)
        for module in pkgutil.iter_modules(package.__path__)
        if getattr(package, module.name, None)
        not in (None, importlib.import_module(f"{package.__name__}.{module.name}"))
    ]
    assert not hidden
