"""The predictor: from context tokens to the tokens of each target block, and to the image embedding.

Shape letters: B images, M target blocks, V context patches, T patches of a block, Q = T queries (one more with the
embedding query), D token width, W predictor width, K embedding.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_train.errors import ConfigurationError, check_at_least
from jepa_train.models.encoder import fixed_positions

PredictorMode = Literal["joint", "per_block"]
NORM_EPS = 1e-6  # of I-JEPA's layer norms, timm's blocks included; torch's default is 1e-5
INITIAL_STD = 0.02


class Predictor(nn.Module):
    """A narrow Vision Transformer over [context tokens, queries of one target block, embedding query].

    As in I-JEPA the queries of one block never see those of another, so each block has a pass of its own; and weights
    and queries begin as a truncated normal of deviation 0.02, biases at zero. The head for the embedding, which I-JEPA
    does not have, begins as torch's layers do: with small weights the embedding is learned more slowly.

    Args:
        token_width: D, channels of the encoder's tokens.
        grid_size: patches along height and width.
        width, depth, heads: size of the predictor itself (official: 384, 12 or 16, as the encoder).
        embedding_size: K of the embedding to predict; ``None`` leaves the embedding query out, which is plain I-JEPA.
        mode: ``per_block`` runs pass after pass. ``joint`` runs all at once, as rows of one batch (which is
            block-diagonal attention without its zeros), and leaves out what no output depends on: the first block
            attends from context tokens whose projections all passes share, the last one computes queries alone. Equal
            up to rounding.

    Raises:
        ConfigurationError: if the heads do not divide the width, for a depth of 0, or for another mode.
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
        mode: PredictorMode = "joint",
    ) -> None:
        super().__init__()
        check_predictor(width=width, depth=depth, heads=heads, mode=mode)
        self.mode = mode
        self.register_buffer("positions", fixed_positions(grid_size, width), persistent=False)
        self.input = nn.Linear(token_width, width)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mask_query = _query(width)
        self.token_head = nn.Linear(width, token_width)
        self.apply(_begin_as_published)
        self.embedding_query = None if embedding_size is None else _query(width)
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
        context_BVW = self.input(context_BVD) + self.positions[context_BV]
        queries_BMQW = self._queries(targets_BMT).to(context_BVW.dtype)
        if self.mode == "joint":
            hidden_BMQW = self._joint(context_BVW, queries_BMQW)
        else:
            passes = [self._one_pass(context_BVW, queries_BQW) for queries_BQW in queries_BMQW.unbind(1)]
            hidden_BMQW = torch.stack(passes, dim=1)
        hidden_BMQW = self.norm(hidden_BMQW)
        if self.embedding_head is None:
            return self.token_head(hidden_BMQW), None
        return self.token_head(hidden_BMQW[:, :, :-1]), self.embedding_head(hidden_BMQW[:, :, -1])

    def compiled_units(self) -> list[nn.Module]:
        """List the modules that are compiled each as a whole: one block is compiled for all that run whole.

        On GPUs torch 2.11 fails to compile this module by itself, whose number of tokens changes.
        """
        return list(self.blocks)

    def _queries(self, targets_BMT: Tensor) -> Tensor:
        """(B, M, Q, W): a query for each patch, and one for the embedding."""
        queries = self.mask_query + self.positions[targets_BMT]
        if self.embedding_query is None:
            return queries
        B, M, _ = targets_BMT.shape
        return torch.cat([queries, self.embedding_query.expand(B, M, 1, -1)], dim=2)

    def _one_pass(self, context_BVW: Tensor, queries_BQW: Tensor) -> Tensor:
        """(B, Q, W) states of the queries."""
        hidden = self.blocks(torch.cat([context_BVW, queries_BQW], dim=1))
        return cast("Tensor", hidden[:, context_BVW.shape[1] :])

    def _joint(self, context_BVW: Tensor, queries_BMQW: Tensor) -> Tensor:
        """(B, M, Q, W) states of the queries of all passes."""
        B, M, _, _ = queries_BMQW.shape
        queries = queries_BMQW.flatten(0, 1)
        *before, last = cast("list[Block]", list(self.blocks))
        if before:
            hidden = _first_block(before[0], context_BVW, queries)
        else:
            hidden = torch.cat([context_BVW.repeat_interleave(M, dim=0), queries], dim=1)
        for block in before[1:]:
            hidden = block(hidden)
        states = _last_block(last, hidden, num_context=context_BVW.shape[1])
        return states.view(B, M, *states.shape[1:])


def check_predictor(*, width: int, depth: int, heads: int, mode: str) -> None:
    """See that a predictor of these sizes can be built.

    Raises:
        ConfigurationError: for a width that its heads or 4 do not divide, a depth of 0, or another mode.
    """
    if width % heads:
        raise ConfigurationError(f"predictor_width {width} is not divisible by predictor_heads {heads}.")
    if width % 4:
        raise ConfigurationError(f"predictor_width must be a multiple of 4, for its positions; got {width}.")
    check_at_least(1, predictor_depth=depth)
    if mode not in get_args(PredictorMode):
        raise ConfigurationError(f"predictor_mode must be joint or per_block, got {mode!r}.")


def _query(width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=INITIAL_STD))


def _begin_as_published(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=INITIAL_STD)
        nn.init.zeros_(layer.bias)


def _first_block(block: Block, context: Tensor, queries: Tensor) -> Tensor:
    """The block on [context, queries] of every pass, (B, V, W) and (B M, Q, W) -> (B M, V + Q, W).

    Before this block all passes of an image have the same context, so its query, key and value are computed once.
    """
    M = len(queries) // len(context)
    attention = cast("Attention", block.attn)
    of_context = attention.qkv(block.norm1(context)).repeat_interleave(M, dim=0)
    qkv = torch.cat([of_context, attention.qkv(block.norm1(queries))], dim=1)
    hidden = torch.cat([context.repeat_interleave(M, dim=0), queries], dim=1)
    return _finish(block, hidden, *qkv.chunk(3, dim=-1))


def _last_block(block: Block, hidden: Tensor, *, num_context: int) -> Tensor:
    """The block's output for the queries alone: (P, V + Q, W) -> (P, Q, W). Nothing else is read from it."""
    attention = cast("Attention", block.attn)
    normed = block.norm1(hidden)
    width = hidden.shape[-1]
    weight, bias = attention.qkv.weight, attention.qkv.bias
    q = F.linear(normed[:, num_context:], weight[:width], bias[:width])
    k, v = F.linear(normed, weight[width:], bias[width:]).chunk(2, dim=-1)
    return _finish(block, hidden[:, num_context:], q, k, v)


def _finish(block: Block, hidden: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention and MLP of a block whose projections (P, tokens, W) are given, added to ``hidden``."""
    attention = cast("Attention", block.attn)
    heads = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (q, k, v))
    attended = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    hidden = hidden + attention.proj(attended)
    return cast("Tensor", hidden + block.mlp(block.norm2(hidden)))
