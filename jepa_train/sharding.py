"""Weights spread over processes with FSDP2, for models that do not fit into one device's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

if TYPE_CHECKING:
    from jepa_train.module import JEPA


def shard(module: JEPA, mesh: DeviceMesh) -> None:
    """Shard encoders block by block, projectors and predictor each as a whole; nothing where it is done already.

    Online and target are cut alike, so that each process averages its own pieces. The predictor is one unit because
    its joint pass uses the projections of its first and last block by themselves.

    Args:
        module: on any device.
        mesh: as Lightning's ``ModelParallelStrategy`` gives it, with a dimension ``data_parallel``.
    """
    if isinstance(module.predictor, FSDPModule):
        return
    parts: list[nn.Module] = [module.predictor]
    for side in (module.online, module.target):
        parts += [*side.encoder.vit.blocks, side.encoder, side.projector]
    for part in parts:
        if any(True for _ in part.parameters()):
            # said aloud: by default the outermost part stays whole until a backward pass, which a target never has
            fully_shard(part, mesh=mesh["data_parallel"], reshard_after_forward=True)
