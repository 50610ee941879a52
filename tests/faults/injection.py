"""Callbacks that inject faults: what schedulers, kernels and disks do to a run, at a place that a test chooses."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
from abc import ABC, abstractmethod
from typing import Any

import lightning.pytorch as pl

from jepa_train.errors import RunFailed


class Fault(pl.Callback, ABC):
    """Something that happens between the fetch of a batch and its training step.

    Args:
        step: optimizer steps done by then.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    @abstractmethod
    def happen(self, trainer: pl.Trainer) -> None:
        """Inject the fault."""

    def on_train_batch_start(self, trainer: pl.Trainer, *unused: Any) -> None:
        """Inject the fault if it is time."""
        if trainer.global_step == self.step:
            self.happen(trainer)


class KillAt(Fault):
    """SIGKILL to this process."""

    def happen(self, trainer: pl.Trainer) -> None:
        """Die."""
        os.kill(os.getpid(), signal.SIGKILL)


class Fail(Fault):
    """A failure of the run."""

    def happen(self, trainer: pl.Trainer) -> None:
        """End it."""
        raise RunFailed("a fault was injected")


class FillDisk(Fault):
    """No file of this process can grow beyond 1 kB from now on."""

    def happen(self, trainer: pl.Trainer) -> None:
        """Limit the size of files."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


class RemoveRun(Fault):
    """The folder of the run is gone."""

    def happen(self, trainer: pl.Trainer) -> None:
        """Remove it."""
        assert trainer.log_dir is not None
        shutil.rmtree(trainer.log_dir)


class KillWorkers(Fault):
    """SIGKILL to the workers, as the kernel does where memory is short."""

    def happen(self, trainer: pl.Trainer) -> None:
        """Kill all of them."""
        for worker in multiprocessing.active_children():
            worker.kill()


class KillInWrite(Fault):
    """SIGKILL to this process when half of the next checkpoint is on disk."""

    def happen(self, trainer: pl.Trainer) -> None:
        """Let the checkpoint end the process that pickles it."""
        self.state_dict = lambda: {"deadly": _Deadly()}  # type: ignore[method-assign]  # from now on


class _Deadly:
    def __reduce__(self) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


class SignalAt(pl.Callback):
    """One signal to this process, in another hook on each rank.

    Args:
        step: optimizer steps done by then.
        hooks: name of the hook in which rank 0 gets it, rank 1, and so on.
        name: of the signal.
    """

    def __init__(self, step: int, hooks: list[str], name: str = "SIGTERM") -> None:
        self.step = step
        self.hooks = hooks
        self.name = name

    def _send(self, hook: str, trainer: pl.Trainer) -> None:
        if trainer.global_step == self.step and self.hooks[trainer.global_rank] == hook:
            self.step = -1
            os.kill(os.getpid(), getattr(signal, self.name))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send it when training starts."""
        self._send("on_train_start", trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, *unused: Any) -> None:
        """Send it before a training step."""
        self._send("on_train_batch_start", trainer)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send it between the backward pass and the update."""
        self._send("on_after_backward", trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send it before a validation."""
        self._send("on_validation_start", trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send it after a validation and its measurements."""
        self._send("on_validation_end", trainer)
