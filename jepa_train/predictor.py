"""The predictor: from context tokens to the tokens of each target block, and to the image embedding."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from jepa_train.encoder import fixed_positions
from jepa_train.errors import ConfigurationError


class Predictor(nn.Module):
    """A narrow Vision Transformer over [context tokens, queries of one target block, embedding query].

    As in I-JEPA it runs once per target block: the queries of one block never see those of another.

    Args:
        token_width: D, channels of the encoder's tokens.
        grid_size: patches along height and width.
        width, depth, heads: of the predictor itself (official: 384, 12 or 16, as the encoder).
        embedding_size: K of the embedding to predict; ``None`` leaves the embedding query out, which is plain I-JEPA.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        token_width: int,
        grid_size: tuple[int, int],
        width: int,
        depth: int,
        heads: int,
        embedding_size: int | None,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigurationError(f"predictor_width {width} is not divisible by predictor_heads {heads}.")
        self.register_buffer("positions", fixed_positions(grid_size, width), persistent=False)
        self.input = nn.Linear(token_width, width)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.mask_query = nn.Parameter(torch.randn(width) * 0.02)
        self.token_head = nn.Linear(width, token_width)
        self.embedding_query = None if embedding_size is None else nn.Parameter(torch.randn(width) * 0.02)
        self.embedding_head = None if embedding_size is None else nn.Linear(width, embedding_size)

    def forward(self, context_BVD: Tensor, context_BV: Tensor, targets_BMT: Tensor) -> tuple[Tensor, Tensor | None]:
        """Predict M target blocks of T tokens each.

        Args:
            context_BVD: context tokens.
            context_BV: their patch indices.
            targets_BMT: patch indices of the target blocks.

        Returns:
            predicted tokens (B, M, T, D), and predicted embeddings (B, M, K), one from each pass, or ``None``.
        """
        B, M, T = targets_BMT.shape
        V = context_BV.shape[1]
        context = self.input(context_BVD) + self.positions[context_BV]
        context = context.repeat_interleave(M, dim=0)
        queries = self.mask_query + self.positions[targets_BMT.flatten(0, 1)]
        sequence = [context, queries.to(context.dtype)]
        if self.embedding_query is not None:
            sequence.append(self.embedding_query.to(context.dtype).expand(B * M, 1, -1))
        hidden = self.norm(self.blocks(torch.cat(sequence, dim=1)))
        tokens = self.token_head(hidden[:, V : V + T]).unflatten(0, (B, M))
        if self.embedding_head is None:
            return tokens, None
        return tokens, self.embedding_head(hidden[:, -1]).unflatten(0, (B, M))
