"""Objectives on several processes that hold different numbers of samples, against one process with all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from jepa_train.errors import ConfigurationError
from jepa_train.global_batch import gather_over_processes, mean_over_processes, sum_over_processes
from jepa_train.objectives import (
    ANTICOLLAPSE_NAMES,
    TOKEN_LOSSES,
    build_anticollapse,
    embedding_prediction,
    token_prediction,
)
from tests.processes import run_on

SHARDS = [(14,), (13, 1), (9, 5), (7, 5, 2), (1, 8, 5)]
DTYPES = [torch.float64, torch.float32]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
INPUTS = (14, 4, 6)  # samples, blocks, coordinates
EMBEDDING = 3

Loss = Callable[[Tensor], Tensor]  # of (B, blocks, EMBEDDING): what the shared linear map makes of a shard
Result = tuple[Tensor, Tensor]  # value, gradient of the map's weight as DDP leaves it


def objectives() -> dict[str, Loss]:
    """Each objective as a function of the blocks of a batch: blocks 0 and 1 are two views."""
    losses: dict[str, Loss] = {}
    for name in ANTICOLLAPSE_NAMES:
        if (term := build_anticollapse(name, num_slices=8)) is not None:  # type: ignore[arg-type]  # names of its type
            losses[name] = lambda z, term=term: term(z[:, 0], z[:, 1], 3)  # type: ignore[misc]  # bound now
    for name in TOKEN_LOSSES:
        losses[name] = lambda z, name=name: token_prediction(z[:, :2], z[:, 2:], loss=name)  # type: ignore[misc]
    losses["embedding"] = lambda z: embedding_prediction(z[:, 1:], z[:, 0])
    return losses


NAMES = sorted(objectives())


def inputs(dtype: torch.dtype) -> Tensor:
    """Blocks of the same sample are alike; samples differ, also in scale: a mean of shards' means is far off."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(INPUTS[0], 1, INPUTS[2], generator=generator, dtype=torch.float64)
    samples = samples * torch.linspace(0.3, 2.0, INPUTS[0], dtype=torch.float64)[:, None, None]
    return (samples + 0.3 * torch.randn(INPUTS, generator=generator, dtype=torch.float64) + 0.2).to(dtype)


def results(shard: Tensor, wrap: Callable[[nn.Module], nn.Module]) -> dict[str, Result]:
    """Value and gradient of every objective, of a linear map that all processes share."""
    found = {}
    for name, loss in objectives().items():
        torch.manual_seed(1)
        shared = nn.Linear(INPUTS[2], EMBEDDING).to(shard.dtype)
        wrapped = wrap(shared)  # by name, as DDP averages only while it is alive
        value = loss(wrapped(shard))
        value.backward()
        assert shared.weight.grad is not None
        found[name] = value.detach(), shared.weight.grad
    return found


def collectives(rank: int) -> dict[str, Any]:
    """The collectives alone, and what a batch that is too small says on a rank."""
    rows = torch.arange(6.0).reshape(3, 2).split((1, 2))[rank].clone().requires_grad_()
    joined, first_own = gather_over_processes(rows)
    ((rank + 1.0) * joined * torch.arange(6.0).reshape(3, 2)).sum().backward()
    turned = torch.arange(6.0).reshape(2, 3).T
    found = {"joined": joined.detach(), "first_own": first_own, "gradient": rows.grad}
    found["turned"] = sum_over_processes(turned)
    found["mean"] = mean_over_processes(torch.full((1 + 2 * rank,), 1.0 + rank))
    found["messages"] = [message_of(name, rank) for name in ANTICOLLAPSE_NAMES if name != "none"]
    return found


def message_of(name: str, rank: int) -> str:
    term = build_anticollapse(name)  # type: ignore[arg-type]  # names of its type
    few = torch.ones(1 - rank, 1)  # one sample on the first process, none on the second
    try:
        term(few, few, 0)  # type: ignore[misc]  # not none
    except ConfigurationError as error:
        return str(error)
    return "no error"


def on_one_rank(rank: int, world_size: int) -> dict[Any, Any]:
    """Results of the shards for this number of processes, and on two what :func:`collectives` finds."""
    found: dict[Any, Any] = {"collectives": collectives(rank)} if world_size == 2 else {}
    for sizes in SHARDS:
        if len(sizes) == world_size:
            for dtype in DTYPES:
                found[sizes, dtype] = results(inputs(dtype).split(sizes)[rank], DistributedDataParallel)
    return found


@pytest.fixture(scope="module")
def ranks() -> dict[int, list[dict[Any, Any]]]:
    """Results of each process, for every number of processes: started once, as it takes seconds."""
    return {world_size: run_on(world_size, on_one_rank) for world_size in (1, 2, 3)}


@pytest.fixture(scope="module")
def one_process() -> dict[torch.dtype, dict[str, Result]]:
    return {dtype: results(inputs(dtype), lambda module: module) for dtype in DTYPES}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SHARDS)
def test_uneven_processes_equal_one(
    name: str, dtype: torch.dtype, sizes: tuple[int, ...], ranks: dict[int, Any], one_process: dict[Any, Any]
) -> None:
    value, gradient = one_process[dtype][name]
    assert gradient.abs().max() > 1e-3
    close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    found = [of_rank[sizes, dtype][name] for of_rank in ranks[len(sizes)]]
    for rank_value, rank_gradient in found:
        torch.testing.assert_close(rank_value, value, **close)
        torch.testing.assert_close(rank_gradient, gradient, **close)
        assert torch.equal(rank_value, found[0][0])


@pytest.mark.slow
def test_collectives_are_exact_and_errors_are_everyones(ranks: dict[int, Any]) -> None:
    for rank, found in enumerate(of_rank["collectives"] for of_rank in ranks[2]):
        assert torch.equal(found["joined"], torch.arange(6.0).reshape(3, 2))
        assert found["first_own"] == rank
        own = torch.arange(6.0).reshape(3, 2).split((1, 2))[rank]
        assert torch.equal(found["gradient"], 3.0 * own)  # of both processes' losses, 1 and 2 times the rows
        assert torch.equal(found["turned"], 2.0 * torch.arange(6.0).reshape(2, 3).T)
        assert float(found["mean"]) == (1.0 + 3 * 2.0) / 4
        assert all("at least 2 samples" in message and "got 1" in message for message in found["messages"])


def test_collectives_of_one_process_do_nothing() -> None:
    rows = torch.randn(3, 2)
    assert gather_over_processes(rows) == (rows, 0)
    assert sum_over_processes(rows) is rows
    assert float(mean_over_processes(rows)) == pytest.approx(float(rows.mean()))
    assert torch.isnan(mean_over_processes(rows[:0]))
