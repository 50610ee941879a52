"""The kernel of attention in training: none that is planned anew for each number of tokens, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from jepa_train.models.encoder import attention_kernel
from jepa_train.module import JEPA
from tests.train.helpers import SMALL


def fit(module: JEPA, folder: Path, accelerator: str = "cpu", precision: Any = "32-true") -> None:
    """Take two steps."""
    images: Any = [{"image": image} for image in torch.randn(32, 1, 16, 16, generator=torch.Generator().manual_seed(0))]
    trainer = pl.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=precision,
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=folder,
    )
    trainer.fit(module, DataLoader(images, batch_size=16))


def test_kernels_without_plans_are_left_on_a_gpu() -> None:
    """Plain products take what none of the others can, such as large heads."""
    backends = torch.backends.cuda
    before = backends.cudnn_sdp_enabled()
    with attention_kernel(torch.device("cuda")):
        assert not backends.cudnn_sdp_enabled()
        assert all((backends.flash_sdp_enabled(), backends.mem_efficient_sdp_enabled(), backends.math_sdp_enabled()))
    assert backends.cudnn_sdp_enabled() == before


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
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
    fit(module, tmp_path)
    assert seen == [True, True]


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("recomputes", [False, True])
def test_training_on_a_gpu_plans_no_attention(recomputes: bool, tmp_path: Path) -> None:
    heads = {"encoder_overrides": {"embed_dim": 128, "depth": 2, "num_heads": 2}}  # of 64, as cuDNN likes them
    module = JEPA(**{**SMALL, **heads, "gradient_checkpointing": recomputes})
    with torch.profiler.profile(acc_events=True) as profiler:
        fit(module, tmp_path, accelerator="gpu", precision="bf16-mixed")
    names = {event.key for event in profiler.key_averages()}
    assert any("flash_attention_backward" in name for name in names)
    assert not any("cudnn_attention_backward" in name for name in names)
