"""Weights spread over processes with FSDP2, for models that do not fit into one device's memory."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard


def shard(units: Iterable[nn.Module], mesh: DeviceMesh) -> None:
    """Shard modules, each as a whole and in the given order, an inner one before the one that holds it.

    Those without parameters, and those that are sharded already, stay as they are.

    Args:
        units: whose parameters are gathered together.
        mesh: as Lightning's ``ModelParallelStrategy`` gives it, with a dimension ``data_parallel``.
    """
    for unit in units:
        if not isinstance(unit, FSDPModule) and next(unit.parameters(), None) is not None:
            # said aloud: by default the outermost unit stays whole until a backward pass, which a target never has
            fully_shard(unit, mesh=mesh["data_parallel"], reshard_after_forward=True)
