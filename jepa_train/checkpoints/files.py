"""Checkpoints on disk: written whole or not at all, and read with one clear sentence about what is wrong."""

from __future__ import annotations

import glob
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

import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from jepa_train.checkpoints.finite import not_finite
from jepa_train.errors import ConfigurationError, one_line, some_of

PARTIAL = ".partial"
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
    """Open a binary file that appears at ``path`` when the block ends, complete, or not at all.

    It is written beside ``path``, because a rename is atomic only within one file system, and reaches the disk before
    it gets its name. A process that is killed leaves ``.NAME.<random>.partial`` behind, which nothing reads; whoever
    writes into that folder an hour later removes it (not sooner: it might be another run's, just being written).

    Raises:
        OSError: naming ``path``, where the file system refuses it.
    """
    remove_partial(path.parent, older_than=ABANDONED_AFTER)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        # torch hides the file system's error under what it was doing
        refusal = error if isinstance(error, OSError) else error.__context__
        if isinstance(refusal, OSError):
            raise OSError(refusal.errno, refusal.strerror, str(path)) from None
        raise
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


def remove_partial(folder: Path, name: str | None = None, *, older_than: float = 0.0) -> None:
    """Remove what killed writers of :func:`written_whole` left in a folder.

    Args:
        folder: need not exist.
        name: name of the file that was written; ``None`` means any.
        older_than: seconds without a byte written; 0 where nobody can be at work.
    """
    for leftover in folder.glob(f".{'*' if name is None else glob.escape(name)}.*{PARTIAL}"):
        # its writer, or another cleaner, may be faster; or it is not ours to remove
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime >= older_than:
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
    """Find the path of a local file, also from its address; none for other file systems."""
    scheme, _, behind = str(path).rpartition("://")
    return Path(behind).expanduser() if scheme in ("", "file", "local") else None


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
        what = f"{path} is a folder, and no checkpoint" if path.is_dir() else f"there is no checkpoint {path}"
        raise ConfigurationError(f"{what}: look for a *.ckpt in the checkpoints folder of a run.")
    if path.stat().st_size == 0:
        raise ConfigurationError(f"the checkpoint {path} is empty: choose an older one.")
    with _one_sentence_about(path), path.open("rb") as file:
        check_sums(file)
        # of the file that was checked, whatever has its name by now; or left on disk until a tensor is used
        checkpoint = torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), Mapping):
        raise ConfigurationError(f"{path} is not a checkpoint of Lightning: it has no state_dict; choose another one.")
    if names := not_finite(checkpoint):
        raise ConfigurationError(f"the checkpoint {path} has NaN or infinity in {some_of(names)}: choose an older one.")
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


def is_whole_archive(path: Path) -> bool:
    """Tell whether what ``torch.save`` wrote is all there and undamaged, by its checksums."""
    try:
        with path.open("rb") as file:
            check_sums(file)
    except CORRUPTED:
        return False
    return True


@contextmanager
def _one_sentence_about(path: str | Path) -> Iterator[None]:
    """Turn what reading wrong bytes ends in into a sentence about the file."""
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
    """Recognise a whole checkpoint of many files, as strategies that shard the model write it by default."""
    return (path / SHARDED_METADATA).is_file()


def newest_checkpoint(folder: Path) -> Path:
    """Find the newest whole ``last.ckpt`` (or last-v1, ...) of runs in ``folder`` or up to two folders below.

    Raises:
        ConfigurationError: if there is none.
    """
    paths = [path for depth in ("*", "*/*", "*/*/*") for path in folder.glob(f"{depth}/checkpoints/last*.ckpt")]
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
            rank_zero_warn(f"{' '.join(reasons)} Using an older one: {path}.")
        return path
    if reasons:
        raise ConfigurationError(f"no checkpoint below {folder} can be resumed from: {' '.join(reasons)}")
    raise ConfigurationError(f"there is no last.ckpt below {folder} to resume from: run fit first.")
