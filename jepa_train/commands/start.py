"""The start of a command: a checkpoint, and the config files that lie beneath what the user gave."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from jepa_train.checkpoints.files import newest_checkpoint
from jepa_train.commands.run_folder import config_beside, loggers_of, read_yaml
from jepa_train.errors import ConfigurationError

LAST = "last"
VERBS = {"fit": "Resuming", "validate": "Validating", "test": "Testing", "predict": "Predicting with"}


@dataclass(frozen=True)
class Start:
    """The checkpoint and configs that a command starts from.

    Attributes:
        checkpoint: file or folder that ``--ckpt_path`` names, the newest one for ``last``; ``None`` without.
        is_last: true if it was found by ``last``, so that ``fit`` goes on in its folder.
        run_config: the config of the run that wrote it, if that stands beside it and lies beneath what was given.
        default_configs: config files beneath what was given.
        overlays: names of the overlays of a new run, by which its folder is named.
    """

    checkpoint: str | None = None
    is_last: bool = False
    run_config: Path | None = None
    default_configs: tuple[Path, ...] = ()
    overlays: tuple[str, ...] = ()

    def sentence(self, subcommand: str, step: int | None) -> str:
        """Name the checkpoint that is used, its step if that is known, and where the settings come from."""
        if self.run_config is not None:
            settings = f"{self.run_config}, changed by the options of this command"
        elif self.default_configs:
            settings = f"{self.default_configs[0]}, because there is no config of its run beside it"
        else:
            settings = "the given config"
        of_step = "" if step is None else f" of step {step}"
        return f"{VERBS[subcommand]} {self.checkpoint}{of_step}, with the settings of {settings}."


def find_start(arguments: Sequence[str], default_config: Path) -> Start:
    """Find the checkpoint that the arguments name, and the config of its run for all that they leave out.

    Beneath a checkpoint's options and configs lies the config of its run, unless one of these is of other data. Without
    a checkpoint, or where no config stands beside it, the default config lies beneath options and overlays; a config
    with data stands by itself, because settings of the default would leak into it.

    Raises:
        ConfigurationError: if there is no newest checkpoint, or no folder to look for it.
    """
    given = _given(arguments)
    configs = [content for source in given.config if (content := read_yaml(source)) is not None]
    chosen = [given.ckpt_path, *(config.get("ckpt_path") for config in reversed(configs))]
    checkpoint = next((str(path) for path in chosen if path is not None), None)
    if checkpoint == "":
        raise ConfigurationError("--ckpt_path is empty: give a checkpoint, or leave the option out.")
    is_last = checkpoint == LAST
    if is_last:
        checkpoint = str(newest_checkpoint(_folder_of_runs(given, configs, default_config)))
    run_config = config_beside(Path(checkpoint)) if checkpoint is not None else None
    # a source that cannot be read is the parser's to name
    whole = [source for source in given.config if not is_overlay(source)]
    named = given.name is not None or any("name" in _of_logger(config) for config in configs if "data" not in config)
    overlays = () if named else tuple(Path(source).stem for source in given.config if _is_overlay_file(source))
    if run_config is not None and _same_data(run_config, configs):
        return Start(checkpoint, is_last, run_config, (run_config,))
    return Start(checkpoint, is_last, None, () if whole else (default_config,), overlays)


def go_on_in_folder(config: Namespace, folder: Path) -> None:
    """Let the loggers of a subcommand's config write into the folder of an earlier run, SAVE_DIR/NAME/VERSION."""
    for logger in loggers_of(config):
        place = logger.init_args
        place.version = folder.name
        if logger.class_path.endswith(("TensorBoardLogger", "CSVLogger")):
            if numbered := re.fullmatch(r"version_(0|[1-9]\d*)", folder.name):
                place.version = int(numbered[1])  # of text the progress bar shows the last four letters, as v_num=on_0
            if _parent(place) != folder.parent:
                place.save_dir, place.name = str(folder.parents[1]), folder.parent.name


def name_after_overlays(config: Namespace, overlays: Sequence[str]) -> None:
    """Let the loggers of a new run write into SAVE_DIR/NAME/OVERLAYS, so that it does not hide among other runs."""
    for logger in loggers_of(config):
        if overlays and logger.init_args.get("name"):
            logger.init_args.name = "/".join([logger.init_args.name, "-".join(overlays)])


def _is_overlay_file(source: str) -> bool:
    return Path(source).is_file() and is_overlay(source)


def _parent(place: Namespace) -> Path:
    return Path(place.save_dir) / (place.name or "")


def is_overlay(source: str | Path) -> bool:
    """Recognise a config that says nothing of data, so that it can only be laid over another."""
    content = read_yaml(source)
    return content is not None and "data" not in content


def _given(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the few options that decide on the defaults of all others, which the parser itself needs to begin with."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    parser.add_argument("--ckpt_path")
    parser.add_argument("--trainer.logger", dest="logger")
    for name in ("save_dir", "name"):
        parser.add_argument(f"--trainer.logger.{name}", f"--trainer.logger.init_args.{name}", dest=name)
    try:
        return parser.parse_known_args(arguments)[0]
    except argparse.ArgumentError:  # an option without its value, which the whole parser will name
        return parser.parse_args([])


def _folder_of_runs(given: argparse.Namespace, configs: Sequence[Mapping[str, Any]], default_config: Path) -> Path:
    """Find the folder below which ``last`` looks: that of one name, where options or configs say which; else of all."""
    default = {} if any("data" in config for config in configs) else read_yaml(default_config) or {}
    save_dir = _of_logger(default).get("save_dir")
    name = None
    for config in configs:
        save_dir, name = (_of_logger(config).get(key, value) for key, value in (("save_dir", save_dir), ("name", name)))
    save_dir, name = given.save_dir or save_dir, given.name or name
    if save_dir is None or given.logger in ("true", "false", "null"):
        raise ConfigurationError("--ckpt_path last looks below the logger's folder: name a logger, or give a path.")
    return Path(save_dir) / (name or "")


def _of_logger(config: Mapping[str, Any]) -> dict[str, Any]:
    logger = _group(config, "trainer").get("logger")
    first = logger[0] if isinstance(logger, list) and logger else logger
    return _group(first, "init_args")


def _group(settings: Any, name: str) -> dict[str, Any]:
    """Read the settings of this name; none where there is no group, or none that the parser will accept."""
    group = settings.get(name) if isinstance(settings, Mapping) else None
    return group if isinstance(group, dict) else {}


def _same_data(run_config: Path, configs: Sequence[Mapping[str, Any]]) -> bool:
    """Find out if the data of all given configs are of the run's class; only the end of a class path counts."""
    own = _class_of((read_yaml(run_config) or {})["data"])
    return all(_class_of(config["data"]) in (own, None) for config in configs if "data" in config)


def _class_of(data: Any) -> str | None:
    path = data.get("class_path") if isinstance(data, dict) else data
    return path.rsplit(".", 1)[-1] if isinstance(path, str) else None
