"""Facts of the probe that need no encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import tag_groups
from ..ranking import compressed_size
from ..runtime.concise import Concise
from ..runtime.distributed import fail_together
from .pixels import has_pixels, pixels, principal_components
from .shards import Shard, gather_by_index
from .sparing import Sparing

Numbers = Tensor | NDArray[Any] | Sequence[float]
LogDensity = Callable[[Tensor], Numbers] | Tensor | NDArray[Any]  # of inputs, or of a dataset's samples by index


@dataclass(frozen=True, repr=False)
class KnownBySample(Concise):
    """Numbers that are known of a dataset's samples, and not as a function of their inputs.

    Attributes:
        values: one number for each sample of the dataset, by index.
        dataset_size: number of its samples; ``None`` for a stream.
        places: index in the dataset of each sample of the set that is measured; ``None`` where it is the dataset.
    """

    values: Tensor | NDArray[Any]
    dataset_size: int | None
    places: Sequence[int] | None = None

    def at(self, indices: Tensor) -> Tensor:
        """Look up samples (n,) of the set, on the CPU: (n,) in float64.

        Raises:
            ValueError: where there is not one number for each sample of the dataset.
        """
        values = _as_numbers(self.values).cpu()
        if self.dataset_size is not None and values.shape != (self.dataset_size,):
            raise ValueError(
                f"it must have one number for each of the dataset's {self.dataset_size} samples, of shape "
                f"({self.dataset_size},), and has {tuple(values.shape)}."
            )
        places = indices.cpu() if self.places is None else torch.tensor(self.places)[indices.cpu()]
        if values.ndim != 1 or int(places.max()) >= len(values):
            raise ValueError(f"it must have a number for each sample, and is of shape {tuple(values.shape)}.")
        return values[places]


@dataclass(frozen=True, repr=False)
class ProbeFacts(Concise):
    """Facts of the probe that need no encoder, in probe order; computed once.

    Attributes:
        truths: name to (N,) true log density.
        headline: name of the truth whose tags have no name; ``None`` without one.
        gaussian: (N,) log density under one Gaussian fitted to the reference inputs, or ``None``.
        complexity: (N,) compressed bytes.
        reference: this process's shard of the reference inputs, or ``None``.
        coordinates: (N, r) latent coordinates that are known of the probe, or ``None``.
        components: (N, C) principal components of the inputs; ``None`` where distances between these mean nothing.
    """

    truths: Mapping[str, Tensor]
    gaussian: Tensor | None
    complexity: Tensor
    reference: Shard | None
    coordinates: Tensor | None = None
    headline: str | None = None
    components: Tensor | None = None


def probe_facts(
    shard: Shard,
    *,
    log_densities: Mapping[str, Callable[[Tensor], Numbers] | KnownBySample],
    gaussian: Callable[[Tensor], Tensor] | None,
    reference: Shard | None,
    coordinates: Callable[[Tensor], Tensor] | None = None,
    sparing: Sparing,
) -> ProbeFacts:
    """Gather facts of the whole probe from all processes; what fails is left out."""
    inputs = shard.inputs if shard.inputs.is_floating_point() else shard.inputs.float()

    def everywhere(function: Callable[[Tensor], Any]) -> Tensor:
        with fail_together(shard.indices.device):
            values = _as_numbers(function(inputs.clone())).to(shard.indices.device)
        return gather_by_index(shard.indices, values)

    def one_number_each(truth: Callable[[Tensor], Numbers] | KnownBySample) -> Tensor:
        if isinstance(truth, KnownBySample):
            return everywhere(lambda _: truth.at(shard.indices))
        return everywhere(lambda inputs: _require_one_each(_as_numbers(truth(inputs)), len(inputs)))

    truths = {}
    for position, (name, truth) in enumerate(log_densities.items()):
        lost = tag_groups.truth_tags(name, headline=position == 0)
        with sparing.attempt(f"log_density {name!r}", lost):
            truths[name] = one_number_each(truth)
    flat = inputs.flatten(1).nan_to_num()
    ranges = everywhere(lambda _: torch.stack([flat.amin(1), flat.amax(1)], dim=1))
    low, high = float(ranges[:, 0].min()), float(ranges[:, 1].max())
    by_gaussian = everywhere(gaussian) if gaussian else None
    complexity = everywhere(lambda inputs: torch.from_numpy(compressed_size(inputs, low=low, high=high)))
    known = None
    if coordinates:
        with sparing.attempt("coordinates"):
            known = everywhere(coordinates)
    return ProbeFacts(
        truths=truths,
        gaussian=by_gaussian,
        complexity=complexity,
        reference=reference,
        coordinates=known,
        headline=next(iter(log_densities), None),
        components=principal_components(everywhere(pixels)) if has_pixels(shard.inputs) else None,
    )


def _as_numbers(values: Any) -> Tensor:
    """Convert what somebody's function gave, a tensor, an array or a list of numbers, to a float64 tensor."""
    if isinstance(values, Tensor):
        return values.detach().double()
    return torch.from_numpy(np.array(values, dtype=np.float64))


def _require_one_each(values: Tensor, count: int) -> Tensor:
    if values.shape != (count,):
        raise ValueError(
            f"it must give one number for each of {count} inputs, of shape ({count},), and gave {tuple(values.shape)}."
        )
    return values
