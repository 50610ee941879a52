"""Strategies that are refused, and the end of a process that was connected to others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from jepa_train.errors import ConfigurationError
from jepa_train.parallel import check_strategy

ROOT = Path(__file__).resolve().parents[2]
# with dist.destroy_process_group() alone at its end, both processes abort
ENDING = """
import sys, time
import torch
import torch.distributed as dist
from jepa_train.parallel import disconnect


class Open:
    def __del__(self):  # as a file that the interpreter closes at its end: others get their turn
        time.sleep(0.2)


rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
file, held = Open(), dist.group.WORLD  # the group as a sharded model holds it
dist.barrier()
sys.setswitchinterval(60)  # from here on only what waits gives the interpreter to another thread
for _ in range(8):
    dist.all_reduce(torch.ones(4), async_op=True)  # python has let go of the tensor before gloo has
begun = time.monotonic()
while time.monotonic() < begun + 1:  # until they are done, and gloo's threads wait for the interpreter
    pass
disconnect()
"""


@pytest.mark.slow
def test_a_group_that_is_still_held_does_not_abort_the_process(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", ENDING, str(rank), str(tmp_path / "store")],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors


@pytest.mark.parametrize("kind", [FSDPStrategy, ModelParallelStrategy])
def test_strategies_that_would_cut_target_and_encoder_apart_are_refused(kind: type[Any]) -> None:
    strategy = kind()
    if kind is ModelParallelStrategy:  # at its defaults, on one machine with two devices
        strategy._device_mesh = {"tensor_parallel": SimpleNamespace(size=lambda: 2)}
    with pytest.raises(ConfigurationError, match=r"configs/fsdp.yaml|data_parallel_size to devices x num_nodes"):
        check_strategy(strategy)
