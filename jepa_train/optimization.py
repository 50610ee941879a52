"""Which parameters decay, the optimizer, and the moving average that follows its steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

NEVER_DECAYED = ("bias", "pos_embed", "cls_token", "reg_token")


def parameter_groups(module: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of the trainable parameters: matrices, which decay, and the rest, which never does.

    The rest are biases and norms (1-d parameters), and learned positions, class and register tokens.
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            spared = parameter.ndim <= 1 or name.rsplit(".", 1)[-1] in NEVER_DECAYED
            (others if spared else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def adamw(module: nn.Module, *, learning_rate: float, weight_decay: float, fused: bool = True) -> torch.optim.AdamW:
    """AdamW on :func:`parameter_groups`; if ``fused``, one kernel for a whole group where torch has one."""
    groups = parameter_groups(module, weight_decay=weight_decay)
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    return torch.optim.AdamW(groups, lr=learning_rate, fused=fused and devices <= {"cpu", "cuda"})


@torch.no_grad()
def update_ema(target: nn.Module, online: nn.Module, *, momentum: float) -> None:
    """target <- momentum * target + (1 - momentum) * online, batch-norm statistics included; counters are copied.

    Statistics that were copied instead would belong to other weights than the target's.

    Args:
        target, online: of the same structure.
        momentum: in [0, 1]; 0 makes the target a copy.
    """
    average = get_ema_multi_avg_fn(momentum)
    average(list(target.parameters()), list(online.parameters()), 0)
    buffers = list(zip(target.buffers(), online.buffers(), strict=True))
    statistics = [(ours, theirs) for ours, theirs in buffers if ours.is_floating_point()]
    if statistics:  # apart from parameters, which may be sharded
        average([ours for ours, _ in statistics], [theirs for _, theirs in statistics], 0)
    for ours, theirs in buffers:
        if not ours.is_floating_point():
            ours.copy_(theirs)
