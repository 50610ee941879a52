"""Work of each process in test_metrics.py, in a module that is quick to import."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import Metric

from jepa_monitor.ranking import DensityRanking, OODDetection

THREE = [0, 9, 9, 40]  # the second process receives nothing
TWO = [0, 11, 40]


def samples(count: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Scores that differ in the 12th digit and truths, both with ties, and which samples are out of distribution."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).double()
    scores = 100.0 + 1e-10 * (order // 2)
    truth = (order // 3 + torch.arange(count) % 5).double()
    return scores, truth, (torch.arange(count) % 3) == 0


def measure_shards(global_rank: int, world_size: int) -> dict[str, Any]:
    """Values on all three processes, on the first two of them, and where none has received a sample."""
    warnings.simplefilter("ignore")  # that a process has received nothing, and that NaN is NaN
    pair = dist.new_group([0, 1])
    ranking, detection = measured(global_rank, THREE, None)
    nothing = DensityRanking()
    found = {
        "three": plain(ranking) | plain(detection),
        "kept": sum(len(batch) for batch in ranking.scores),
        "nothing": plain(nothing),
        "reason": nothing.reason,
    }
    if global_rank < 2:
        ranking, detection = measured(global_rank, TWO, pair)
        nn.ModuleList([ranking, detection]).half().to(torch.float16)
        found["two"] = plain(ranking) | plain(detection)
    return found


def measured(global_rank: int, bounds: list[int], group: Any) -> tuple[DensityRanking, OODDetection]:
    """Metrics that have seen this process's samples, from its bound to the next, in batches of 4."""
    ranking, detection = DensityRanking(process_group=group), OODDetection(process_group=group)
    mine = slice(bounds[global_rank], bounds[global_rank + 1])
    for scores, truth, is_ood in zip(*(values[mine].split(4) for values in samples()), strict=True):
        if len(scores):
            ranking.update(scores, truth)
            detection.update(scores, is_ood)
    return ranking, detection


def plain(metric: Metric) -> dict[str, float]:
    """Values of the metric as numbers."""
    return {name: float(value) for name, value in metric.compute().items()}
