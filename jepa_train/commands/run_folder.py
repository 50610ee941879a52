"""The folder of a run: its config, written once and found again beside checkpoints, and its removal without a batch."""

from __future__ import annotations

import inspect
import itertools
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn

from jepa_train.pictures import log_text

# options of the Trainer's methods are those of one call: a checkpoint to begin with, what to print, what to return
OF_ONE_CALL = {
    name
    for method, no_options in LightningCLI.subcommands().items()
    for name in inspect.signature(getattr(pl.Trainer, method)).parameters.keys() - no_options
}
RECORD = "config.yaml"
OF_A_RUN = ("trainer", "model", "data")  # what a record has, and other files of that name lack


class SaveConfig(SaveConfigCallback):
    """Keeps the config beside the run, as a file and as a page in TensorBoard.

    The first record of a folder is its ``config.yaml``, which nothing replaces. A later call in the same folder writes
    ``config_<subcommand>_<number>.yaml`` beside it, if it has other settings. Runs without a logger share a folder, in
    which a record could be of any of them: they leave none.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write file and page on the first process; all of them ask for the folder, which is a collective."""
        if self.already_saved:
            return
        self.already_saved = True
        folder = trainer.log_dir
        if trainer.is_global_zero and folder is not None:
            get_filesystem(folder).makedirs(folder, exist_ok=True)  # also for checkpoints: now, not after an epoch
        if trainer.is_global_zero and folder is not None and trainer.loggers:
            text = repeatable(self.parser, self.config)
            _write_once(folder, TrainerFn(stage).value, text)
            log_text(trainer, "config", f"```yaml\n{text}\n```")

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave everything as it is: ``setup`` has written all there is."""


class DiscardUnbegun(pl.Callback):
    """Removes the folder that a run made for its logs, if it ends, by itself or not, before its first batch.

    A folder that was there before is left alone, whatever it holds.

    Args:
        trainer: the trainer of the run, before anything was logged.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        self._made: str | None = None
        if isinstance(trainer.logger, (TensorBoardLogger, CSVLogger)) and trainer.is_global_zero:
            folder = str(trainer.logger.log_dir)
            self._made = None if os.path.exists(folder) else folder

    def on_train_batch_start(self, *args: Any) -> None:
        """Keep the folder from now on."""
        self._made = None

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Keep the folder from now on, unless this is validation within ``fit``, before training."""
        if trainer.validating:
            self._made = None

    def on_test_batch_start(self, *args: Any) -> None:
        """Keep the folder from now on."""
        self._made = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the folder."""
        self._discard(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remove the folder of a run that had no batches at all."""
        self._discard(trainer)

    def _discard(self, trainer: pl.Trainer) -> None:
        if self._made is not None:
            for logger in trainer.loggers:
                logger.finalize("failed")  # closes their files
            shutil.rmtree(self._made, ignore_errors=True)


def keep_in(callbacks: Iterable[pl.Callback], checkpoint: Mapping[str, Any]) -> None:
    """Let ``ModelCheckpoint`` of a command that writes none keep the folder that it had when a checkpoint was written.

    In another one Lightning would warn that the state of the callback cannot be restored.
    """
    states = checkpoint.get("callbacks", {})
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint):
            callback.dirpath = states.get(callback.state_key, {}).get("dirpath", callback.dirpath)


def repeatable(parser: LightningArgumentParser, config: Namespace) -> str:
    """Write YAML with which each subcommand can begin a run in a folder of its own.

    It leaves out the arguments of one call, and the version of the logger's folder.
    """
    kept = config.clone()
    for name in OF_ONE_CALL:
        kept.pop(name, None)
    for logger in loggers_of(kept):
        if "version" in logger.init_args:
            logger.init_args.version = None
    return str(parser.dump(kept, skip_none=False))


def plain(value: Any) -> Any:
    """Turn defaults that are members of an enumeration of text, such as Timer's, into text, which YAML can hold.

    Args:
        value: a config, changed in place, or one of its values.
    """
    if isinstance(value, Namespace):
        for name, inner in vars(value).items():
            setattr(value, name, plain(inner))
    elif isinstance(value, list):
        return [plain(inner) for inner in value]
    return str(value.value) if isinstance(value, str) and isinstance(value, Enum) else value


def loggers_of(config: Namespace) -> list[Namespace]:
    """List the loggers of a subcommand's config that are described by a class and its arguments."""
    given = config.trainer.logger
    loggers = given if isinstance(given, list) else [given]
    return [logger for logger in loggers if isinstance(logger, Namespace) and "init_args" in logger]


def _write_once(folder: str, subcommand: str, text: str) -> None:
    files = get_filesystem(folder)
    before, path = "", os.path.join(folder, RECORD)
    for number in itertools.count(1):
        if not files.exists(path):
            break
        before, path = path, os.path.join(folder, f"config_{subcommand}_{number}.yaml")
    if not before or files.read_text(before) != text:
        files.write_text(path, text)


def config_beside(checkpoint: Path) -> Path | None:
    """Find the config of the run that wrote a checkpoint: that of the last ``fit`` in its folder, or ``None``."""
    folder = checkpoint.parent
    if folder.absolute().name == "checkpoints":
        folder = Path(os.path.normpath(folder / ".."))
    later = {
        int(found[1]): path for path in folder.glob("*.yaml") if (found := re.fullmatch(r"config_fit_(\d+)", path.stem))
    }
    path = later[max(later)] if later else folder / RECORD
    content = read_yaml(path)
    return path if content is not None and content.keys() >= set(OF_A_RUN) else None


def read_yaml(source: str | Path) -> dict[str, Any] | None:
    """Read the mapping in a YAML file, or in a text of YAML; ``None`` where there is none."""
    try:
        text = Path(source).read_text() if os.path.isfile(source) else str(source)
        content = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return content if isinstance(content, dict) else None
