"""Training on several processes: weights sharded with FSDP2, strategies that are refused, and the end of a group."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch.distributed as dist
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from jepa_train.errors import ConfigurationError

SECONDS_TO_LET_GO = 0.2


def shard(units: Iterable[nn.Module], mesh: DeviceMesh) -> None:
    """Shard modules, each as a whole and in the given order, an inner one before the one that holds it.

    Those without parameters, and those that are sharded already, stay as they are.

    Args:
        units: modules, each of whose parameters are gathered together.
        mesh: device mesh of Lightning's ``ModelParallelStrategy``, with a dimension ``data_parallel``.
    """
    for unit in units:
        if not isinstance(unit, FSDPModule) and next(unit.parameters(), None) is not None:
            # explicit: by default the outermost unit stays whole until a backward pass, which a target never has
            fully_shard(unit, mesh=mesh["data_parallel"], reshard_after_forward=True)


def check_strategy(strategy: Strategy) -> None:
    """See that a strategy of Lightning keeps the target in step with the encoder.

    Raises:
        ConfigurationError: for those that shard the two at different places, or that leave processes unsharded copies
            which nothing averages.
    """
    if isinstance(strategy, (FSDPStrategy, DeepSpeedStrategy)):
        raise ConfigurationError(
            f"{type(strategy).__name__} would shard the target differently from the encoder that it follows: "
            "shard weights with -c configs/fsdp.yaml (FSDP2)."
        )
    if isinstance(strategy, ModelParallelStrategy) and strategy.device_mesh["tensor_parallel"].size() > 1:
        raise ConfigurationError(
            "weights are sharded over data-parallel processes only: set the strategy's data_parallel_size to devices x "
            "num_nodes and its tensor_parallel_size to 1."
        )


def disconnect() -> None:
    """Destroy the process groups, if there are any, so that the interpreter can end.

    A group's threads end with it. But a sharded model, and torch's caches of its operations, hold their groups until
    the interpreter is gone, and gloo's threads need it once more to let go of the last collective's tensors: one that
    still waits for its turn aborts the process ("terminate called without an active exception").
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    dist.destroy_process_group()
    time.sleep(SECONDS_TO_LET_GO)  # gives the interpreter to those threads; nothing says when they are done
