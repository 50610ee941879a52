"""Random numbers do not depend on torch's default dtype, which changes what a generator draws."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jepa_monitor.evaluation.images import crop_and_flip
from jepa_monitor.gaussianity import sliced_epps_pulley
from jepa_monitor.gaussianity.characteristic import random_directions
from jepa_monitor.gaussianity.cloud import gaussian_white
from jepa_monitor.history import spread_over
from jepa_train.data import ShapesDataModule, image_mixture
from jepa_train.inputs.masks import MultiBlockMasks

ROOT = Path(__file__).parent.parent
SOURCES = [*(ROOT / "callbacks" / "jepa_monitor").rglob("*.py"), *(ROOT / "jepa_train").rglob("*.py")]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def cloud(*shape: int) -> Tensor:
    return torch.linspace(-1.0, 1.0, torch.Size(shape).numel(), dtype=torch.float64).sin().view(shape)


DRAWS: dict[str, Callable[[], Any]] = {
    "directions": lambda: random_directions(5, 7, generator=seeded()),
    "sliced statistics": lambda: sliced_epps_pulley(cloud(40, 5)),
    "white cloud": lambda: gaussian_white(30, 4, generator=seeded()),
    "views": lambda: crop_and_flip(cloud(6, 3, 8, 8).float(), seeded()),
    "followed samples": lambda: torch.tensor(spread_over(cloud(101), 8)),
    "masks": lambda: torch.cat([mask.flatten() for mask in MultiBlockMasks((8, 8))(6, seeded())]),
    "masks of the paper": lambda: torch.cat(
        [mask.flatten() for mask in MultiBlockMasks((8, 8), mode="paper")(6, seeded())]
    ),
    "mixture": lambda: image_mixture(image_size=8).sample(9, seed=0)[0],
    "shapes": lambda: ShapesDataModule(num_train=3).make_train().images,
}


@pytest.mark.parametrize("name", DRAWS)
def test_same_seed_same_values(name: str) -> None:
    expected = DRAWS[name]()
    with default_dtype(torch.float64):
        found = DRAWS[name]()
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


def draws_without_a_dtype(source: str) -> Iterator[int]:
    """Lines that call ``torch.rand`` or ``torch.randn``; initial weights follow the default dtype, as torch's do."""
    tree = ast.parse(source)
    weights = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and "Parameter" in ast.unparse(node.func)]
    of_weights = {inner for node in weights for inner in ast.walk(node)}
    for node in ast.walk(tree):
        draws = isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.rand", "torch.randn")
        if draws and node not in of_weights and "dtype" not in [keyword.arg for keyword in node.keywords]:
            yield node.lineno


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_draw_names_its_dtype(path: Path) -> None:
    assert list(draws_without_a_dtype(path.read_text())) == []


def test_the_search_finds_a_draw() -> None:
    assert list(draws_without_a_dtype("x = torch.rand(3)\nw = nn.Parameter(torch.randn(3))")) == [1]
