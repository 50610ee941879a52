"""The projector from tokens to the embedding."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from jepa_train.models.batch_norm import GlobalBatchNorm1d


class Projector(nn.Module):
    """Maps the mean token to the embedding z that is predicted, kept from collapsing, and scored.

    Batch norm in the hidden layers keeps SIGReg from stalling with a single live direction; with several processes
    its statistics are those of the global batch.

    Args:
        width: D, channels of a token.
        hidden: width of the two hidden layers; 0 makes the projector one linear map.
        embedding_size: K.
        batch_norm: normalise the hidden layers over the batch.
    """

    def __init__(self, width: int, *, hidden: int, embedding_size: int, batch_norm: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2 if hidden else 0):
            layers.append(nn.Linear(width, hidden, bias=not batch_norm))
            if batch_norm:
                layers.append(GlobalBatchNorm1d(hidden))
            layers.append(nn.GELU())
            width = hidden
        layers.append(nn.Linear(width, embedding_size))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) mean tokens -> (B, K) embeddings."""
        return cast("Tensor", self.layers(features))
