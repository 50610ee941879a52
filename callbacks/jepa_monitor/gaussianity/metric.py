"""The Gaussianity dashboard of embeddings that come in batches, on one process or several."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from .cloud import as_float64
from .dashboard import gaussianity_statistics


class EmbeddingGaussianity(Metric):
    """:func:`gaussianity_statistics` of all embeddings seen, over all batches and processes.

    ``update`` takes (B, K) embeddings; ``compute`` returns a dict of scalar tensors, for ``self.log_dict``. It keeps
    8 N K bytes. NaN for all before the first embedding.

    Args:
        num_slices: random directions of the sliced statistic.
        seed: of these directions.
        kwargs: of ``torchmetrics.Metric``.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None

    embeddings: list[Tensor]
    width: Tensor

    def __init__(self, *, num_slices: int = 256, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_slices = num_slices
        self.seed = seed
        # a process that received nothing sends an empty 1-d tensor of the metric's dtype: so must the others
        self.set_dtype(torch.float64)
        self.add_state("embeddings", default=[], dist_reduce_fx="cat")
        self.add_state("width", default=torch.tensor(0), dist_reduce_fx=_common_width)

    def update(self, z: Tensor) -> None:
        """Add (B, K) embeddings.

        Raises:
            ValueError: if they are not (B, K), or K is not that of the embeddings before.
        """
        if z.ndim != 2 or z.shape[1] == 0:
            raise ValueError(f"Embeddings must be (B, K) with K >= 1, got shape {tuple(z.shape)}.")
        self.width = _common_width(torch.stack([self.width, torch.tensor(z.shape[1]).to(self.width)]))
        self.embeddings.append(as_float64(z).flatten())

    def compute(self) -> dict[str, Tensor]:
        """The dashboard, name to scalar tensor."""
        z = dim_zero_cat(self.embeddings) if len(self.embeddings) else torch.zeros(0, dtype=torch.float64)
        values = gaussianity_statistics(
            z.reshape(-1, max(1, int(self.width))), num_slices=self.num_slices, seed=self.seed
        )
        return {name: torch.tensor(value, dtype=z.dtype, device=z.device) for name, value in values.items()}


def _common_width(widths: Tensor) -> Tensor:
    """The one K of batches or processes; 0 stands for one that received nothing."""
    seen = widths[widths > 0].unique()
    if len(seen) > 1:
        raise ValueError(f"Embeddings of one metric must all have the same K, got {seen.tolist()}.")
    return widths.max()
