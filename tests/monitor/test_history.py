"""A history of many measurements is thinned out, survives a checkpoint, and follows the same images."""

from __future__ import annotations

import io
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jepa_monitor.history import MOST_MEASUREMENTS, MOST_SPECTRA, History, spread_over, thinned


def long_history(measurements: int, *, samples: int = 2048, tags: int = 60) -> History:
    history = History()
    for step in range(measurements):
        history.append_ranking(10 * step, torch.randn(samples, dtype=torch.float64), torch.randn(384))
        history.append(10 * step, step, {f"group/a_long_name_of_a_tag_{tag}": step + tag / 100 for tag in range(tags)})
    return history


def test_it_survives_safe_loading_and_stays_small() -> None:
    history = long_history(300)
    file = io.BytesIO()
    torch.save(history.state_dict(), file)
    assert file.tell() < 100_000
    file.seek(0)
    again = History()
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.steps == history.steps
    assert again.values == history.values
    assert again.followed == history.followed
    for name in ("spectra", "percentiles"):
        rows, expected = getattr(again, name), getattr(history, name)
        assert rows.keys() == expected.keys()
        assert all(torch.equal(rows[step], expected[step]) for step in rows)
    assert again.previous is not None
    assert torch.equal(again.previous, history.previous)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("monitor/seconds(s)", "monitor/seconds"),
        ("monitor/overhead(%)", "monitor/overhead_percent"),
        ("density/log_density_median(nats)", "scores/log_density_median"),
        ("density/jepa_score_q10(nats)", "scores/jepa_score_q10"),
        ("density/jepa_score_q90", "scores/jepa_score_q90"),
        ("alarm/collapse", "monitor/alarm_collapse"),
        ("density/spearman_a truth(s)", "density/spearman_a truth(s)"),
    ],
)
def test_tags_of_a_checkpoint_have_the_names_of_now(before: str, now: str) -> None:
    history, again = History(), History()
    history.append(0, 0, {before: 1.0})
    again.load_state_dict(history.state_dict())
    again.append(5, 1, {now: 2.0})
    assert again.values == {now: [1.0, 2.0]}


def test_values_of_other_callbacks_survive_and_are_thinned() -> None:
    history, again = History(), History()
    for step in range(100):
        history.note(step, {"knn/accuracy": step / 100})
    history.note(99, {"knn/accuracy": 0.5})
    again.load_state_dict(history.state_dict())
    assert again.beside == history.beside
    column = again.beside["knn/accuracy"]
    assert len(column) <= MOST_MEASUREMENTS
    assert (min(column), max(column), column[99]) == (0, 99, 0.5)


def test_a_checkpoint_from_before_other_callbacks_were_noted_is_read() -> None:
    older = {name: value for name, value in long_history(2).state_dict().items() if name != "beside"}
    again = History()
    again.load_state_dict(older)
    assert again.beside == {}


def test_spectra_of_whitened_embeddings_are_not_continued() -> None:
    history, again = long_history(2), History()
    older = {name: value for name, value in history.state_dict().items() if name != "coordinates"}
    again.load_state_dict(older)
    assert again.spectra == {}
    assert again.percentiles.keys() == history.percentiles.keys()


def test_many_measurements_are_thinned_and_the_ends_stay() -> None:
    history = long_history(300, samples=16, tags=2)
    assert MOST_MEASUREMENTS // 2 < len(history) <= MOST_MEASUREMENTS
    assert len(history.spectra) <= MOST_SPECTRA
    assert history.steps[0] == 0
    assert history.steps[-1] == 2990
    assert next(iter(history.spectra)) == 0
    assert list(history.spectra)[-1] == 2990
    assert all(len(column) == len(history) for column in history.values.values())


def test_an_empty_history_survives_too() -> None:
    again = History()
    again.load_state_dict(History().state_dict())
    assert len(again) == 0
    assert again.previous is None


def test_a_tag_that_comes_later_is_nan_before() -> None:
    history = History()
    history.append(0, 0, {"a": 1.0})
    history.append(5, 1, {"b": 2.0})
    assert history.values["a"][0] == 1.0
    assert math.isnan(history.values["a"][1])
    assert math.isnan(history.values["b"][0])


@given(st.integers(2, 500))
def test_thinning_keeps_order_and_ends(count: int) -> None:
    kept = thinned(count)
    assert kept == sorted(set(kept))
    assert kept[0] == 0
    assert kept[-1] == count - 1
    assert len(kept) <= count // 2 + 1


def test_followed_samples_span_the_ranking() -> None:
    assert spread_over(torch.tensor([3.0, math.nan, 1.0, 2.0, 5.0, 4.0]), 3) == [2, 0, 4]
    assert spread_over(torch.tensor([1.0]), 8) == [0]


def test_a_followed_sample_that_is_not_measured_is_nan() -> None:
    history = History()
    history.append_ranking(0, torch.tensor([1.0, 3.0, 2.0]), None)
    history.append_ranking(5, torch.tensor([1.0, 2.0]), None)
    assert history.followed == [0, 2, 1]
    assert history.percentiles[5].nan_to_num(-1.0).tolist() == [25.0, -1.0, 75.0]
