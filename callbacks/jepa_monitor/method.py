"""An encoder and the way it is read: embeddings, features and Gram matrices of all processes' samples."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .density import DensityChoice, Encode, Strategy, map_grams
from .probe.shards import Shard, gather_by_index
from .runtime.distributed import fail_together
from .runtime.encoder import embed

EMBEDDED_A_PASS = 256  # samples, which are on the device at a time


@dataclass(frozen=True)
class Method:
    """An encoder and the way it is read: the same on every process.

    Attributes:
        encode: maps (B, ...) inputs to (B, K), in eval mode.
        to_device: brings CPU inputs to the encoder.
        device: where the encoder is.
        rank: r of the log density; ``None`` is the density's own.
        embedding_density: density of embeddings; see :meth:`EmbeddingReference.fit`.
        dtype: precision of the encoder's computations.
        chunk: samples a pass; ``None`` chooses by size and free memory.
        strategy: see :func:`jepa_monitor.jacobian_gram`.
        progress: called with the number of samples that got a Jacobian.
        notice: called with a sentence that the user should read.
        represent: maps (B, ...) inputs to (B, D) features before a projector; ``None`` where embeddings are features.
    """

    encode: Encode
    to_device: Callable[[Tensor], Tensor]
    device: torch.device
    rank: int | None = None
    embedding_density: DensityChoice = "auto"
    dtype: torch.dtype = torch.float32
    chunk: int | None = None
    strategy: Strategy = "auto"
    progress: Callable[[int], None] | None = None
    notice: Callable[[str], None] = warnings.warn
    represent: Encode | None = None

    def embeddings(self, shard: Shard) -> Tensor:
        """Embed all processes' samples: (N, K)."""
        return self._everywhere(self.encode, shard)

    def features(self, shard: Shard) -> Tensor:
        """Features (N, D) of all processes' samples: embeddings, where no others are known."""
        return self._everywhere(self.represent or self.encode, shard)

    def _everywhere(self, encode: Encode, shard: Shard) -> Tensor:
        with fail_together(self.device):
            parts = shard.inputs.split(EMBEDDED_A_PASS)
            local = torch.cat([embed(encode, self.to_device(part)) for part in parts])
        return gather_by_index(shard.indices, local)

    def map_grams(
        self, function: Callable[[Tensor], tuple[Tensor, ...]], shard: Shard, *, rows: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Apply a function to the Gram matrices of all processes' samples, and gather each of its results.

        Args:
            function: maps (n, K, K), or (n, M, M) with ``rows``, to tensors (n, ...).
            shard: this process's samples.
            rows: (n, M, K) combinations of each sample's outputs to differentiate instead of all K.

        Returns:
            (N, ...) each.
        """
        with fail_together(self.device):
            parts = map_grams(
                lambda gram, _: function(gram),
                self.encode,
                self.to_device(shard.inputs),
                rows=rows,
                strategy=self.strategy,
                chunk=self.chunk,
                progress=self.progress,
                notice=self.notice,
            )
            local = [torch.cat(values) for values in zip(*parts, strict=True)]
        return tuple(gather_by_index(shard.indices, values) for values in local)
