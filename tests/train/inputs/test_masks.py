"""Masks: sizes, coverage, the published sampler written again in plain Python, and grids that are too small."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jepa_train.errors import ConfigurationError
from jepa_train.inputs.masks import MaskMode, MultiBlockMasks


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
    """Count how often each patch of a 14 x 14 grid is drawn, relative to the mean."""
    counts = torch.zeros(196)
    for seed in range(200):
        drawn = draw(masks, 64, seed)[part]
        counts += torch.bincount(drawn.flatten(), minlength=196)
    return (counts / counts.mean()).view(14, 14)


class PublishedSampler:
    """Section 3 and the appendix of arXiv 2301.08243 with the faults of the released sampler, image by image."""

    def __init__(self, side: int, seed: int) -> None:
        self.side = side
        self.random = random.Random(seed)

    def block_size(self, scale: tuple[float, float], aspect: tuple[float, float]) -> tuple[int, int]:
        share = self.random.random()  # one number for both
        area = math.floor(self.side**2 * (scale[0] + share * (scale[1] - scale[0])))
        ratio = aspect[0] + share * (aspect[1] - aspect[0])
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        return min(height, self.side - 1), min(width, self.side - 1)

    def block(self, size: tuple[int, int]) -> set[int]:
        # range(a - b) has no a - b: the last row and column are never reached
        top, left = (self.random.choice(range(self.side - extent)) for extent in size)
        return {(top + i) * self.side + left + j for i in range(size[0]) for j in range(size[1])}

    def batch(self, batch_size: int) -> tuple[list[list[int]], list[list[set[int]]]]:
        target_size = self.block_size((0.15, 0.2), (0.75, 1.5))
        context_size = self.block_size((0.85, 1.0), (1.0, 1.0))
        targets = [[self.block(target_size) for _ in range(4)] for _ in range(batch_size)]
        contexts = [sorted(self.block(context_size) - set().union(*blocks)) for blocks in targets]
        shortest = min(len(context) for context in contexts)
        return [context[:shortest] for context in contexts], targets


@pytest.mark.slow
def test_paper_masks_have_the_statistics_of_the_published_sampler() -> None:
    published = PublishedSampler(14, seed=0)
    counts = {"published": torch.zeros(2, 196), "ours": torch.zeros(2, 196)}
    lengths: dict[str, list[int]] = {"published": [], "ours": []}
    sizes: dict[str, list[int]] = {"published": [], "ours": []}
    batches = 300
    for seed in range(batches):
        contexts, targets = published.batch(32)
        for context, blocks in zip(contexts, targets, strict=True):
            counts["published"][0][context] += 1.0
            for block in blocks:
                counts["published"][1][list(block)] += 1.0
        lengths["published"].append(len(contexts[0]))
        sizes["published"].append(len(targets[0][0]))
        context, target = draw(MultiBlockMasks((14, 14), mode="paper"), 32, seed)
        counts["ours"] += torch.stack([torch.bincount(part.flatten(), minlength=196) for part in (context, target)])
        lengths["ours"].append(context.shape[1])
        sizes["ours"].append(target.shape[2])
    assert set(sizes["ours"]) == set(sizes["published"])
    shares = {name: count / (32 * batches) for name, count in counts.items()}  # how many of an image's masks hold it
    torch.testing.assert_close(shares["ours"], shares["published"], atol=0.06, rtol=0.0)
    for values in (lengths, sizes):
        ours, theirs = (torch.tensor(values[name], dtype=torch.float64) for name in ("ours", "published"))
        standard_error = float((ours.var() / batches + theirs.var() / batches).sqrt())
        assert abs(float(ours.mean() - theirs.mean())) < 4.0 * standard_error


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["paper", "corrected"])
def test_contexts_are_as_long_in_a_large_batch_as_in_a_group_of_it(mode: MaskMode) -> None:
    """The global batch of many processes must not shorten them: each published process cuts its own."""

    def mean_length(batch_size: int, group: int) -> float:
        masks = MultiBlockMasks((16, 16), mode=mode, context_group=group)
        return sum(draw(masks, batch_size, seed)[0].shape[1] for seed in range(60)) / 60

    published = mean_length(128, 128)
    assert mean_length(2048, 128) == pytest.approx(published, rel=0.05)
    assert mean_length(2048, 2048) < 0.9 * published


def test_masks_that_were_drawn_again_are_disjoint_too() -> None:
    masks = MultiBlockMasks((14, 14), mode="paper", context_group=8)
    for seed in range(20):
        for seen, blocks in zip(*draw(masks, 256, seed), strict=True):
            assert not torch.isin(seen, blocks).any()


def test_corrected_masks_reach_the_last_row_and_column_and_paper_ones_do_not() -> None:
    corrected, paper = (coverage(MultiBlockMasks((14, 14), mode=mode), 1) for mode in ("corrected", "paper"))
    assert float(paper[-1].sum()) == 0.0
    assert float(paper[:, -1].sum()) == 0.0
    # a block has fewer places that cover an edge than the middle; but all edges, and all corners, are alike
    torch.testing.assert_close(corrected, corrected.flip(0, 1), atol=0.1, rtol=0.0)
    torch.testing.assert_close(corrected, corrected.flip(0), atol=0.1, rtol=0.0)
    assert float(corrected[-1].min()) > 0.02


def test_corrected_contexts_have_no_raster_bias_and_paper_ones_do() -> None:
    corrected, paper = (coverage(MultiBlockMasks((14, 14), mode=mode), 0) for mode in ("corrected", "paper"))
    torch.testing.assert_close(corrected, corrected.flip(0, 1), atol=0.15, rtol=0.0)
    assert float(paper[0].mean()) > 5.0 * float(paper[12].mean())


@pytest.mark.parametrize("side", [12, 14, 16, 28])
def test_both_modes_have_the_same_sizes(side: int) -> None:
    sizes = {}
    for mode in ("paper", "corrected"):
        drawn = [draw(MultiBlockMasks((side, side), mode=mode), 64, seed) for seed in range(60)]
        sizes[mode] = torch.tensor([(part.shape[-1]) for pair in drawn for part in pair]).view(-1, 2).float()
    assert torch.equal(sizes["paper"][:, 1], sizes["corrected"][:, 1])
    context = sizes["corrected"][:, 0].mean() / sizes["paper"][:, 0].mean()
    assert float(context) == pytest.approx(1.0, abs=0.07)


@settings(deadline=None, max_examples=60)
@given(
    side=st.integers(2, 6),
    targets=st.integers(1, 6),
    mode=st.sampled_from(["paper", "corrected"]),
    seed=st.integers(0, 99),
)
def test_small_grids_work_or_say_what_to_change(side: int, targets: int, mode: MaskMode, seed: int) -> None:
    masks = MultiBlockMasks((side, side), num_targets=targets, mode=mode)
    try:
        context, _ = draw(masks, 8, seed)
    except ConfigurationError:
        with pytest.raises(ConfigurationError, match="lower num_targets, target_scale or min_context"):
            draw(masks, 8, seed)
    else:
        assert context.shape[1] >= masks.min_context


def test_the_usual_small_grid_works() -> None:
    context, targets = draw(MultiBlockMasks((4, 4), num_targets=2, target_scale=(0.15, 0.25), min_context=8))
    assert context.shape == (64, 8)
    assert targets.shape[:2] == (64, 2)


def test_target_sizes_follow_the_scale() -> None:
    for seed in range(20):
        _, target = draw(MultiBlockMasks((14, 14)), 2, seed)
        assert 0.12 * 196 <= target.shape[2] <= 0.23 * 196


def test_too_small_a_grid_says_what_to_change() -> None:
    with pytest.raises(ConfigurationError, match="lower num_targets, target_scale or min_context"):
        draw(MultiBlockMasks((3, 3), num_targets=4, target_scale=(0.9, 1.0)))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"target_scale": (0.3, 0.2)}, "target_scale"),
        ({"context_scale": (0.5, 1.5)}, "context_scale"),
        ({"target_aspect": (0.0, 1.0)}, "target_aspect"),
        ({"num_targets": 0}, "1 or more"),
        ({"min_context": 0}, "1 or more"),
        ({"context_group": 0}, "1 or more"),
        ({"mode": "published"}, "'corrected' or 'paper'"),
    ],
)
def test_settings_that_cannot_work_are_named(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MultiBlockMasks((4, 4), **setting)  # type: ignore[arg-type]  # parametrised
