"""Runs a function on several gloo processes, or a script, begun without the test's threads and state.

Processes are forked from a server that has imported what takes seconds to import, and has done nothing else.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

IMPORTED = ["lightning.pytorch.cli", "timm"]  # others' packages alone
ROOT = Path(__file__).resolve().parents[1]
TRAIN = ROOT / "train.py"
SECONDS = 300


def run_python(
    script: str | Path, *arguments: str | Path, folder: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a script with its arguments in a folder, with further environment variables, to whatever end it comes."""
    words = [str(script), *map(str, arguments)]
    context = _forking()
    # pipes, as files would count towards the limits that some scripts set themselves
    (out, to_out), (err, to_err) = (context.Pipe(duplex=False) for _ in range(2))
    process = context.Process(target=_as_script, args=(words, folder, variables, to_out, to_err))
    with ThreadPoolExecutor() as readers:
        process.start()
        written = [readers.submit(_read, pipe) for pipe in (out, err)]
        to_out.close()
        to_err.close()
        _, late = wait(written, timeout=SECONDS)
        if late:
            os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = (text.result() for text in written)
        process.join()
    if late:
        raise subprocess.TimeoutExpired(words, SECONDS, stdout, stderr)
    return subprocess.CompletedProcess(words, process.exitcode, stdout, stderr)


def run_on(world_size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return the results of an importable ``function(rank, world_size, *arguments)`` on each process; plain ones."""
    with tempfile.TemporaryDirectory() as folder:
        shared = (world_size, folder, function, arguments)
        _forking()
        mp.start_processes(_one_rank, args=shared, nprocs=world_size, start_method="forkserver")
        return [torch.load(Path(folder) / str(rank), weights_only=False) for rank in range(world_size)]


def _forking() -> Any:
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def _as_script(words: list[str], folder: Path, variables: dict[str, str], out: Connection, err: Connection) -> None:
    os.setsid()  # so that what it starts can be killed with it
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    out.close()
    err.close()
    os.chdir(folder)
    # also for the processes that Lightning starts
    path = f"{ROOT}{os.pathsep}{ROOT / 'callbacks'}"
    os.environ.update({"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **variables})
    _as_if_started_alone()
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).parent))
    runpy.run_path(words[0], run_name="__main__")


def _as_if_started_alone() -> None:
    mp.set_start_method(None, force=True)  # of its own workers: the system's, not that of this process
    torch.set_num_threads(1)


def _read(pipe: Connection) -> str:
    with os.fdopen(os.dup(pipe.fileno()), errors="replace") as file:
        return file.read()


def _one_rank(
    rank: int, world_size: int, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    from jepa_train.parallel import disconnect  # here, as scripts may bring their own copy of ours

    _as_if_started_alone()
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size, timeout=timedelta(seconds=60))
    try:
        torch.save(function(rank, world_size, *arguments), Path(folder) / str(rank))
    finally:
        disconnect()
