"""The ranking statistics as ``torchmetrics``, for scores that come in batches and on several processes.

Higher scores are more typical. All samples are kept, 16 bytes each, and gathered by ``compute``: the values are those
of one call of the functions on everything. Shards may be uneven or empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat, rank_zero_warn

from .correlation import concordance, kendall, slope, spearman, why_unrankable
from .detection import auroc, auroc_low_density, average_precision, fpr_at_tpr

TPR = 0.95


class _ScoreMetric(Metric):
    """Metric of a score and one more value of each sample, in float64 whatever the module around it is cast to."""

    is_differentiable = False
    full_state_update = False
    higher_is_better = None  # the values of one metric point in different directions

    def __init__(self, second: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # torchmetrics gathers this dtype from a process that has received nothing; the others gather float64
        self.set_dtype(torch.float64)
        for name in ("scores", second):
            self.add_state(name, [], dist_reduce_fx="cat")
        self._reason: str | None = None

    @property
    def reason(self) -> str | None:
        """Reason why values of the latest ``compute`` are NaN; ``None`` if none is."""
        return self._reason

    def reset(self) -> None:
        super().reset()
        self._reason = None

    def _append(self, **values: Tensor) -> None:
        shapes = [tuple(value.shape) for value in values.values()]
        if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
            raise ValueError(f"{' and '.join(values)} must have one shape (N,), got {shapes[0]} and {shapes[1]}.")
        for name, value in values.items():
            # a copy: the caller may fill the same buffer again
            getattr(self, name).append(value.detach().to(self.device).to(torch.float64, copy=True))

    def _joined(self, name: str) -> Tensor:
        state = getattr(self, name)
        return dim_zero_cat(state).cpu() if len(state) else torch.zeros(0, dtype=torch.float64)

    def _values(self, values: dict[str, float], reason: str | None) -> dict[str, Tensor]:
        self._reason = reason
        if reason is not None:
            rank_zero_warn(f"{type(self).__name__} has values that are NaN: {reason}.")
        return {name: torch.tensor(value, dtype=torch.float64, device=self.device) for name, value in values.items()}

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = "") -> nn.Module:
        def move(state: Tensor) -> Tensor:
            device = fn(state.new_empty(0)).device
            return state.to("cpu" if device.type == "mps" else device, torch.float64)  # MPS has no float64

        return super()._apply(move, exclude_state)


class DensityRanking(_ScoreMetric):
    """Ranking quality of scores of samples whose log density is known.

    ``compute`` gives ``spearman``, ``kendall`` (tau-b), ``concordance``, ``auroc_low_density`` (of the lowest
    decile) and ``slope``, as the functions of these names. A value without meaning is NaN, with one warning and
    :attr:`reason`.
    """

    scores: list[Tensor]
    truth: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("truth", **kwargs)

    def update(self, scores: Tensor, truth: Tensor) -> None:
        """Add samples: their scores (N,), and their true log densities (N,) in nats.

        Raises:
            ValueError: if shapes are others.
        """
        self._append(scores=scores, truth=truth)

    def compute(self) -> dict[str, Tensor]:
        """Name to value, over all samples of all processes."""
        scores, truth = self._joined("scores"), self._joined("truth")
        statistics = (spearman, kendall, concordance, auroc_low_density, slope)
        values = {statistic.__name__: statistic(scores, truth) for statistic in statistics}
        sides = {"scores": why_unrankable(scores), "truth": why_unrankable(truth)}
        reason = next((f"{why} ({side})" for side, why in sides.items() if why), None)
        if reason is None and math.isnan(values["auroc_low_density"]):
            reason = "the lowest decile of truth is all samples (auroc_low_density)"
        return self._values(values, reason)


class OODDetection(_ScoreMetric):
    """Detection of out-of-distribution samples, which are expected to score lower than the others.

    ``compute`` gives ``auroc``; ``aupr_in`` and ``aupr_out``, the step-wise average precision with the in- and the
    out-of-distribution samples as the positive class; ``fpr95_id_positive``, the share of out-of-distribution
    samples taken for typical where 95 % of the others are; and ``fpr95_ood_positive``, the share of in-distribution
    samples rejected where 95 % of the others are. A value without meaning is NaN, with one warning and
    :attr:`reason`.
    """

    scores: list[Tensor]
    is_ood: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("is_ood", **kwargs)

    def update(self, scores: Tensor, is_ood: Tensor) -> None:
        """Add samples: their scores (N,), and which are out of distribution (N,), bool or 0 and 1.

        Raises:
            ValueError: if shapes are others, or ``is_ood`` has another value.
        """
        if not bool(((is_ood == 0) | (is_ood == 1)).all()):
            raise ValueError("is_ood must be bool, or 0 and 1.")
        self._append(scores=scores, is_ood=is_ood)

    def compute(self) -> dict[str, Tensor]:
        """Name to value, over all samples of all processes."""
        scores, is_ood = self._joined("scores"), self._joined("is_ood").bool()
        inside, outside = scores[~is_ood], scores[is_ood]
        values = {
            "auroc": auroc(inside, outside),
            "aupr_in": average_precision(inside, outside),
            "aupr_out": average_precision(-outside, -inside),
            "fpr95_id_positive": fpr_at_tpr(inside, outside, tpr=TPR),
            "fpr95_ood_positive": fpr_at_tpr(-outside, -inside, tpr=TPR),
        }
        reason = why_unrankable(scores)
        if reason is None and not (len(inside) and len(outside)):
            reason = f"no sample is {'out of' if len(inside) else 'in'} distribution"
        return self._values(values, reason)
