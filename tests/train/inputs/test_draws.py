"""Seeds, and the share of each process in the draws of a global batch."""

from __future__ import annotations

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


def test_processes_share_out_the_draws_of_the_global_batch() -> None:
    masks, view = MultiBlockMasks((4, 4), num_targets=2), RandomView(crop_scale=0.5, flip=True)
    images, cpu = torch.randn(6, 1, 8, 8), torch.device("cpu")

    def drawn(global_rank: int, world_size: int) -> list[torch.Tensor]:
        draws, own = BatchDraws(3, 5, global_rank, world_size), images[global_rank::world_size]
        return [*draws.masks(masks, len(own), cpu), *draws.views(view, own, own)]

    first, second = drawn(0, 2), drawn(1, 2)
    for whole, *halves in zip(drawn(0, 1), first, second, strict=True):
        torch.testing.assert_close(torch.stack(halves, dim=1).flatten(0, 1), whole, rtol=0.0, atol=1e-6)


def test_pixel_noise_is_of_each_process() -> None:
    images, view = torch.zeros(2, 1, 4, 4), RandomView(noise=1.0)
    first, second = (BatchDraws(3, 5, global_rank, 2).views(view, images, images)[0] for global_rank in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, BatchDraws(3, 5, 0, 2).views(view, images, images)[0])


def test_a_second_set_of_images_is_what_view_b_is_made_of() -> None:
    first, second = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    draws = BatchDraws(3, 5, 0, 1)
    assert draws.views(RandomView(), first, second) == (first, second)
    view_a, view_b = draws.views(RandomView(shift=0.2), first, second)
    assert torch.equal(view_a, first)
    torch.testing.assert_close(view_b, second)
