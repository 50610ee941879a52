"""The end of a run: its last checkpoint, and requests to stop by SIGTERM or by SLURM's signal to requeue the job."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from jepa_train.checkpoints.files import read_checkpoint
from jepa_train.checkpoints.finite import newest_of_run
from jepa_train.errors import ConfigurationError

GRACE_SECONDS = 25.0  # SLURM and Kubernetes kill, without a word, 30 seconds after they asked
EXIT_STATUS = 128 + signal.SIGTERM  # a scheduler must not take a run that was stopped for one that finished


class Request(IntEnum):
    """A request to a run; of several, the largest counts."""

    NONE = 0
    STOP = 1
    REQUEUE = 2


class SignalWatch:
    """A thread that learns of signals as they arrive, also while the main thread is inside a call that runs no Python.

    Python handlers must be set for them. It is made and closed in the main thread.

    Args:
        act: called with the number of each signal, in the thread.
    """

    def __init__(self, act: Callable[[int], None]) -> None:
        self._act = act
        self._arriving, self._written = socket.socketpair()
        self._written.setblocking(False)
        self._before = signal.set_wakeup_fd(self._written.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._read, name="stop-signals", daemon=True).start()

    def _read(self) -> None:
        with self._arriving:
            while number := self._arriving.recv(1):
                self._act(number[0])

    def close(self) -> None:
        """End the thread when it has done with what arrived."""
        signal.set_wakeup_fd(self._before)
        self._written.close()


class StopSignals(pl.Callback):
    """Note signals that ask a run to stop, so that all processes act on them at the end of the same step.

    Lightning's handlers start a collective wherever a process happens to be. Processes that are not at the same place
    then wait for each other for ever, and a run that was stopped exits as one that finished. Here a handler only takes
    note; a ``ClosingCheckpoint`` asks at the end of each step. A thread bounds the wait, because the main thread may be
    inside a collective, where Python runs no handler. ``validate``, ``test`` and ``predict`` have nothing to save and
    exit at once.

    It belongs before all other callbacks, which may work for long when training starts.

    Args:
        grace_seconds: seconds after a signal in which the end of a step must be reached; then the process exits.
    """

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self.grace_seconds = grace_seconds
        self._meanings: dict[int, Request] = {}
        self._request = Request.NONE
        self._requeue: Callable[[], Any] | None = None
        self._acting = threading.Event()
        self._exit_status = EXIT_STATUS
        self._watch: SignalWatch | None = None

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen from here on: Lightning has set its own handlers just before."""
        self._listen(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen from here on, if there was no sanity check."""
        self._listen(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen in ``validate``."""
        self._listen(trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen in ``test``."""
        self._listen(trainer)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen in ``predict``."""
        self._listen(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Exit where a signal is the likely cause, such as a process or a worker that has gone already.

        Of Ctrl-C, which Lightning ends at once, say what is left.
        """
        if self._request and not isinstance(exception, SIGTERMException):
            self._exit(trainer, f"{type(exception).__name__} before the end of a step was reached")
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero and _trains(trainer):
            kept = newest_of_run(trainer)
            left = f"resume with --ckpt_path {kept}" if kept else "no checkpoint was written yet"
            print(f"Interrupted at step {trainer.global_step}: {left}.", file=sys.stderr)
        self._stop_listening()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let a run that reached its end in spite of a signal finish as such."""
        self._stop_listening()

    def agreed(self, trainer: pl.Trainer) -> Request:
        """Agree on what any process was asked for; all processes must call it at the same place."""
        asked = torch.tensor(int(self._request), device=trainer.strategy.root_device)
        request = Request(int(trainer.strategy.reduce(asked, reduce_op="max")))
        if request:
            self._acting.set()
        return request

    def stop(self, trainer: pl.Trainer, request: Request, checkpoint: str | None) -> NoReturn:
        """End the run on all processes, after they have agreed and the checkpoint is written.

        Raises:
            SIGTERMException: with the exit status of a process that SIGTERM ended.
        """
        if request == Request.REQUEUE and self._requeue is not None:
            self._requeue()
        if trainer.is_global_zero:
            resuming = f"resume with --ckpt_path {checkpoint}" if checkpoint else "no checkpoint, as none was asked for"
            print(f"Stopped by a signal at step {trainer.global_step}: {resuming}.", file=sys.stderr)
        raise SIGTERMException(self._exit_status)

    def _listen(self, trainer: pl.Trainer) -> None:
        if self._watch is not None or threading.current_thread() is not threading.main_thread():
            return
        environment = _environment(trainer)
        self._exit_status = _exit_status(environment, trainer.local_rank)
        self._meanings = {signal.SIGTERM: Request.STOP}
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue and environment.requeue_signal:
            requeue = environment.requeue_signal
            self._meanings[requeue] = Request.REQUEUE
            handler = signal.getsignal(requeue)
            # Lightning's: a checkpoint that the requeued job begins with, then ``scontrol requeue``
            self._requeue = partial(handler, requeue, None) if callable(handler) else None
        self._request = Request.NONE
        self._acting.clear()
        self._watch = SignalWatch(partial(self._bound, trainer))
        for number in self._meanings:
            signal.signal(number, partial(self._note, trainer))  # Lightning puts the earlier ones back at the end

    def _note(self, trainer: pl.Trainer, number: int, frame: FrameType | None) -> None:
        self._request = max(self._request, self._meanings[number])
        if not _trains(trainer):
            _forward(trainer, number)
            self._exit(trainer)

    def _bound(self, trainer: pl.Trainer, number: int) -> None:
        """Exit after a while, unless the processes agree on the signal; in the watching thread."""
        if number not in self._meanings:
            return
        _forward(trainer, number)
        if not self._acting.wait(self.grace_seconds if _trains(trainer) else 1.0):
            self._exit(trainer, f"the end of a step was not reached within {self.grace_seconds:g} s")

    def _exit(self, trainer: pl.Trainer, reason: str = "") -> NoReturn:
        """End the process without waiting for anything; collectives that others left never end."""
        if trainer.is_global_zero:
            sentence = "Stopped by a signal."
            if _trains(trainer):
                kept = newest_of_run(trainer)
                resuming = f"resume from an earlier one with --ckpt_path {kept}" if kept else "there is no earlier one"
                sentence = f"Stopped by a signal; {reason}, so no checkpoint was written: {resuming}."
            print(sentence, file=sys.stderr, flush=True)
        os._exit(self._exit_status)

    def _stop_listening(self) -> None:
        self._acting.set()
        if self._watch is not None:
            self._watch.close()
            self._watch = None


class ClosingCheckpoint(pl.Callback):
    """Bring ``last.ckpt`` to the step at which a run ends, or at which it is asked to stop.

    It writes within the last step, as ``ModelCheckpoint`` does in others: behind the loop's end Lightning's counters
    have moved on, and a longer run would go on in the wrong place. It belongs behind all ``ModelCheckpoint``s, of which
    those that save by epochs need no help at the end of a run.

    Args:
        signals: callback that notes requests to stop.
    """

    def __init__(self, signals: StopSignals) -> None:
        self.signals = signals
        self._step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count from the step that training begins with."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, if this was the last step; end the run, if a process was asked to.

        Raises:
            SIGTERMException: on all processes, if it was.
        """
        stepped, self._step = trainer.global_step > self._step, trainer.global_step
        # gradients that are still accumulated would be lost: the request waits for their step
        if stepped and (request := self.signals.agreed(trainer)):
            self.signals.stop(trainer, request, _save_for_resume(trainer))
        ends_epochs = trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
        if not (ends_epochs or trainer.should_stop or trainer.global_step == trainer.max_steps):
            return
        for callback in _model_checkpoints(trainer):
            if callback.save_last and not callback.every_n_epochs:
                _bring_up_to_date(trainer, callback)


def _model_checkpoints(trainer: pl.Trainer) -> list[ModelCheckpoint]:
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]


def _save_for_resume(trainer: pl.Trainer) -> str | None:
    """Bring every ``last.ckpt`` up to date, or write one where the first callback saves; return the first's path."""
    callbacks = _model_checkpoints(trainer)
    saving_last = [callback for callback in callbacks if callback.save_last] or callbacks[:1]
    paths = [_bring_up_to_date(trainer, callback) for callback in saving_last]
    return paths[0] if paths else None


def _bring_up_to_date(trainer: pl.Trainer, callback: ModelCheckpoint) -> str:
    last = callback.last_model_path or _unused_last_path(trainer, callback)
    behind = trainer.is_global_zero and is_behind(Path(last), trainer.global_step)
    if trainer.strategy.broadcast(behind):
        callback.last_model_path = last  # a resumed run replaces this file instead of writing last-v1.ckpt beside it
        trainer.save_checkpoint(last, weights_only=False)
    return last


def _unused_last_path(trainer: pl.Trainer, callback: ModelCheckpoint) -> str:
    """The name that the callback itself would choose first: another run's file is not overwritten."""
    versions = itertools.chain([None], itertools.count(callback.STARTING_VERSION))
    names = (callback.format_checkpoint_name({}, callback.CHECKPOINT_NAME_LAST, ver=version) for version in versions)
    return next(name for name in names if not callback.file_exists(name, trainer))


def is_behind(last: Path, step: int) -> bool:
    """Find a checkpoint of an earlier step, or not there, or not whole yet, as one that is written in the background.

    A folder of shards, which is cheap to write, counts as such.
    """
    try:
        return bool(read_checkpoint(last)["global_step"] < step)
    except ConfigurationError:
        return True


def _forward(trainer: pl.Trainer, number: int) -> None:
    """Send a signal to the processes that Lightning started, which nobody else knows."""
    if trainer.strategy.launcher is not None:
        trainer.strategy.launcher.kill(number)


def _trains(trainer: pl.Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING


def _environment(trainer: pl.Trainer) -> ClusterEnvironment | None:
    """The cluster's description of a strategy of several processes, or SLURM's where one process is a job."""
    environment: ClusterEnvironment | None = getattr(trainer.strategy, "cluster_environment", None)
    return SLURMEnvironment() if environment is None and SLURMEnvironment.detect() else environment


def _exit_status(environment: ClusterEnvironment | None, local_rank: int) -> int:
    """The status that a scheduler sees; 0 where it sees another process's.

    Lightning kills the process that started the others as soon as one of these exits with an error.
    """
    return 0 if isinstance(environment, LightningEnvironment) and local_rank else EXIT_STATUS
