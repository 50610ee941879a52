"""Schedules, the optimizer with its groups of parameters, and the moving average that follows its steps.

Schedules are pure functions of the optimizer step: nothing to save, nothing to restore. Which value a step uses is the
published one (I-JEPA, arXiv 2301.08243): optimizer step t of T, counted from 1, has the learning rate and the weight
decay at t, so that the last step has their ends and the first is past their starts; the average of the target that
follows it has the momentum at t - 1, from its start on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import chain, islice
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from jepa_train.errors import ConfigurationError

NEVER_DECAYED = ("bias", "pos_embed", "cls_token", "reg_token")
QUERIES = ("mask_query", "embedding_query")  # of the predictor: vectors that decay, as I-JEPA's mask token does


def linear(step: int, *, start: float, end: float, total_steps: int) -> float:
    """Straight line from ``start`` at step 0 to ``end`` at ``total_steps``, constant after it."""
    return start + (end - start) * min(step / max(total_steps, 1), 1.0)


def cosine(step: int, *, start: float, end: float, total_steps: int) -> float:
    """Half a cosine from ``start`` at step 0 to ``end`` at ``total_steps``, constant after it."""
    progress = min(step / max(total_steps, 1), 1.0)
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * progress))


def warmup_cosine(step: int, *, start: float, peak: float, end: float, warmup_steps: int, total_steps: int) -> float:
    """Straight line from ``start`` to ``peak`` in ``warmup_steps``, then half a cosine down to ``end``."""
    if step < warmup_steps:
        return linear(step, start=start, end=peak, total_steps=warmup_steps)
    return cosine(step - warmup_steps, start=peak, end=end, total_steps=total_steps - warmup_steps)


@dataclass(frozen=True)
class Schedules:
    """Numbers that change from one optimizer step to the next, by the steps that are done.

    Attributes:
        total_steps: optimizer steps of the whole run; the others are hyper-parameters of ``JEPA``.
    """

    total_steps: int
    learning_rate_start: float
    learning_rate: float
    learning_rate_end: float
    warmup_fraction: float
    weight_decay: float
    weight_decay_end: float
    ema_start: float
    ema_end: float

    @classmethod
    def of(cls, settings: Mapping[str, Any], *, total_steps: int) -> Schedules:
        """Pick the schedules out of all hyper-parameters."""
        names = [field.name for field in fields(cls) if field.name != "total_steps"]
        return cls(total_steps, **{name: settings[name] for name in names})

    def learning_rate_factor(self, steps_done: int) -> float:
        """Learning rate of the next step, as a share of its peak."""
        learning_rate = warmup_cosine(
            steps_done + 1,
            start=self.learning_rate_start,
            peak=self.learning_rate,
            end=self.learning_rate_end,
            warmup_steps=round(self.warmup_fraction * self.total_steps),
            total_steps=self.total_steps,
        )
        return learning_rate / float(self.learning_rate)

    def next_weight_decay(self, steps_done: int) -> float:
        """Weight decay of the next step."""
        start, end = self.weight_decay, self.weight_decay_end
        return cosine(steps_done + 1, start=start, end=end, total_steps=self.total_steps)

    def ema_momentum(self, steps_done: int) -> float:
        """Momentum of the average that follows the next step."""
        return linear(steps_done, start=self.ema_start, end=self.ema_end, total_steps=self.total_steps)


def steps_of_run(trainer: pl.Trainer) -> int:
    """Count the optimizer steps of a whole run.

    Raises:
        ConfigurationError: where their number is unknown, or 0.
    """
    steps = trainer.estimated_stepping_batches
    if 0 in (steps, trainer.max_epochs, trainer.limit_train_batches):
        raise ConfigurationError(
            "nothing would be trained: give --trainer.max_epochs, --trainer.max_steps and "
            "--trainer.limit_train_batches values other than 0."
        )
    if not 0 < steps < math.inf:
        raise ConfigurationError(
            "the schedules need the length of the run: give --trainer.max_steps, or --trainer.max_epochs and data "
            "whose length is known."
        )
    return int(steps)


def parameter_groups(module: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Part the trainable parameters into two groups: matrices and the predictor's queries, which decay, and the rest.

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
        target, online: two modules of the same structure.
        momentum: share of the target that stays, in [0, 1]; 0 makes the target a copy.
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
