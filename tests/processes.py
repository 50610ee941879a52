"""Runs a function on several gloo processes, or a script, begun without the test's threads and state."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from jepa_train.parallel import disconnect

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ROOT / "train.py"


def run_python(*command: str | Path, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script with its arguments in a folder, with further environment variables, to whatever end it comes."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'callbacks'}",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        **variables,
    }
    words = [sys.executable, *map(str, command)]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def run_on(world_size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What ``function(rank, world_size, *arguments)`` returns on each rank; an importable function, plain results."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_one_rank, args=(world_size, folder, function, arguments), nprocs=world_size)
        return [torch.load(Path(folder) / str(rank), weights_only=False) for rank in range(world_size)]


def _one_rank(
    rank: int, world_size: int, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size, timeout=timedelta(seconds=60))
    try:
        torch.save(function(rank, world_size, *arguments), Path(folder) / str(rank))
    finally:
        disconnect()
