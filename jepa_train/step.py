"""The forward pass of a training step: from views and masks to the terms of the loss.

Shape letters: B images, N patches, V context patches, M target blocks, T patches of a block, D width, K embedding, W
views.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, cast

import torch
from torch import Tensor

from jepa_train.models.encoder import EmbeddingEncoder, attention_kernel, gather_tokens
from jepa_train.models.predictor import Predictor
from jepa_train.objectives import Objective, embedding_prediction, spectral_penalty

Masks = tuple[Tensor, Tensor]  # patch indices of the context (B, V) and of the targets (B, M, T)


class Context(NamedTuple):
    """Visible patches of view A, and what is predicted from them.

    Attributes:
        tokens: (B, V, D) of the context encoder.
        predicted_tokens: (B, M, T, D).
        predicted_embedding: (B, M, K), or ``None``.
        masks: indices of the visible patches and of the targets.
    """

    tokens: Tensor
    predicted_tokens: Tensor
    predicted_embedding: Tensor | None
    masks: Masks


@dataclass(frozen=True)
class Step:
    """The networks and the objective of a step.

    Attributes:
        online, target, predictor: networks; no predictor where nothing is hidden.
        objective: weights and settings of the terms.
        recomputes: true where blocks are computed again in the backward pass.
    """

    online: EmbeddingEncoder
    target: EmbeddingEncoder
    predictor: Predictor | None
    objective: Objective
    recomputes: bool = False

    def terms(self, views: Sequence[Tensor], masks: Masks | None, *, slice_seed: int) -> dict[str, Tensor]:
        """Compute the terms of the loss by name, unweighted, each of the batch joined over all processes.

        Args:
            views: view A and view B (B, C, H, W); or global views, two or more if there are masks, and then local ones,
                which may be of another size.
            masks: context and targets; ``None`` where nothing is hidden.
            slice_seed: seed of SIGReg's directions.
        """
        objective, terms = self.objective, {}
        with self._attention(views[0].device):
            context = None if masks is None else self._from_context(views[0], masks)
            full = self._encoded(objective.seen_whole(views))
        if context is not None and objective.weights["tokens"]:
            target = self.target_tokens(views[0], context.masks[1])
            terms["tokens"] = objective.token_term(context.predicted_tokens, target)
        if full:
            seen = full if context is None or objective.compares_views else [context.tokens, *full]
            z_WBK = self._embedded(seen)
            if objective.compares_views:
                terms["centre"] = objective.centre_term(z_WBK)
            if context is not None and context.predicted_embedding is not None:
                terms["embedding"] = embedding_prediction(context.predicted_embedding, z_WBK[1])
            if objective.anticollapse is not None:
                guarded: dict[str, Sequence[Tensor]] = {"embedding": z_WBK.unbind()}
                if context is not None and objective.guards_tokens:
                    at_context = gather_tokens(seen[1], context.masks[0])
                    guarded["tokens"] = [context.tokens.flatten(0, 1), at_context.flatten(0, 1)]
                terms["anticollapse"] = objective.anticollapse_term(guarded, slice_seed)
        if objective.weights["spectral"]:
            terms["spectral"] = spectral_penalty(self.online.encoder)
        return terms

    def target_tokens(self, images: Tensor, targets_BMT: Tensor) -> Tensor:
        """(B, M, T, D) tokens of the target encoder on the full image."""
        if self.objective.stop_gradient:
            with torch.no_grad():
                tokens = self.target.encoder(images)
        else:
            with self._attention(images.device):
                tokens = self.online.encoder(images)
        return cast("Tensor", gather_tokens(tokens, targets_BMT.flatten(1)).unflatten(1, targets_BMT.shape[1:]))

    def _from_context(self, view_a: Tensor, masks: Masks) -> Context:
        assert self.predictor is not None
        context_BVD = self.online.encoder(view_a, masks[0])
        predicted_BMTD, predicted_BMK = self.predictor(context_BVD, *masks)
        return Context(context_BVD, predicted_BMTD, predicted_BMK, masks)

    def _encoded(self, views: Sequence[Tensor]) -> list[Tensor]:
        """Tokens (B, N, D) of each view, in one pass for all that follow each other in the same size."""
        tokens: list[Tensor] = []
        for _, alike in groupby(views, key=lambda view: view.shape):
            batches = list(alike)
            joined = self.online.encoder(batches[0] if len(batches) == 1 else torch.cat(batches))
            tokens += [joined] if len(batches) == 1 else joined.chunk(len(batches))
        return tokens

    def _embedded(self, seen: Sequence[Tensor]) -> Tensor:
        """(W, B, K) embeddings of W views from their tokens (B, N, D).

        In one pass, so that batch norm treats full images in training as it will in evaluation.
        """
        embeddings = self.online.projector(torch.cat([tokens.mean(1) for tokens in seen]))
        return cast("Tensor", embeddings.unflatten(0, (len(seen), -1)))

    def _attention(self, device: torch.device) -> AbstractContextManager[object]:
        # what is computed again in the backward pass, outside of autocast, must be what was computed first
        return nullcontext() if self.recomputes and device.type == "cpu" else attention_kernel(device)
