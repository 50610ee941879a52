"""Seeds, and the share of each process in the draws of a global batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jepa_train.inputs.draws import BatchDraws, Purpose, seed_of
from jepa_train.inputs.masks import MultiBlockMasks
from jepa_train.inputs.views import RandomView


@given(st.lists(st.tuples(*[st.integers(0, 2**40)] * 3), min_size=2, max_size=20, unique=True))
def test_seeds_differ_where_an_argument_does(calls: list[tuple[int, int, int]]) -> None:
    seeds = {
        seed_of(purpose, seed=seed, step=step, global_rank=number)
        for purpose in Purpose
        for seed, step, number in calls
    }
    assert len(seeds) == len(Purpose) * len(calls)
    assert all(0 <= seed < 2**63 for seed in seeds)


INTENSE: dict[str, Any] = {"brightness": 0.3, "contrast": 0.4, "crop_aspect": 1.5}


COLORED: dict[str, Any] = {"saturation": 0.5, "hue": 0.2}


@pytest.mark.parametrize("further", [{}, INTENSE, COLORED], ids=["places", "intensities", "colors"])
def test_processes_share_out_the_draws_of_the_global_batch(further: dict[str, Any]) -> None:
    masks, view = MultiBlockMasks((4, 4), num_targets=2), RandomView(crop_scale=0.5, flip=True, **further)
    images, cpu = torch.randn(6, 3, 8, 8), torch.device("cpu")

    def drawn(global_rank: int, world_size: int) -> list[torch.Tensor]:
        draws, own = BatchDraws(3, 5, global_rank, world_size), images[global_rank::world_size]
        return [*draws.masks(masks, len(own), cpu), *draws.views([view, view], [own])]

    first, second = drawn(0, 2), drawn(1, 2)
    for whole, *halves in zip(drawn(0, 1), first, second, strict=True):
        torch.testing.assert_close(torch.stack(halves, dim=1).flatten(0, 1), whole, rtol=0.0, atol=1e-6)


# what was drawn before there were intensities: four pixels, and the sum of each view weighted by 1, 2, 3 ...
GOLDEN = {
    "all": ([-0.560483, -0.052476, 0.581391, 1.358122], -1884.5213242433965, 25234.720653429627),
    "crop": ([-0.36158, 0.694438, 0.760343, 0.242603], -281.7821312882006, 24512.648035019636),
    "shift": ([-0.329265, 0.204723, 0.559179, 1.352925], -589.4327300339937, 25583.932906050235),
}
VIEWS = {
    "all": RandomView(crop_scale=0.5, shift=0.1, flip=True, noise=0.2),
    "crop": RandomView(crop_scale=0.5),
    "shift": RandomView(shift=0.2, flip=True),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_views_without_intensities_are_drawn_as_they_were(name: str) -> None:
    images = torch.arange(3 * 2 * 36, dtype=torch.float32).mul(0.37).sin().view(3, 2, 6, 6)
    first, second = BatchDraws(3, 5, 0, 1).views([VIEWS[name]] * 2, [images, images + 1])
    pixels, *sums = GOLDEN[name]
    found = [first[0, 0, 1, 2], first[2, 1, 5, 5], second[1, 0, 3, 4], second[2, 0, 0, 0]]
    torch.testing.assert_close(torch.stack(found), torch.tensor(pixels), atol=2e-6, rtol=0.0)
    weights = torch.arange(1, first.numel() + 1, dtype=torch.float64).view(first.shape)
    assert [float((view.double() * weights).sum()) for view in (first, second)] == pytest.approx(sums, abs=0.02)


def test_intensities_leave_places_and_noise_as_they_are() -> None:
    images = torch.rand(3, 2, 6, 6)
    plain = BatchDraws(3, 5, 0, 1).views([VIEWS["all"]] * 2, [images])
    faint = RandomView(crop_scale=0.5, shift=0.1, flip=True, noise=0.2, brightness=1e-7, contrast=1e-7)
    for expected, found in zip(plain, BatchDraws(3, 5, 0, 1).views([faint] * 2, [images]), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0.0)


def test_colors_leave_places_and_noise_as_they_are() -> None:
    images = torch.rand(3, 3, 6, 6)
    plain = BatchDraws(3, 5, 0, 1).views([VIEWS["all"]] * 2, [images])
    faint = replace(VIEWS["all"], saturation=1e-7, hue=1e-7)
    for expected, found in zip(plain, BatchDraws(3, 5, 0, 1).views([faint] * 2, [images]), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0.0)


def test_pixel_noise_is_of_each_process() -> None:
    images, view = torch.zeros(2, 1, 4, 4), RandomView(noise=1.0)
    first, second = (BatchDraws(3, 5, global_rank, 2).views([view], [images])[0] for global_rank in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, BatchDraws(3, 5, 0, 2).views([view], [images])[0])


def test_views_are_made_of_the_batches_in_turn() -> None:
    first, second = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    draws = BatchDraws(3, 5, 0, 1)
    assert draws.views([RandomView()] * 3, [first, second]) == [first, second, first]
    moved = draws.views([RandomView(shift=0.2)] * 3, [first, second])
    for view, expected in zip(moved, (first, second, first), strict=True):
        torch.testing.assert_close(view, expected)


def test_global_views_do_not_depend_on_the_local_ones() -> None:
    images = torch.rand(3, 1, 8, 8)
    whole, part = RandomView(crop_scale=0.5, flip=True), RandomView(crop_scale=0.1, largest_crop=0.3, size=4)
    draws = BatchDraws(3, 5, 0, 1)
    both, alone = draws.views([whole, whole, part], [images]), draws.views([whole, whole], [images])
    assert [tuple(view.shape[-2:]) for view in both] == [(8, 8), (8, 8), (4, 4)]
    for found, expected in zip(both, alone, strict=False):
        assert torch.equal(found, expected)
