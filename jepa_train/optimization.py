"""Which parameters decay, the optimizer, and the moving average that follows its steps."""

from __future__ import annotations

from itertools import chain, islice
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

NEVER_DECAYED = ("bias", "pos_embed", "cls_token", "reg_token")
QUERIES = ("mask_query", "embedding_query")  # of the predictor: vectors that decay, as I-JEPA's mask token does


def parameter_groups(module: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of the trainable parameters: matrices and the predictor's queries, which decay, and the rest.

    The rest, which never decays, are biases and norms (1-d parameters), learned positions, class and register tokens.
    """
    decayed, others = ([parameter for _, parameter in group] for group in _named_groups(module, QUERIES))
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _named_groups(module: nn.Module, decayed_vectors: tuple[str, ...]) -> list[list[tuple[str, nn.Parameter]]]:
    """Names and trainable parameters of the group that decays, and of the one that does not."""
    groups: list[list[tuple[str, nn.Parameter]]] = [[], []]
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            last = name.rsplit(".", 1)[-1]
            spared = last in NEVER_DECAYED or (parameter.ndim <= 1 and last not in decayed_vectors)
            groups[spared].append((name, parameter))
    return groups


def regroup(state: dict[str, Any], module: nn.Module) -> None:
    """Bring the optimizer state of an older checkpoint, in whose run queries did not decay, into today's order.

    Args:
        state: ``state_dict`` of an optimizer on :func:`parameter_groups`, which numbers parameters group by group;
            changed in place if it is an older one.
        module: the model, which has the parameters' names.
    """
    before, now = _named_groups(module, ()), _named_groups(module, QUERIES)
    if any(isinstance(name, str) for name in state["state"]):  # of sharded weights, found by name
        return
    sizes = [len(group["params"]) for group in state["param_groups"]]
    if sizes == [len(group) for group in now] or sizes != [len(group) for group in before]:
        return
    old_number = {name: number for number, (name, _) in enumerate(chain(*before))}
    order = [old_number[name] for name, _ in chain(*now)]
    state["state"] = {number: state["state"][old] for number, old in enumerate(order) if old in state["state"]}
    numbers = iter(range(len(order)))
    for group, members in zip(state["param_groups"], now, strict=True):
        group["params"] = list(islice(numbers, len(members)))


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
