"""The predictor: its two ways to the same numbers, and what may see what."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from jepa_train.errors import ConfigurationError
from jepa_train.inputs.masks import MultiBlockMasks
from jepa_train.models.predictor import Predictor, PredictorMode


def make(*, mode: PredictorMode = "joint", depth: int = 3, embedding_size: int | None = 5) -> Predictor:
    torch.manual_seed(3)
    settings = {"token_width": 12, "grid_size": (6, 6), "width": 16, "heads": 4}
    return Predictor(**settings, depth=depth, embedding_size=embedding_size, mode=mode).double()  # type: ignore[arg-type]  # a dict of settings


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    context, targets = MultiBlockMasks((6, 6), num_targets=3)(4, torch.Generator().manual_seed(0))
    return torch.randn(4, context.shape[1], 12, dtype=torch.float64, requires_grad=True), context, targets


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("embedding_size", [None, 5])
def test_the_joint_pass_gives_the_numbers_and_gradients_of_a_pass_per_block(
    depth: int, embedding_size: int | None
) -> None:
    tokens, context, targets = inputs()
    results = []
    for mode in ("joint", "per_block"):
        predictor = make(mode=mode, depth=depth, embedding_size=embedding_size)  # type: ignore[arg-type]  # one of its names
        predicted, embedding = predictor(tokens, context, targets)
        loss = predicted.square().sum() + (embedding.sin().sum() if embedding is not None else 0.0)
        results.append([predicted, embedding, *torch.autograd.grad(loss, [tokens, *predictor.parameters()])])
    assert results[0][0].shape == (*targets.shape, 12)
    assert (results[0][1] is None) == (embedding_size is None)
    for ours, theirs in zip(*results, strict=True):
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", ["joint", "per_block"])
def test_a_block_does_not_see_the_queries_of_another(mode: PredictorMode) -> None:
    tokens, context, targets = inputs()
    predictor = make(mode=mode)
    changed = targets.clone()
    changed[:, 1] = (changed[:, 1] + 7) % 36
    before, after = predictor(tokens, context, targets), predictor(tokens, context, changed)
    for ours, theirs in zip(before, after, strict=True):
        torch.testing.assert_close(ours[:, [0, 2]], theirs[:, [0, 2]])
        assert not torch.allclose(ours[:, 1], theirs[:, 1])


def test_an_order_of_context_tokens_does_not_matter() -> None:
    tokens, context, targets = inputs()
    predictor, order = make(), torch.randperm(context.shape[1])
    torch.testing.assert_close(
        predictor(tokens, context, targets)[0], predictor(tokens[:, order], context[:, order], targets)[0]
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"heads": 3}, "not divisible"), ({"depth": 0}, "1 or more"), ({"mode": "all"}, "joint or per_block")],
)
def test_refusals(setting: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"token_width": 12, "grid_size": (6, 6), "width": 16, "heads": 4, "depth": 1}
    with pytest.raises(ConfigurationError, match=message):
        Predictor(**{**settings, "embedding_size": None, **setting})
