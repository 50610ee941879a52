"""The benchmark of a training step takes a GPU's way, as far as there need not be one: operations, peaks, turns."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import pytest
import torch
from step_profile import dense_peak, group_of
from torch import Generator
from train_step import GPU_CASES, WARM_UP, Case, RecordedMasks, counted_turns, cut_to_multiple, goals, measure, rates

from jepa_train.inputs.masks import MultiBlockMasks

SHAPES = {14: ((80,), (4, 35)), 16: ((112,), (4, 42))}  # contexts and targets of an image, by the patches of a side
SIZES = {"ViT-S": (384, 12), "ViT-B": (768, 12), "ViT-L": (1024, 24), "ViT-H": (1280, 32)}
SMALL = Case("ViT-H/14 small", "vit_tiny_patch16_224", 48, 8, 32, 2, predictor_depth=2, batch=4)


def products(width: int, queries: int, keys: int) -> int:
    """Operations of a block's products for queries that attend to as many keys, without the projections of keys."""
    projections = 2 * queries * (2 * width**2 + 8 * width**2)  # query, output and both layers of the MLP
    return projections + 4 * queries * keys * width


def block(width: int, tokens: int) -> int:
    """Operations of a whole block: 24 N D^2 + 4 N^2 D."""
    return products(width, tokens, tokens) + 4 * tokens * width**2


def closed_form(case: Case, V: int, M: int, T: int) -> int:
    """Operations of a step for one image: what is trained counts three times, and patches get no gradient."""
    (D, depth), W = next(size for name, size in SIZES.items() if case.name.startswith(name)), case.predictor_width
    N = (case.image_size // case.patch_size) ** 2
    patches = 2 * N * 3 * case.patch_size**2 * D
    target = patches + depth * block(D, N)
    context = 2 * patches + 3 * depth * block(D, V)
    tokens, key_and_value = V + T, 4 * W**2
    first = 6 * W**2 * V + M * (6 * W**2 * T + block(W, tokens) - 6 * W**2 * tokens)  # contexts are projected once
    last = M * (products(W, T, tokens) + key_and_value * tokens)
    passes = first + (case.predictor_depth - 2) * M * block(W, tokens) + last
    predictor = 3 * (2 * V * D * W + passes + 2 * M * T * W * D)
    return target + context + predictor


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.name, marks=[] if "ViT-S" in c.name else pytest.mark.slow) for c in GPU_CASES]
)
def test_operations_of_every_case_of_a_gpu_are_those_of_the_closed_form(case: Case) -> None:
    """A Vision Transformer of any size has room on the device meta."""
    (V,), (M, T) = SHAPES[case.image_size // case.patch_size]
    expected = case.batch * closed_form(case, V, M, T)
    assert case.flops(((case.batch, V), (case.batch, M, T))) == expected


def test_a_share_of_the_peak_is_the_median_over_turns() -> None:
    shapes = [((4, 8), (4, 4, 4)), ((4, 8), (4, 4, 6)), ((4, 8), (4, 4, 4))]
    flops = [SMALL.flops(shape) for shape in shapes]
    found = rates(SMALL, shapes, [1e-3, 1e-9, 3e-3], peak=1e12)
    assert found["share_of_peak"] == pytest.approx(flops[0] / 1e-3 / 1e12)
    assert found["tflop_per_second"] == pytest.approx(found["share_of_peak"])
    assert found["tflop_of_step"] == pytest.approx(flops[0] / 1e12)
    assert flops[1] > flops[0]


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 311.8e12),
        ("NVIDIA GeForce GTX 1080", math.nan),
        ("", math.nan),
    ],
)
def test_the_peak_of_a_card_is_that_of_its_data_sheet(card: str, peak: float) -> None:
    assert dense_peak(card) == pytest.approx(peak, nan_ok=True)


def test_turns_of_a_gpu_count_once_their_shapes_are_known() -> None:
    a, b, c = (((4, V), (4, 4, 4)) for V in (8, 9, 10))
    shapes = [a, b, a, c, a, c, b]
    assert WARM_UP == 3
    assert counted_turns(shapes, on_gpu=False) == [3, 4, 5, 6]
    assert counted_turns(shapes, on_gpu=True) == [4, 5, 6]


@pytest.mark.parametrize(("multiple", "kept"), [(1, 13), (4, 12), (8, 8), (13, 13), (16, 13)])
def test_contexts_are_cut_to_a_multiple_of_their_own_patches(multiple: int, kept: int) -> None:
    context = torch.rand(50, 36, generator=Generator().manual_seed(1)).topk(13).indices.sort().values
    cut = cut_to_multiple(context, multiple, Generator().manual_seed(0))
    assert cut.shape == (50, kept)
    assert all(set(few) <= set(many) for few, many in zip(cut.tolist(), context.tolist(), strict=True))
    assert torch.equal(cut, cut.sort().values)
    if kept < 13:  # not the last ones
        assert any(few[0] != many[0] for few, many in zip(cut.tolist(), context.tolist(), strict=True))


def test_few_lengths_of_contexts_are_left() -> None:
    recorded = RecordedMasks(MultiBlockMasks((14, 14), mode="corrected"), context_multiple=16)
    lengths = {recorded(8, Generator().manual_seed(seed))[0].shape[1] for seed in range(20)}
    assert all(length % 16 == 0 for length in lengths)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_a_case_is_measured_from_the_losses_to_the_goals(caplog: pytest.LogCaptureFixture) -> None:
    """The goals are those of the largest case of a GPU, on a CPU."""
    caplog.set_level(logging.ERROR, "lightning.pytorch")  # as the benchmark sets it; put back after the test
    case = replace(SMALL, context_multiple=4)
    found = measure(case, ["transcription"], repeats=2, threads=1)
    ours, plain = found["rows"]["ours"], found["rows"]["transcription"]
    assert ours["first_loss"] == pytest.approx(plain["first_loss"], abs=1e-5)
    assert ours["parameters"] == plain["parameters"]
    assert ours["peak_mib"] > 0.0
    assert found["tflop_per_second"] > 0.0
    assert math.isnan(found["share_of_peak"])
    reached = goals(case, found)
    assert any("same loss as transcription" in goal and value for goal, value in reached.items())
    assert any("dense bfloat16 peak (nan %)" in goal and not value for goal, value in reached.items())


@pytest.mark.parametrize(
    ("operator", "group"),
    [
        ("aten::addmm", "GEMM"),
        ("aten::convolution_backward", "GEMM"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention"),
        ("aten::native_layer_norm", "layer norm"),
        ("aten::add_", "sums"),
        ("aten::addcdiv_", "optimizer and EMA"),
        ("aten::copy_", "copies"),
        ("aten::arange", "rest"),
        ("triton_poi_fused_gelu_1", "fused"),
        ("Optimizer.step#AdamW.step", "interpreter"),
        ("autograd::engine::evaluate_function: AddmmBackward0", "interpreter"),
    ],
)
def test_the_profile_tells_operators_from_the_interpreter(operator: str, group: str) -> None:
    assert group_of(operator) == group
