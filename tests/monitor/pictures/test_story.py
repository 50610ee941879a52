"""The story of a run: lines with their words, no NaN drawn as 0, a logarithmic axis, alarms and images."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jepa_monitor import pictures
from jepa_monitor.pictures import Chart, figure
from jepa_monitor.pictures.story import spread
from tests.monitor.pictures.helpers import NAN, has, line, story


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that pictures were rendered from."""
    figures: list[Figure] = []

    def render(made: Figure, sheet: figure.Pixels | None = None) -> torch.Tensor:
        figures.append(made)
        return figure.render(made, sheet)

    monkeypatch.setattr("jepa_monitor.pictures.story.render", render)
    return figures


def words(made: Figure) -> list[str]:
    """Texts that are no numbers of ticks."""
    return [text.get_text() for text in made.texts if not text.get_text().isdigit()]


def lines_of(made: Figure) -> list[Line2D]:
    return [artist for artist in made.artists if isinstance(artist, Line2D) and len(list(artist.get_ydata()))]  # type: ignore[arg-type]  # never one number here


def heights_of(line: Line2D) -> list[float]:
    return [float(value) for value in line.get_ydata()]  # type: ignore[union-attr]  # never one number here


def test_each_line_has_its_words_and_last_value_and_there_is_no_legend(drawn: list[Figure]) -> None:
    lines = [line(0.1, 0.974), line(0.5, 0.72, label="on pixels"), line(3.0, 98.4, label="sliced EP")]
    story(Chart("ranking", lines, band=(0.5, 2.0, "Gaussian"), bounds=[(190.0, "collapse", figure.BLUE)]))
    (made,) = drawn
    expected = {"ranking", "0.97 log density", "0.72 on pixels", "98 sliced EP", "Gaussian", "collapse", "alarms: none"}
    assert set(words(made)) == expected | {"optimizer step"}
    assert made.legends == []


def test_words_have_the_colour_of_their_line(drawn: list[Figure]) -> None:
    story(Chart("ranking", [line(0.1, 0.9, colour=figure.GREEN)]))
    (text,) = [text for text in drawn[0].texts if "log density" in text.get_text()]
    (drawn_line,) = lines_of(drawn[0])
    assert text.get_color() == drawn_line.get_color() == figure.GREEN


def test_a_missing_value_breaks_the_line_and_is_said(drawn: list[Figure]) -> None:
    story(Chart("ranking", [line(0.1, NAN, 0.4, NAN), line(NAN, NAN, NAN, NAN, label="other")]))
    first, second = lines_of(drawn[0])
    heights = heights_of(first)
    assert [math.isnan(value) for value in heights] == [False, True, False, True]
    assert all(map(math.isnan, heights_of(second)))
    assert {"NaN log density", "NaN other"} <= set(words(drawn[0]))


def test_a_logarithmic_axis_keeps_small_ratios_apart_from_1(drawn: list[Figure]) -> None:
    ratios = Chart("Gaussianity", [line(100.0, 1.7)], logarithmic=True, bounds=[(190.0, "collapse", figure.BLUE)])
    story(ratios)
    bound, ratio = lines_of(drawn[0])
    collapse, (high, low) = heights_of(bound)[0], heights_of(ratio)
    share = math.log(100.0 / 1.7) / math.log(190.0 / 1.7)
    assert high - low == pytest.approx(share * (collapse - low))


def test_a_floor_keeps_small_differences_small(drawn: list[Figure]) -> None:
    for floor in (None, 0.0):
        story(Chart("directions", [line(1.9, 2.0)], tall=100, floor=floor))
    free, floored = (heights_of(lines_of(made)[0]) for made in drawn)
    assert floored[1] - floored[0] < 6.0 < free[1] - free[0]


def test_rounding_does_not_look_like_a_change(drawn: list[Figure]) -> None:
    story(Chart("stability", [line(0.99975021, 0.99975022)], tall=100))
    before, after = heights_of(lines_of(drawn[0])[0])
    assert after - before < 1.0
    ticks = [text.get_text() for text in drawn[0].texts if text.get_text().replace(".", "").isdigit()]
    assert ticks
    assert max(map(len, ticks)) <= 5  # there is no room for more


def test_a_verdict_stands_above_all_and_is_red_while_an_alarm_is_on(drawn: list[Figure]) -> None:
    chart = Chart("ranking", [line(0.1, 0.2)])
    for values in ((0.0, 1.0), (1.0, 0.0)):
        pictures.story_picture([chart], {"collapse": (range(2), values)}, verdict="Alarm: collapse.")
    said = [next(text for text in made.texts if text.get_text() == "Alarm: collapse.") for made in drawn]
    assert [text.get_color() for text in said] == [figure.RED, figure.INK]
    for made, text in zip(drawn, said, strict=True):
        assert text.get_position()[1] == max(other.get_position()[1] for other in made.texts)


def test_the_steps_are_those_of_all_charts(drawn: list[Figure]) -> None:
    story(Chart("first", [line(0.1, 0.2)]), Chart("second", [line(*range(9))]))
    first, second = ([float(step) for step in line.get_xdata()] for line in lines_of(drawn[0]))  # type: ignore[union-attr]  # never one number here
    assert first == pytest.approx(second[:2])


def test_an_alarm_that_was_on_has_a_row(drawn: list[Figure]) -> None:
    chart = Chart("ranking", [line(0.1, 0.2)])
    quiet, loud = story(chart, alarm=(0.0, 0.0)), story(chart, alarm=(0.0, 1.0))
    assert "alarms: none" in words(drawn[0])
    assert {"alarms", "collapse"} <= set(words(drawn[1]))
    red = tuple(int(figure.RED[place : place + 2], 16) / 255 for place in (1, 3, 5))
    assert not (quiet.shape == loud.shape and torch.equal(quiet, loud))
    assert bool(((loud[0] == round(255 * red[0])) & (loud[1] == round(255 * red[1]))).any())


@pytest.mark.parametrize("value", [NAN, 0.0])
def test_alarms_that_nobody_knows_are_not_said_to_be_off(value: float, drawn: list[Figure]) -> None:
    story(Chart("ranking", [line(0.1, 0.2)]), alarm=(value, value))
    assert ("alarms: none" in words(drawn[0]), "alarms: not known" in words(drawn[0])) == (value == 0, value != 0)


@pytest.mark.parametrize("label", ["single Gaussian", "W" * 40, figure.plain("$" * 9), figure.plain("$a" * 20)])
def test_words_end_where_images_begin(label: str, drawn: list[Figure]) -> None:
    chart = Chart("ranking", [line(0.1, 0.98, label=label)], bounds=[(0.5, label, figure.GREY)])
    rung = {"nonfinite jacobian": ((0, 1), (0.0, 1.0)), "W" * 40: ((0, 1), (0.0, 1.0))}
    images = torch.zeros(3, 1, 4, 4)
    pictures.story_picture([chart], rung, highest=images, lowest=images)
    (made,) = drawn
    beside = [text for text in made.texts if text.get_text().endswith("…") or label in text.get_text()]
    assert len(beside) >= 3
    first = min(text.get_window_extent().x0 for text in made.texts if text.get_text() in ("most", "least", "typical"))
    assert all(text.get_window_extent().x1 < first for text in beside)
    assert "nonfinite jacobian" in words(made)


def test_images_stand_at_the_side_under_their_words(drawn: list[Figure]) -> None:
    chart = Chart("ranking", [line(0.1, 0.2)])
    alone, beside = story(chart), story(chart, images=5)
    assert beside.shape[2] == alone.shape[2]
    assert {"most", "least", "typical"} <= set(words(drawn[1]))
    assert not has(alone[:, :, -100:], torch.zeros(3).numpy()) or beside.shape[1] > alone.shape[1]


@given(st.lists(st.floats(0, 100), max_size=6))
def test_words_are_moved_apart_in_their_order(heights: list[float]) -> None:
    moved = spread(heights, 100.0, 15.0)
    order = sorted(range(len(heights)), key=lambda position: heights[position])
    gaps = [moved[after] - moved[before] for before, after in pairwise(order)]
    assert all(gap >= 15.0 - 1e-9 for gap in gaps)
    assert all(-1e-9 <= place <= 100.0 + 1e-9 for place in moved)


def test_words_with_room_stay_where_they_are() -> None:
    assert spread([80.0, 10.0, 40.0], 100.0, 15.0) == [80.0, 10.0, 40.0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0.00"), (0.0007, "7e-4"), (-0.0007, "-7e-4"), (0.974, "0.97"), (7.1, "7.1"), (98.4, "98"), (3e5, "3e5")],
)
def test_last_values_are_short_and_a_small_one_is_not_zero(value: float, expected: str) -> None:
    assert line(0.1, value).words == f"{expected} log density"
