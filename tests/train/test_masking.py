"""Masks: sizes, coverage, the two faults of the published code, and grids that are too small."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jepa_train.errors import ConfigurationError
from jepa_train.masking import MultiBlockMasks


def draw(masks: MultiBlockMasks, batch_size: int = 64, seed: int = 0) -> tuple[Tensor, Tensor]:
    return masks(batch_size, torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(4, 16), columns=st.integers(4, 16), targets=st.integers(1, 4), seed=st.integers(0, 99))
def test_context_and_targets_are_disjoint_blocks(rows: int, columns: int, targets: int, seed: int) -> None:
    masks = MultiBlockMasks((rows, columns), num_targets=targets, min_context=1)
    context, target = draw(masks, 16, seed)
    assert target.shape[:2] == (16, targets)
    assert 0 <= int(context.min()) <= int(context.max()) < rows * columns
    for image in range(16):
        seen = context[image].tolist()
        assert len(set(seen)) == len(seen)
        assert seen == sorted(seen)
        assert not set(seen) & set(target[image].flatten().tolist())
        for block in target[image]:
            height = len(set((block // columns).tolist()))
            width = len(set((block % columns).tolist()))
            assert height * width == len(block)


def test_the_seed_decides() -> None:
    masks = MultiBlockMasks((8, 8))
    for first, second in zip(draw(masks, seed=5), draw(masks, seed=5), strict=True):
        assert torch.equal(first, second)
    assert not all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(draw(masks), draw(masks, seed=6), strict=True)
    )


def coverage(masks: MultiBlockMasks, part: int) -> Tensor:
    """How often each patch of a 14 x 14 grid is drawn, relative to the mean."""
    counts = torch.zeros(196)
    for seed in range(60):
        drawn = draw(masks, 64, seed)[part]
        counts += torch.bincount(drawn.flatten(), minlength=196)
    return (counts / counts.mean()).view(14, 14)


def test_corrected_masks_reach_the_last_row_and_column_and_paper_ones_do_not() -> None:
    corrected, paper = (coverage(MultiBlockMasks((14, 14), mode=mode), 1) for mode in ("corrected", "paper"))
    assert float(corrected[-1].min()) > 0.0
    assert float(corrected[:, -1].min()) > 0.0
    assert float(paper[-1].sum()) == 0.0
    assert float(paper[:, -1].sum()) == 0.0
    torch.testing.assert_close(corrected, corrected.flip(0, 1), atol=0.25, rtol=0.0)


def test_corrected_contexts_have_no_raster_bias_and_paper_ones_do() -> None:
    corrected, paper = (coverage(MultiBlockMasks((14, 14), mode=mode), 0) for mode in ("corrected", "paper"))
    assert float(corrected[0].mean() / corrected[13].mean()) == pytest.approx(1.0, abs=0.15)
    assert float(paper[0].mean()) > 5.0 * float(paper[12].mean())


def test_target_sizes_follow_the_scale() -> None:
    for seed in range(20):
        _, target = draw(MultiBlockMasks((14, 14)), 2, seed)
        assert 0.12 * 196 <= target.shape[2] <= 0.23 * 196


def test_too_small_a_grid_says_what_to_change() -> None:
    with pytest.raises(ConfigurationError, match="lower num_targets, target_scale or min_context"):
        draw(MultiBlockMasks((3, 3), num_targets=4, target_scale=(0.9, 1.0)))
