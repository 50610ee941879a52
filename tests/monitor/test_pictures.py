"""Pictures: what they show, that odd data does not stop them, and that they leave matplotlib as it was."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from jepa_monitor import pictures
from jepa_monitor.pictures import figure as canvas
from jepa_monitor.pictures.gallery import pixel_range, thumbnails
from jepa_monitor.pictures.gaussianity import norm_quantiles
from jepa_monitor.pictures.percentiles import percentiles
from jepa_monitor.pictures.scores import bin_edges

PACKAGE = Path(pictures.__file__).parents[1]
NAN, INF = math.nan, math.inf


def row(count: int = 4, channels: int = 1, title: str = "all") -> pictures.GalleryRow:
    images = torch.rand(2, count, channels, 8, 8)
    scores = torch.randn(2, count).sort(1)[0]
    return pictures.GalleryRow(title, images[0], images[1], scores[0], scores[1])


def spectra(count: int = 5, length: int = 12) -> Tensor:
    return torch.randn(count, length).sort(1, descending=True)[0]


def plane(count: int = 50, value: float | None = None) -> Tensor:
    values = torch.randn(count)
    return pictures.heat_map_picture(
        torch.randn(count, 2), {"truth": values, "score": values if value is None else torch.full((count,), value)}
    )


def histogram(*others: float, aurocs: dict[str, float] | None = None) -> Tensor:
    sets = {"probe": np.linspace(-3, 3, 40)} | {f"_set {k}": np.array([v]) for k, v in enumerate(others)}
    return pictures.histogram_picture(sets, name="log_density", aurocs=aurocs)


def over_training(count: int, steps: int, value: float = 40.0) -> Tensor:
    values = torch.full((steps, count), value)
    return pictures.gallery_over_training_picture(torch.rand(count, 1, 6, 6), range(steps), values)


USUAL: dict[str, Callable[[], Tensor]] = {
    "spectrum": lambda: pictures.spectrum_picture(spectra(), 3),
    "spectrum over training": lambda: pictures.spectrum_over_training_picture([0, 1, 2, 3, 4], spectra(), 3),
    "qq": lambda: pictures.norm_qq_picture(torch.randn(64, 8), torch.randn(64, 5)),
    "scatter": lambda: pictures.scatter_picture(torch.randn(64), np.arange(64), spearman=0.5, name="log_density"),
    "histogram": lambda: histogram(1.0, 9.0, aurocs={"_set 0": 0.75}),
    "plane": plane,
    "gallery": lambda: pictures.gallery_picture([row(), row(8, title="Ankle boot")]),
    "gallery over training": lambda: over_training(3, 5),
}
ODD: dict[str, Callable[[], Tensor]] = {
    "spectrum of one": lambda: pictures.spectrum_picture(spectra(1, 1), 1),
    "spectrum with NaN": lambda: pictures.spectrum_picture(torch.cat([spectra(), torch.full((1, 12), NAN)]), 3),
    "spectrum with zeros": lambda: pictures.spectrum_picture(torch.tensor([[0.0, -INF], [1.0, -INF]]), 1),
    "spectrum out of range": lambda: pictures.spectrum_picture(torch.tensor([[2e3, -2e3]]), 9),
    "spectra of one step": lambda: pictures.spectrum_over_training_picture([7], spectra(1), 3),
    "spectra of one value": lambda: pictures.spectrum_over_training_picture([7], torch.zeros(1, 1), 1),
    "spectra with NaN": lambda: pictures.spectrum_over_training_picture(
        [0, 1], torch.tensor([[NAN, NAN], [0, -INF]]), 1
    ),
    "spectra of 32 steps": lambda: pictures.spectrum_over_training_picture(range(32), spectra(32, 200), 100),
    "qq of one": lambda: pictures.norm_qq_picture(torch.randn(1, 4), None),
    "qq of a constant": lambda: pictures.norm_qq_picture(torch.ones(9, 4), torch.zeros(9, 4)),
    "qq with NaN": lambda: pictures.norm_qq_picture(
        torch.tensor([[NAN, 1.0], [INF, 1.0], [1.0, 1.0]]), torch.zeros(3, 0)
    ),
    "qq of large norms": lambda: pictures.norm_qq_picture(torch.full((3, 2), 1e30), torch.full((3, 2), 1e-30)),
    "scatter of one": lambda: pictures.scatter_picture([1.0], [1e9], spearman=NAN, name="$_$"),
    "scatter with NaN": lambda: pictures.scatter_picture([1.0, NAN], [2.0, 3.0], spearman=NAN, name="x"),
    "histogram of one": lambda: histogram(5.0),
    "histogram with NaN": lambda: histogram(NAN, INF, aurocs={"_set 1": NAN}),
    "histogram of a constant": lambda: pictures.histogram_picture({"probe": np.full(5, 1e8)}, name="log_density"),
    "histogram of twelve": lambda: histogram(*range(11)),
    "plane of one": lambda: plane(1),
    "plane with NaN": lambda: plane(9, NAN),
    "plane of a constant": lambda: plane(9, 2.0),
    "plane of five": lambda: pictures.heat_map_picture(torch.zeros(3, 2), {str(k): torch.arange(3) for k in range(5)}),
    "gallery of one": lambda: pictures.gallery_picture([row(1)]),
    "gallery of one side": lambda: pictures.gallery_picture(
        [pictures.GalleryRow("", torch.rand(2, 3, 9, 5), torch.zeros(0, 3, 9, 5), torch.ones(2), torch.ones(0))]
    ),
    "gallery with NaN": lambda: pictures.gallery_picture(
        [
            pictures.GalleryRow(
                "a", torch.eye(4).log()[None, None], torch.ones(1, 2, 4, 4), *torch.tensor([[NAN], [-INF]])
            )
        ]
    ),
    "gallery of a constant": lambda: pictures.gallery_picture(
        [pictures.GalleryRow("a", torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4), *torch.tensor([[1e9], [-1e30]]))]
    ),
    "gallery of many": lambda: pictures.gallery_picture([row(12, 3, "a rather long name of a class")] * 20),
    "one image over training": lambda: over_training(1, 1),
    "images over many steps": lambda: over_training(20, 40),
}
EMPTY: dict[str, Callable[[], Tensor]] = {
    "spectrum": lambda: pictures.spectrum_picture(torch.full((3, 4), NAN), 2),
    "spectrum of none": lambda: pictures.spectrum_picture(torch.zeros(0, 4), 2),
    "spectra": lambda: pictures.spectrum_over_training_picture([1], torch.full((1, 4), NAN), 2),
    "spectra of none": lambda: pictures.spectrum_over_training_picture([], torch.zeros(0, 4), 2),
    "qq": lambda: pictures.norm_qq_picture(torch.full((3, 4), NAN), None),
    "qq of a collapsed embedding": lambda: pictures.norm_qq_picture(torch.zeros(3, 4), torch.zeros(3, 4)),
    "scatter": lambda: pictures.scatter_picture([NAN], [1.0], spearman=NAN, name="x"),
    "histogram": lambda: pictures.histogram_picture({"probe": np.array([NAN])}, name="x"),
    "plane": lambda: pictures.heat_map_picture(torch.zeros(2, 2), {"x": torch.full((2,), NAN)}),
    "plane of no place": lambda: pictures.heat_map_picture(torch.full((2, 2), NAN), {"x": torch.ones(2)}),
    "gallery": lambda: pictures.gallery_picture([]),
    "gallery without pixels": lambda: pictures.gallery_picture(
        [pictures.GalleryRow("a", torch.full((1, 1, 4, 4), NAN), torch.zeros(0, 1, 4, 4), torch.ones(1), torch.ones(0))]
    ),
    "over training": lambda: over_training(2, 3, NAN),
    "over no training": lambda: over_training(2, 0),
}


def inked(image: Tensor) -> float:
    """Share of pixels that are not white."""
    return float((image.amin(0) < 250).double().mean())


@pytest.mark.parametrize("draw", [*USUAL.values(), *ODD.values()], ids=[*USUAL, *ODD])
def test_an_image_of_sensible_size(draw: Callable[[], Tensor]) -> None:
    image = draw()
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    channels, height, width = image.shape
    assert channels == 3
    assert 600 <= width <= 1100
    assert 100 <= height <= 1200
    assert inked(image) > 0.01


@pytest.mark.parametrize(
    "draw", [*USUAL.values(), *ODD.values(), *EMPTY.values()], ids=[*USUAL, *ODD, *[f"no {k}" for k in EMPTY]]
)
def test_nothing_touches_the_edge(draw: Callable[[], Tensor]) -> None:
    """Clipped text would, and a background that is not white."""
    image = draw()
    edge = torch.cat([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], dim=1)
    assert int(edge.min()) == 255


@pytest.mark.parametrize("draw", EMPTY.values(), ids=EMPTY)
def test_nothing_finite_is_said(draw: Callable[[], Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    image = draw()
    assert 0 < inked(image) < 0.02
    monkeypatch.setattr(canvas, "NOTHING", "")
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


# quantiles of the norm


def test_quantiles_are_scipys() -> None:
    z = torch.randn(31, 6, dtype=torch.float64)
    expected, observed = norm_quantiles(z)
    np.testing.assert_allclose(expected, stats.chi2.ppf((np.arange(31) + 0.5) / 31, df=6), rtol=1e-12)
    np.testing.assert_allclose(observed, np.sort((z**2).sum(1).numpy()), rtol=1e-12)


def test_a_gaussian_lies_on_the_identity_and_a_scaled_one_beside_it() -> None:
    z = torch.randn(20_000, 16)
    expected, observed = norm_quantiles(z)
    inner = slice(200, -200)
    np.testing.assert_allclose(observed[inner], expected[inner], rtol=0.05)
    np.testing.assert_allclose(norm_quantiles(3.0 * z)[1], 9.0 * observed, rtol=1e-5)
    heavy = norm_quantiles(z * torch.rand(20_000, 1))[1]
    assert np.abs(np.log(heavy[inner] / expected[inner])).max() > 1


def test_quantiles_leave_out_what_is_not_finite() -> None:
    expected, observed = norm_quantiles(torch.tensor([[3.0, 4.0], [NAN, 1.0], [INF, 1.0]]))
    assert observed.tolist() == [25.0]
    assert expected.tolist() == pytest.approx([2 * math.log(2)])


# percentiles and bins


@given(st.lists(st.sampled_from([-2.0, 0.0, 0.5, 1.0, 7.0, NAN, INF]), max_size=12))
def test_percentiles_are_scipys(values: list[float]) -> None:
    found = percentiles(values)
    finite = [value for value in values if math.isfinite(value)]
    for value, percentile in zip(values, found, strict=True):
        if math.isfinite(value):
            assert percentile == pytest.approx(stats.percentileofscore(finite, value, kind="mean"))
        else:
            assert math.isnan(percentile)


def test_percentiles_are_blind_to_increasing_transforms() -> None:
    values = torch.randn(50, dtype=torch.float64)
    np.testing.assert_array_equal(percentiles(values), percentiles(values.exp()))
    assert len(set(percentiles(values))) == 50


def test_bins_hold_every_set() -> None:
    edges = bin_edges([np.linspace(0, 1, 1000), np.linspace(5, 6, 900)])
    assert edges is not None
    assert len(edges) == 51
    assert edges[0] == pytest.approx(0.005)
    assert edges[-1] == pytest.approx(5.995)
    constant = bin_edges([np.full(3, 2.0)])
    assert constant is not None
    assert constant[0] < 2 < constant[-1]
    assert bin_edges([]) is None


def test_the_auroc_is_in_the_legend() -> None:
    assert not torch.equal(histogram(1.0), histogram(1.0, aurocs={"_set 0": 0.6}))
    assert not torch.equal(histogram(1.0, aurocs={"_set 0": 0.9}), histogram(1.0, aurocs={"_set 0": 0.6}))


# colours and ticks


def test_colours_differ_where_values_do_and_missing_is_grey() -> None:
    shades = canvas.colours([0.0, 0.5, 1.0, 2.0, NAN])
    assert len({tuple(shade) for shade in shades[:3]}) == 3
    assert tuple(shades[2]) == tuple(shades[3])
    assert tuple(shades[4]) == canvas.MISSING
    np.testing.assert_allclose(shades[0], matplotlib.colormaps["viridis"](0.0)[:3])


def has(image: Tensor, shade: np.ndarray) -> bool:
    wanted = torch.from_numpy((255 * np.asarray(shade)).round()).to(torch.int16)
    return bool(((image.to(torch.int16) - wanted[:, None, None]).abs() <= 1).all(0).sum() > 200)


def test_cells_have_the_colour_of_their_percentile() -> None:
    images, values = torch.zeros(2, 1, 4, 4), torch.tensor([[10.0, 33.0], [95.0, NAN]])
    image = pictures.gallery_over_training_picture(images, [0, 1], values)
    for present in (0.10, 0.33, 0.95, NAN):
        assert has(image, canvas.colours(present))
    assert not has(image, canvas.colours(0.60))


def test_cells_are_numbered_up_to_twelve_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = over_training(1, 12), over_training(1, 13)
    monkeypatch.setattr("jepa_monitor.pictures.gallery.MOST_NUMBERED", 0)
    torch.manual_seed(0)
    assert not torch.equal(over_training(1, 12)[:, :, 300:], few[:, :, 300:])
    assert torch.equal(over_training(1, 13)[:, :, 300:], many[:, :, 300:])


def test_dots_have_the_colour_of_their_percentile() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    first, swapped = (pictures.heat_map_picture(points, {"x": torch.tensor(v)}) for v in ([1.0, 5.0], [5.0, 1.0]))
    assert not torch.equal(first, swapped)
    for shade in (0.25, 0.75):
        assert has(first, canvas.colours(shade))
    assert torch.equal(first, pictures.heat_map_picture(points, {"x": torch.tensor([1e-3, 5e9])}))


def test_steps_differ_in_colour() -> None:
    image = pictures.spectrum_over_training_picture([0, 10, 20], spectra(3), 2)
    for shade in canvas.colours([0.0, 0.46, 0.92]):
        assert has(image, shade)


@given(st.floats(-300, 300), st.floats(0.01, 300))
@settings(max_examples=200)
def test_log_ticks_are_few_and_inside(exponent: float, decades: float) -> None:
    low, high = 10.0**exponent, 10.0 ** min(exponent + decades, 307.0)
    if low * 1.02 >= high:
        return
    ticks = canvas.log_ticks(low, high)
    assert 1 <= len(ticks) <= 11
    assert all(low <= tick <= high for tick in ticks)
    assert ticks == sorted(set(ticks))


@given(st.integers(0, 200), st.integers(1, 20))
def test_some_are_not_too_many_and_keep_the_ends(count: int, most: int) -> None:
    found = canvas.some(count, most)
    assert len(found) <= most
    assert found == sorted(set(found))
    if count and most > 1:
        assert (found[0], found[-1]) == (0, count - 1)
    if count <= most:
        assert found == list(range(count))


# images


def test_pixels_share_one_range() -> None:
    dark, bright = torch.tensor([[[[-4.0, 0.0]]]]), torch.tensor([[[[6.0, NAN]]]])
    assert pixel_range([dark, bright, torch.zeros(0, 1, 2, 2)]) == (-4.0, 6.0)
    assert pixel_range([torch.full((1, 1, 2, 2), NAN)]) is None
    square = thumbnails(torch.tensor([[[[-4.0, 1.0], [6.0, NAN]]]]), 2, (-4.0, 6.0))
    assert square.shape == (1, 2, 2, 3)
    assert square[0, :, :, 0].tolist() == [[0, 128], [255, 128]]


def test_channels_are_colours_only_if_three() -> None:
    colour = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert thumbnails(colour, 4, (0.0, 1.0))[0, 0, 0].tolist() == [255, 0, 0]
    assert thumbnails(colour[:, :2], 4, (0.0, 1.0))[0, 0, 0].tolist() == [255, 255, 255]


def test_large_images_are_averaged_and_tall_ones_centred() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(8).expand(1, 1, 16, 16)
    assert set(thumbnails(stripes, 4, (0.0, 1.0)).flatten().tolist()) == {128}
    tall = thumbnails(torch.zeros(1, 1, 8, 4), 8, (0.0, 1.0))[0, :, :, 0]
    assert (tall[:, 2:6] == 0).all()
    assert (tall[:, :2] == 255).all()


def test_best_stand_left_and_worst_right() -> None:
    low, high = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    rows = [pictures.GalleryRow("a", high, low, torch.ones(2), torch.zeros(2))]
    tiles = pictures.gallery_picture(rows)[0, 60:100]
    left, right = tiles.chunk(2, dim=1)
    assert int((right == 0).sum()) > 1000
    assert int((left == 0).sum()) == 0


def test_scores_are_written() -> None:
    one = row()
    shifted = pictures.GalleryRow(one.title, one.highest, one.lowest, one.high_scores + 3, one.low_scores)
    assert not torch.equal(pictures.gallery_picture([one]), pictures.gallery_picture([shifted]))


@pytest.mark.parametrize(("steps", "values"), [([0, 1], torch.zeros(3, 2)), ([0], torch.zeros(2, 2))])
def test_steps_must_fit(steps: list[int], values: Tensor) -> None:
    with pytest.raises(ValueError, match="steps"):
        pictures.gallery_over_training_picture(torch.zeros(2, 1, 4, 4), steps, values)
    with pytest.raises(ValueError, match="steps"):
        pictures.spectrum_over_training_picture(steps, values, 1)
