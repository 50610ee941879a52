"""All pictures: of sensible size, for odd data and none, and without a trace in matplotlib."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from torch import Tensor

from jepa_monitor.pictures import figure
from tests.monitor.pictures.helpers import EMPTY, NAN, ODD, USUAL, contrast, inked

PACKAGE = Path(figure.__file__).parents[1]


@pytest.mark.parametrize("draw", [*USUAL.values(), *ODD.values()], ids=[*USUAL, *ODD])
def test_an_image_of_sensible_size(draw: Callable[[], Tensor]) -> None:
    image = draw()
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    channels, height, width = image.shape
    assert channels == 4
    assert 600 <= width <= 1100
    assert 100 <= height <= 1200
    assert inked(image) > 0.01


@pytest.mark.parametrize(
    "draw", [*USUAL.values(), *ODD.values(), *EMPTY.values()], ids=[*USUAL, *ODD, *[f"no {k}" for k in EMPTY]]
)
def test_nothing_touches_the_edge(draw: Callable[[], Tensor]) -> None:
    """Clipped text would, and a background that is not transparent: a white block in TensorBoard's dark mode."""
    opacity = draw()[3]
    assert int(torch.cat([opacity[0], opacity[-1], opacity[:, 0], opacity[:, -1]]).max()) == 0


def test_words_are_legible_on_white_and_in_dark_mode() -> None:
    """A contrast of 3, which WCAG asks of large words and of graphics, on both grounds of TensorBoard."""
    for ground in ("#ffffff", "#303030"):
        assert contrast(figure.INK, ground) > 3


@pytest.mark.parametrize("colour", [figure.BLUE, figure.ORANGE, figure.GREEN, figure.PURPLE, figure.RED])
def test_lines_are_seen_on_white_and_in_dark_mode(colour: str) -> None:
    for ground in ("#ffffff", "#303030"):
        assert contrast(colour, ground) > 2


@pytest.mark.parametrize("draw", EMPTY.values(), ids=EMPTY)
def test_nothing_finite_is_said(draw: Callable[[], Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    image = draw()
    assert 0 < inked(image) < 0.02
    monkeypatch.setattr(figure, "NOTHING", "")
    assert not torch.equal(draw(), image)


@pytest.mark.parametrize("name", USUAL)
def test_the_users_style_changes_nothing_and_stays(name: str) -> None:
    torch.manual_seed(1)
    usual = USUAL[name]()
    style: dict[Any, Any] = {"axes.facecolor": "black", "text.color": "white", "axes.grid": True, "text.usetex": True}
    with matplotlib.rc_context(style):
        before = matplotlib.rcParams.copy()
        torch.manual_seed(1)
        styled = USUAL[name]()
        assert matplotlib.rcParams.copy() == before
    assert torch.equal(usual, styled)


@pytest.mark.slow
def test_drawing_needs_no_pyplot_and_importing_no_matplotlib() -> None:
    script = """
import sys, types
package = types.ModuleType("package")  # whose own imports are not run
package.__path__ = [sys.argv[1]]
sys.modules["package"] = package
import torch
from package import pictures
assert "matplotlib" not in sys.modules
pictures.gallery_over_training_picture(torch.rand(2, 1, 4, 4), [0, 1], torch.rand(2, 2))
pictures.scatter_picture([0.0, 1.0], [0.0, 1.0], spearman=1.0, name="x")
assert "matplotlib.figure" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    finished = subprocess.run([sys.executable, "-c", script, str(PACKAGE)], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]


def test_colours_differ_where_values_do_and_missing_is_grey() -> None:
    shades = figure.colours([0.0, 0.5, 1.0, 2.0, NAN])
    assert len({tuple(shade) for shade in shades[:3]}) == 3
    assert tuple(shades[2]) == tuple(shades[3])
    assert tuple(shades[4]) == figure.MISSING
    np.testing.assert_allclose(shades[0], matplotlib.colormaps["viridis"](0.0)[:3])
