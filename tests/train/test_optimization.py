"""Parameter groups, the moving average, and schedules against their closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from jepa_train.models.encoder import ViTEncoder
from jepa_train.optimization import adamw, cosine, linear, parameter_groups, update_ema, warmup_cosine


def test_only_matrices_decay() -> None:
    overrides = {"embed_dim": 32, "depth": 1, "num_heads": 2, "class_token": True, "reg_tokens": 2}
    vit = ViTEncoder("vit_tiny_patch16_224", image_size=16, patch_size=4, overrides=overrides, positions="learned").vit
    decayed, others = parameter_groups(vit, weight_decay=0.3)
    names = {id(parameter): name for name, parameter in vit.named_parameters()}
    assert {names[id(parameter)] for parameter in decayed["params"]} == {
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.0.attn.proj.weight",
        "blocks.0.mlp.fc1.weight",
        "blocks.0.mlp.fc2.weight",
    }
    assert len(decayed["params"]) + len(others["params"]) == len(names)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0.0)


def test_frozen_parameters_are_in_no_group() -> None:
    module = nn.Linear(2, 3)
    module.weight.requires_grad_(False)
    assert [len(group["params"]) for group in parameter_groups(module, weight_decay=0.1)] == [0, 1]
    assert adamw(module, learning_rate=0.1, weight_decay=0.1).param_groups[1]["lr"] == 0.1


def test_ema_follows_parameters_and_batch_norm_statistics() -> None:
    online, target = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    online.weight.data.fill_(3.0)
    online.running_mean.fill_(10.0)
    online.num_batches_tracked.fill_(7)
    update_ema(target, online, momentum=0.9)
    torch.testing.assert_close(target.weight.data, torch.full((2,), 1.2))
    torch.testing.assert_close(target.running_mean, torch.full((2,), 1.0))
    assert int(target.num_batches_tracked) == 7


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_the_ends_of_the_average_are_exact(momentum: float) -> None:
    online, target = nn.Linear(3, 3), nn.Linear(3, 3)
    before = target.weight.clone()
    update_ema(target, online, momentum=momentum)
    assert torch.equal(target.weight, before if momentum else online.weight)


def test_linear() -> None:
    values = [linear(step, start=0.996, end=1.0, total_steps=10) for step in (0, 5, 10, 99)]
    assert values == pytest.approx([0.996, 0.998, 1.0, 1.0])


def test_cosine() -> None:
    values = [cosine(step, start=0.04, end=0.4, total_steps=8) for step in (0, 2, 4, 8, 20)]
    quarter = 0.4 + (0.04 - 0.4) * 0.5 * (1 + math.cos(math.pi / 4))
    assert values == pytest.approx([0.04, quarter, 0.22, 0.4, 0.4])


def test_warmup_cosine() -> None:
    settings = {"start": 2e-4, "peak": 1e-3, "end": 1e-6, "warmup_steps": 10, "total_steps": 110}
    values = [warmup_cosine(step, **settings) for step in (0, 5, 10, 60, 110)]
    assert values == pytest.approx([2e-4, 6e-4, 1e-3, (1e-3 + 1e-6) / 2, 1e-6])


def test_no_steps_at_all_is_the_end() -> None:
    assert warmup_cosine(0, start=0.1, peak=1.0, end=0.0, warmup_steps=0, total_steps=0) == pytest.approx(1.0)
