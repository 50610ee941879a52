"""The kernel of attention in training: none that is planned anew for each number of tokens, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from jepa_train.models.encoder import attention_kernel
from jepa_train.module import JEPA
from tests.train.helpers import SMALL, train


def test_kernels_without_plans_are_left_on_a_gpu() -> None:
    """Plain products take what none of the others can, such as large heads."""
    backends = torch.backends.cuda
    before = backends.cudnn_sdp_enabled()
    with attention_kernel(torch.device("cuda")):
        assert not backends.cudnn_sdp_enabled()
        assert all((backends.flash_sdp_enabled(), backends.mem_efficient_sdp_enabled(), backends.math_sdp_enabled()))
    assert backends.cudnn_sdp_enabled() == before


def test_the_backward_pass_has_the_kernel_of_the_forward_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    active, seen = False, []

    @contextmanager
    def noted(device: torch.device) -> Iterator[None]:
        nonlocal active
        active = True
        yield
        active = False

    def note(gradient: Tensor) -> None:
        seen.append(active)

    monkeypatch.setattr("jepa_train.module.attention_kernel", noted)
    module = JEPA(**SMALL)
    module.get_parameter("predictor.token_head.weight").register_hook(note)
    train(module, tmp_path, steps=2)
    assert seen == [True, True]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("recomputes", [False, True])
def test_training_on_a_gpu_plans_no_attention(recomputes: bool, tmp_path: Path) -> None:
    heads = {"encoder_overrides": {"embed_dim": 128, "depth": 2, "num_heads": 2}}  # of 64, as cuDNN likes them
    module = JEPA(**{**SMALL, **heads, "gradient_checkpointing": recomputes})
    with torch.profiler.profile(acc_events=True) as profiler:
        train(module, tmp_path, steps=2, accelerator="gpu", devices=1, precision="bf16-mixed")
    names = {event.key for event in profiler.key_averages()}
    assert any("flash_attention_backward" in name for name in names)
    assert not any("cudnn_attention_backward" in name for name in names)
