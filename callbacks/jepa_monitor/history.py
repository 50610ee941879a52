"""The history of a monitor's measurements: plain numbers, and few of them, because checkpoints carry it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from .pictures.scales import percentiles
from .tag_groups import quantile_tags

MOST_MEASUREMENTS = 64
MOST_SPECTRA = 24
MOST_SINGULAR_VALUES = 64
MOST_FOLLOWED = 8
T = TypeVar("T")
_CONFOUNDS = ("complexity_spearman", "knn_spearman", "knn_spearman_given_complexity", "subspace_spearman")
_DIMENSIONS = ("intrinsic_dimension", "intrinsic_dimension_low", "intrinsic_dimension_high")
_ALARMS = ("collapse", "nonfinite_jacobian", "turned_over")
_QUANTILES = [*quantile_tags("log_density"), *quantile_tags("jepa_score")]
_NAMES_OF_NOW = {
    "monitor/seconds(s)": "monitor/seconds",
    "monitor/overhead(%)": "monitor/overhead_percent",
    "monitor/sketch_rows": "monitor/subspace_rows",
    "density/sketch_spearman": "scores/subspace_spearman",
    **{f"density/{name}": f"scores/{name}" for name in (*_CONFOUNDS, "kendall", "auroc_low_density")},
    **{f"density/{name}": f"jacobian/{name}" for name in _DIMENSIONS},
    **{tag.replace("scores/", "density/") + unit: tag for tag in _QUANTILES for unit in ("", "(nats)")},
    **{f"alarm/{name}": f"monitor/alarm_{name}" for name in _ALARMS},
}


class History:
    """Values of the measurements so far, thinned out where there are many.

    Attributes:
        steps: (S) optimizer steps of the measurements.
        epochs: (S) epochs.
        values: tag to (S) values; NaN where a measurement did not have it.
        spectra: optimizer step to (L,) mean log singular values in nats, of at most 24 measurements.
        followed: probe positions of the images that are shown at every step.
        percentiles: optimizer step to (F,) their percentile of log density.
        previous: (n,) log density of the last measurement, from which the next one's stability is taken.
        alarms: tag to reason of each alarm that is on.
        beside: tag of an evaluation by another callback to its values by optimizer step, of at most 64.
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.epochs: list[int] = []
        self.values: dict[str, list[float]] = {}
        self.spectra: dict[int, Tensor] = {}
        self.followed: list[int] = []
        self.percentiles: dict[int, Tensor] = {}
        self.previous: Tensor | None = None
        self.alarms: dict[str, str] = {}
        self.beside: dict[str, dict[int, float]] = {}

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def newest(self) -> dict[str, float]:
        """Values of the last measurement, by tag; none before the first."""
        return {tag: column[-1] for tag, column in self.values.items()}

    def append(self, step: int, epoch: int, values: dict[str, float]) -> None:
        """Remember the values of one measurement."""
        for tag in values:
            self.values.setdefault(tag, [float("nan")] * len(self.steps))
        self.steps.append(int(step))
        self.epochs.append(int(epoch))
        for tag, column in self.values.items():
            column.append(float(values.get(tag, float("nan"))))
        if len(self.steps) > MOST_MEASUREMENTS:
            kept = thinned(len(self.steps))
            self.steps = [self.steps[i] for i in kept]
            self.epochs = [self.epochs[i] for i in kept]
            self.values = {tag: [column[i] for i in kept] for tag, column in self.values.items()}

    def correct(self, values: dict[str, float]) -> None:
        """Put other values into the last measurement."""
        for tag, value in values.items():
            self.values.setdefault(tag, [float("nan")] * len(self.steps))[-1] = value

    def note(self, step: int, values: Mapping[str, float]) -> None:
        """Remember what another callback measured at a step; twice the same step is once."""
        for tag, value in values.items():
            column = self.beside.setdefault(tag, {})
            column[int(step)] = float(value)
            _thin_out(column, MOST_MEASUREMENTS)

    def append_ranking(self, step: int, log_density: Tensor, mean_log_spectrum: Tensor | None) -> None:
        """Remember the order of the samples and the spectrum; the first measurement chooses the images to follow."""
        self.previous = log_density.float()
        if mean_log_spectrum is not None:
            self.spectra[step] = mean_log_spectrum[:MOST_SINGULAR_VALUES].float()
        finite = torch.isfinite(log_density)
        if bool(finite.any()):
            if not self.followed:
                self.followed = spread_over(log_density, MOST_FOLLOWED)
            # of fewer samples than before, some of those that are followed may be missing
            room = max(0, max(self.followed) + 1 - len(log_density))
            known = np.pad(percentiles(log_density), (0, room), constant_values=np.nan)
            self.percentiles[step] = torch.from_numpy(known[self.followed]).float()
        _thin_out(self.spectra, MOST_SPECTRA)
        _thin_out(self.percentiles, MOST_SPECTRA)

    def last(self) -> dict[str, float]:
        """Last value of each tag that is not NaN; NaN where there is none."""
        known = {tag: [value for value in column if not math.isnan(value)] for tag, column in self.values.items()}
        return {tag: column[-1] if column else float("nan") for tag, column in known.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return numbers, strings and a few tensors, which safe loading accepts."""
        table = torch.tensor(list(self.values.values()), dtype=torch.float64)
        return {
            **vars(self),
            "values": {"tags": list(self.values), "table": table},
            "spectra": _packed(self.spectra),
            "coordinates": "own",
            "percentiles": _packed(self.percentiles),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        for name in vars(self).keys() - {"beside"}:
            setattr(self, name, state[name])
        self.beside = state.get("beside", {})  # older checkpoints lack it
        names = map(current_name, state["values"]["tags"])
        self.values = dict(zip(names, state["values"]["table"].tolist(), strict=True))
        self.alarms = {current_name(tag): reason for tag, reason in state["alarms"].items()}
        self.percentiles = _unpacked(state["percentiles"])
        # older ones are of whitened embeddings, and no line beside those of now
        self.spectra = _unpacked(state["spectra"]) if state.get("coordinates") == "own" else {}


def current_name(name: str) -> str:
    """Name that the tag of a checkpoint has now: some stood in another group, or had a unit in parentheses."""
    return _NAMES_OF_NOW.get(name, name)


def _packed(rows: dict[int, Tensor]) -> dict[str, Any]:
    """Pack rows, which may differ in length, into one tensor instead of many small ones."""
    return {
        "steps": list(rows),
        "lengths": [len(row) for row in rows.values()],
        "rows": torch.cat([*rows.values(), torch.zeros(0, dtype=torch.float32)]),
    }


def _unpacked(packed: dict[str, Any]) -> dict[int, Tensor]:
    rows = packed["rows"].split(packed["lengths"]) if packed["lengths"] else ()
    return dict(zip(packed["steps"], rows, strict=True))


def thinned(count: int) -> list[int]:
    """Positions that stay of ``count``: every other one, the first and the last among them."""
    return sorted({*range(0, count - 1, 2), count - 1})


def _thin_out(column: dict[int, T], most: int) -> None:
    """Remove every other step of a column that has become too long."""
    if len(column) > most:
        steps = list(column)
        for gone in set(range(len(steps))) - set(thinned(len(steps))):
            del column[steps[gone]]


def spread_over(values: Tensor, count: int) -> list[int]:
    """Positions of ``count`` samples from the lowest to the highest value, evenly spaced in that order."""
    finite = torch.isfinite(values).nonzero().flatten()
    order = finite[values[finite].argsort()]
    chosen = torch.linspace(0, len(order) - 1, min(count, len(order)), dtype=torch.float32).round().long()
    return [int(i) for i in order[chosen]]
