"""Checkpoints on disk: written whole or not at all, and read with one clear sentence about what is wrong."""

from __future__ import annotations

import inspect
import itertools
import os
import pickle
import re
import struct
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from jepa_train.checkpoints.finite import not_finite
from jepa_train.checkpoints.stopping import StopSignals
from jepa_train.errors import ConfigurationError, one_line
from jepa_train.module import JEPA

PARTIAL = ".partial"
CLASS_TOKEN = "online.encoder.vit.cls_token"
ABANDONED_AFTER = 3600.0  # seconds without a byte written, after which no writer can be at work on a partial file
SHARDED_METADATA = "meta.pt"  # Lightning's name for it; written last, so a folder with it is a whole checkpoint
# what reading a pickle with wrong bytes ends in, whichever step they lead astray
CORRUPTED = (
    RuntimeError,
    OSError,
    ValueError,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    struct.error,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears at ``path`` when the block ends, complete, or not at all.

    It is written beside ``path``, because a rename is atomic only within one file system, and reaches the disk before
    it gets its name. A process that is killed leaves ``.NAME.<random>.partial`` behind, which nothing reads; whoever
    writes into that folder an hour later removes it (not sooner: it might be another run's, just being written).

    Raises:
        OSError: naming ``path``, where the file system refuses it.
    """
    _remove_abandoned(path.parent)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        # torch buries what the file system said under what it was doing
        refusal = error if isinstance(error, OSError) else error.__context__
        if isinstance(refusal, OSError):
            raise OSError(refusal.errno, refusal.strerror, str(path)) from None
        raise
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _remove_abandoned(folder: Path) -> None:
    for leftover in folder.glob(f".*{PARTIAL}"):
        # its writer, or another cleaner, may be faster; or it is not ours to remove
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > ABANDONED_AFTER:
                leftover.unlink()


def _sync_folder(folder: Path) -> None:
    """Let the new name survive a power cut too, where folders can be opened (not on Windows)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with suppress(OSError):  # network file systems may know no such thing
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, replaced in one step: a killed job leaves the last whole one.

    Lightning's own way goes through a file in the system's temporary folder, which is copied, byte by byte, where that
    is another file system: a job killed meanwhile leaves a ``last.ckpt`` that is cut off. Remote paths (object stores,
    which replace whole objects) are written by Lightning.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``; a local file is replaced whole.

        Raises:
            TypeError: if ``storage_options`` are given, which Lightning's class has no use for either.
        """
        local = _local(path)
        if storage_options is not None or local is None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        local.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(local) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint to the CPU, a local one with the checks of :func:`read_checkpoint`; it cannot run code.

        Args:
            path: file or address.
            map_location: not used; Lightning's strategies move what they load.
            weights_only: not used; nothing but tensors and plain values is read.

        Raises:
            ConfigurationError: if it cannot be used, see :func:`read_checkpoint`.
        """
        local = _local(path)
        if local is not None:
            return read_checkpoint(local, mapped=False)
        with _one_sentence_about(path):
            try:
                return super().load_checkpoint(path, weights_only=True)
            except (ImportError, OSError) as error:
                raise ConfigurationError(_not_fetched(path, error)) from None


def _local(path: str | Path) -> Path | None:
    """The path of a local file, also of its address; none for other file systems."""
    scheme, _, behind = str(path).rpartition("://")
    return Path(behind).expanduser() if scheme in ("", "file", "local") else None


class ClosingCheckpoint(pl.Callback):
    """Bring ``last.ckpt`` to the step at which a run ends, or at which it is asked to stop.

    It writes within the last step, as ``ModelCheckpoint`` does in others: behind the loop's end Lightning's counters
    have moved on, and a longer run would go on in the wrong place. It belongs behind all ``ModelCheckpoint``s, of which
    those that save by epochs need no help at the end of a run.

    Args:
        signals: tells of requests to stop.
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
    behind = trainer.is_global_zero and _is_behind(Path(last), trainer.global_step)
    if trainer.strategy.broadcast(behind):
        callback.last_model_path = last  # a resumed run replaces this file instead of writing last-v1.ckpt beside it
        trainer.save_checkpoint(last, weights_only=False)
    return last


def _unused_last_path(trainer: pl.Trainer, callback: ModelCheckpoint) -> str:
    """The name that the callback itself would choose first: another run's file is not overwritten."""
    versions = itertools.chain([None], itertools.count(callback.STARTING_VERSION))
    names = (callback.format_checkpoint_name({}, callback.CHECKPOINT_NAME_LAST, ver=version) for version in versions)
    return next(name for name in names if not callback.file_exists(name, trainer))


def _is_behind(last: Path, step: int) -> bool:
    """Is a checkpoint of an earlier step, not there, or not whole yet, as one that is written in the background?

    A folder of shards, which is cheap to write, counts as such.
    """
    try:
        return bool(read_checkpoint(last)["global_step"] < step)
    except ConfigurationError:
        return True


def read_checkpoint(path: Path, *, mapped: bool = True) -> dict[str, Any]:
    """Read what Lightning wrote to ``path``, on the CPU.

    Args:
        path: a file.
        mapped: leave tensors on disk until they are used.

    Raises:
        ConfigurationError: if there is no such file, or it is empty, cut off, damaged (by a single bit), unsafe, not of
            Lightning, or not finite.
    """
    if not path.is_file():
        raise ConfigurationError(
            f"there is no checkpoint {path}: look for a *.ckpt in the checkpoints folder of a run."
        )
    if path.stat().st_size == 0:
        raise ConfigurationError(f"the checkpoint {path} is empty: choose an older one.")
    with _one_sentence_about(path), path.open("rb") as file:
        check_sums(file)
        # of the file that was checked, whatever has its name by now; or left on disk until a tensor is used
        checkpoint = torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), Mapping):
        raise ConfigurationError(f"{path} is not a checkpoint of Lightning: it has no state_dict; choose another one.")
    if names := not_finite(checkpoint):
        raise ConfigurationError(
            f"the checkpoint {path} is of training that became non-finite ({_some(names)}): choose an older one."
        )
    return checkpoint


def check_sums(file: BinaryIO) -> None:
    """Compare an archive's records with their checksums, at which torch does not look; ends at the file's beginning.

    Raises:
        zipfile.BadZipFile: for one that differs, by a single bit.
    """
    with zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(damaged)
    file.seek(0)


@contextmanager
def _one_sentence_about(path: str | Path) -> Iterator[None]:
    """Inside, what reading wrong bytes ends in becomes a sentence about the file."""
    try:
        yield
    except ConfigurationError:
        raise
    except CORRUPTED as error:
        if "Unsupported global" in str(error):
            raise ConfigurationError(
                f"the checkpoint {path} holds Python objects that could run code, which safe loading refuses: "
                "choose one that this program wrote."
            ) from None
        raise ConfigurationError(
            f"{path} is not a whole checkpoint (it is cut off, damaged, or a file of another kind): choose another one."
        ) from None


def check_address(address: str) -> None:
    """See that the package is there that reads from such an address; nothing is fetched.

    Raises:
        ConfigurationError: if it is not, or no package reads from there.
    """
    try:
        get_filesystem(address)
    except (ImportError, ValueError) as error:
        raise ConfigurationError(_not_fetched(address, error)) from None


def _not_fetched(address: str | Path, error: Exception) -> str:
    return (
        f"the checkpoint {address} cannot be fetched ({one_line(error).rstrip('.')}): make it reachable, or copy it "
        "here and give its path."
    )


def is_sharded(path: Path) -> bool:
    """Is it a whole checkpoint of many files, as Lightning's strategies that shard the model write it by default?"""
    return (path / SHARDED_METADATA).is_file()


def newest_checkpoint(folder: Path) -> Path:
    """The newest whole ``last.ckpt`` (or last-v1, ...) of runs in ``folder`` or in a folder of it; others are named.

    Raises:
        ConfigurationError: if there is none.
    """
    paths = [path for depth in ("*", "*/*") for path in folder.glob(f"{depth}/checkpoints/last*.ckpt")]
    found = [path for path in paths if re.fullmatch(r"last(-v\d+)?", path.stem)]
    reasons = []
    for path in sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            if not is_sharded(path):
                read_checkpoint(path)
        except ConfigurationError as error:
            reasons.append(str(error))
            continue
        if reasons:
            rank_zero_warn(f"{' '.join(reasons)} An older one is used: {path}.")
        return path
    if reasons:
        raise ConfigurationError(f"no checkpoint below {folder} can be gone on from: {' '.join(reasons)}")
    raise ConfigurationError(f"there is no last.ckpt below {folder} to go on from: run fit first.")


def model_arguments(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the module that wrote the checkpoint, without Lightning's own notes among them."""
    saved = checkpoint.get("hyper_parameters") or {}
    return {name: value for name, value in saved.items() if not name.startswith("_")}


def without_fetching(arguments: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments to change where published weights were the start: nothing need be fetched to be overwritten.

    The checkpoint's weights tell whether the published ones brought a class token.
    """
    if not arguments.get("pretrained"):
        return {}
    class_token = {"class_token": CLASS_TOKEN in weights}
    return {"pretrained": False, "encoder_overrides": class_token | (arguments.get("encoder_overrides") or {})}


def check_arguments(checkpoint: Mapping[str, Any], path: Path) -> None:
    """See that this version of the module knows the checkpoint's hyper-parameters, and warn of those it adds.

    Raises:
        ConfigurationError: naming the first of those it does not know.
    """
    saved, known = model_arguments(checkpoint).keys(), inspect.signature(JEPA).parameters.keys()
    if saved - known:
        raise ConfigurationError(
            f"the checkpoint {path} has settings that this model does not know ({_some(sorted(saved - known))}): it is "
            "of another model or version; choose another one."
        )
    if saved and known - saved:
        rank_zero_warn(
            f"The checkpoint {path} was written before there was {_some(sorted(known - saved))}: what the command line "
            "or the config says is used."
        )


def weight_shapes(arguments: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name to shape of all weights of the module with these arguments, which takes no memory and no random numbers."""
    with torch.device("meta"):
        module = JEPA(**{**arguments, "pretrained": False})
    return {name: tuple(weight.shape) for name, weight in module.state_dict().items()}


def check_fits(model: nn.Module, state_dict: Mapping[str, Any], path: Path) -> None:
    """See that the weights of a checkpoint are those of the model, by name and shape.

    Raises:
        ConfigurationError: naming the first of those that are not.
    """
    own = model.state_dict()
    lacking, foreign = sorted(own.keys() - state_dict.keys()), sorted(state_dict.keys() - own.keys())
    if not own.keys() & state_dict.keys():
        raise ConfigurationError(
            f"{path} is a checkpoint of another model: it has {_some(foreign)}, not {_some(lacking)}; "
            "choose another one."
        )
    if lacking or foreign:
        faults = [f"lacks {_some(lacking)}"] * bool(lacking) + [f"has {_some(foreign)} too much"] * bool(foreign)
        raise ConfigurationError(
            f"the checkpoint {path} {' and '.join(faults)}: it was written by another version of the model; use that "
            "version, or train anew."
        )
    for name, weight in own.items():
        if state_dict[name].shape != weight.shape:
            raise ConfigurationError(
                f"the checkpoint {path} is of a model of other sizes ({name} is {_shape(state_dict[name])} there, "
                f"{_shape(weight)} here): give the --data and --model options that it was trained with."
            )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"
