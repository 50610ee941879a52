"""A parser whose errors are one sentence each, with the nearest name where one was mistyped."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from pathlib import Path
from pydoc import locate
from typing import Any, NoReturn

from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger

from jepa_train.commands.options import MONITOR_OPTIONS
from jepa_train.data.base import ImageDataModule
from jepa_train.errors import ConfigurationError, chain, one_line

FAMILIES: dict[str, type] = {"data": LightningDataModule, "trainer.callbacks": Callback, "trainer.logger": Logger}
NEEDED = ("data",)  # which is not null, whatever jsonargparse says
NO_CLASS = re.compile(r"Not a valid subclass|Expected a dot import path string: (?:true|false|[\d.-]+)$", re.MULTILINE)
A_CLASS = "a class, by its import path or as class_path and init_args"
# what options are called elsewhere
SHORT = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "bs": "batch_size",
    "gpus": "devices",
    "workers": "num_workers",
    "dim": "embedding_size",
}
YAML = {"None": "null", "True": "true", "False": "false"}
DATA_OPTIONS = [f"--data.{name}" for name in inspect.signature(ImageDataModule).parameters]  # of any class of ours
CHECKPOINT_HELP = "Checkpoint to start from: a file, an address, or last for the newest one below the logger's folder."
TYPES = {
    "<class 'bool'>": "true or false",
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'str'>": "text",
    "<class 'dict'>": "a mapping such as {key: value}",
    "<class 'list'>": "a list",
    "<class 'tuple'>": "a list",
    "<class 'collections.abc.Iterable'>": "a list",
    "<class 'NoneType'>": "null",
}


class Parser(LightningArgumentParser):
    """Lightning's parser, which says what is wrong in one sentence and leaves the pages of usage to ``--help``."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        # an abbreviation is a typo: what it stands for changes with every new option
        super().__init__(*args, **{"allow_abbrev": False, **settings})

    def add_method_arguments(
        self, class_type: type, method_name: str, *args: Any, skip: set[str | int] | None = None, **settings: Any
    ) -> list[str]:
        """Add what a method of the trainer takes, the checkpoint as text.

        Lightning's own type is a text or a Path, and typing takes the two orders for one another, so that now and then
        the Path is tried first, which makes ``s3:/`` of ``s3://``.

        Returns:
            Names of what was added.
        """
        added = super().add_method_arguments(
            class_type, method_name, *args, skip={*(skip or ()), "ckpt_path"}, **settings
        )
        self.add_argument("--ckpt_path", type=str | None, default=None, help=CHECKPOINT_HELP)
        return [*added, "ckpt_path"]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Refuse the arguments.

        Raises:
            ConfigurationError: with one sentence.
        """
        if not self.exit_on_error:  # one of several types that a value may have, tried by jsonargparse
            super().error(message, ex)
        for cause in chain(ex):
            if isinstance(cause, ConfigurationError):  # of a parser within
                raise cause
        parser = getattr(ex, "subcommand_parser", None) or self
        if self._subcommands_action is not None and message.startswith("unrecognized arguments: -"):
            raise ConfigurationError(f"options come after the subcommand: fit {message[24:]}.")
        options = [*parser._option_string_actions, *DATA_OPTIONS, *MONITOR_OPTIONS]
        raise ConfigurationError(sentence(message, options)) from None


def sentence(message: str, options: Iterable[str]) -> str:
    """Write one sentence for a message of jsonargparse or argparse.

    Args:
        message: text of the parser, of any number of lines.
        options: names of all options, with their dashes.
    """
    if found := re.match(r"unrecognized arguments: (\S+)", message):
        return _unknown_option(found[1], options)
    if found := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
        return _unknown_subcommand(found[1], [*re.findall(r"[\w-]+", found[2]), "export", "rank"])
    if found := re.match(r"(?:Subcommand|Group) '.*?' does not accept option '(.*)'", message):
        return _unknown_option(f"--{found[1]}", options)
    if found := re.match(r"argument (\S+): expected (?:one|at least one) argument", message):
        # argparse names the group alone
        inner = ", or an option of it," if any(option.startswith(f"{found[1]}.") for option in options) else ""
        return f"{found[1]}{inner} lacks its value: options are written --NAME VALUE or --NAME=VALUE."
    if found := re.match(r"the following arguments are required: (.*)", message):
        names = re.sub(rf"\b(?:{'|'.join(LightningCLI.subcommands())})\.", "", found[1])
        return f"more is needed: give {_options(names)}."
    if found := re.match(r"Parser key \"(\w+)\":\s+Unable to load config '(.*)'", message):
        return f"--{found[1]} takes a YAML file, and options are given as --{found[1]}.NAME VALUE; got {found[2]}."
    keys = re.findall(r'Parser key "(.*?)"', message)
    if keys in ([], ["config"]) or re.match(r"Problems? (?:parsing|in)", message):
        return _of_config(message) or f"{one_line(message).rstrip('.')}: see --help."
    return _of_value(message, ".".join(keys))


def meant(name: str, names: Iterable[str], cutoff: float = 0.7) -> str:
    """Ask, as in `` (is --model.seed meant?)`` with the nearest of ``names``; nothing where none is near."""
    close = _nearest(name, names, cutoff)
    return f" (is {close} meant?)" if close else ""


def _nearest(name: str, names: Iterable[str], cutoff: float) -> str:
    """Find the nearest name; of equals the first in the alphabet (max_epochs, not min_epochs); empty if none."""
    nearness = {other: _nearness(name, other) for other in sorted(names)}
    nearest = max(nearness, key=nearness.__getitem__, default="")
    return nearest if nearest and nearness[nearest] >= cutoff else ""


def _nearness(name: str, other: str) -> float:
    return SequenceMatcher(None, other, name).ratio()


def _options(names: str, key: str = "") -> str:
    return ", ".join(f"--{key}{name}" for name in names.split(", "))


def _unknown_option(word: str, options: Iterable[str]) -> str:
    name, names = word.split("=")[0].rstrip("+"), list(options)
    if not name.startswith("-"):
        return f"{word!r} belongs to no option: options are written --NAME VALUE or --NAME=VALUE."
    last = {option: option.lstrip("-").rpartition(".")[2] for option in names}
    own = name.lstrip("-").rpartition(".")[2]
    begun = {option for option in names if option.startswith(name)}
    # max_epochs without its group or in a wrong one, a beginning, a typo, or epochs
    own = SHORT.get(own, own)
    hint = (
        meant(name, [option for option in names if last[option] == own], cutoff=0.0)
        or (meant(name, begun, cutoff=0.0) if len(begun) == 1 else "")
        or meant(name, [option for option in names if _nearness(own, last[option]) >= 0.6], 0.85)
    )
    if not hint and (close := _nearest(own, last.values(), 0.7)):
        hint = meant(name, [option for option in names if last[option] == close], cutoff=0.0)
    return f"there is no option {name}{hint or _of_other_data(name)}; --help lists all."


def _of_other_data(name: str) -> str:
    """Say which of our data classes have an option that those chosen lack, or one of nearly its name; else nothing."""
    takers: dict[str, list[str]] = {}
    for kind in sorted(_subclasses(ImageDataModule), key=lambda kind: kind.__name__):
        for parameter in inspect.signature(kind).parameters:
            takers.setdefault(f"--data.{parameter}", []).append(kind.__name__)
    close = _nearest(name, takers, 0.85)
    return (
        f" ({close} is an option of {', '.join(takers[close])}: choose one with --data, or its config with -c)"
        if close
        else ""
    )


def _unknown_subcommand(word: str, subcommands: list[str]) -> str:
    return f"there is no subcommand {word!r}{meant(word, subcommands)}: use one of {', '.join(subcommands)}."


def _of_config(message: str) -> str:
    if found := re.search(r"(?:File does not exist|Path is not a file): '(.*)'", message):
        reason = "is a folder" if "not a file" in message else "does not exist"
        return f"the config {found[1]} {reason}{_near(Path(found[1]))}: --config takes a YAML file."
    if found := re.search(r"Unexpected config: ?(.*)", message, re.DOTALL):
        given = one_line(found[1])
        return f"a config maps names to settings, such as trainer: {{max_epochs: 7}}, and this one says {given!r}."
    if found := re.match(r'(?:Parser key "config"|Problems parsing config): (.*)', message, re.DOTALL):
        return f"a config cannot be read as YAML: {one_line(found[1])}."
    return ""


def _near(path: Path) -> str:
    """Ask for the config of nearly this name in the same folder, or in the one of the configs; nothing without one."""
    there = [*path.parent.glob("*.y*ml"), *Path("configs").rglob("*.y*ml")]
    names = {config.stem: str(config) for config in reversed(there)}
    close = _nearest(path.stem, names, 0.6)
    return f" (is {names[close]} meant?)" if close else ""


def _of_value(message: str, key: str) -> str:
    """Write a sentence about the value of ``--key``, or of an option of the class that it names."""
    if found := re.search(r"Option '(.*?)' is not accepted", message):
        names = _parameters(_class_before(message, found.start()))
        return _unknown_option(f"--{key}.{found[1]}", [*(f"--{key}.{name}" for name in names), *MONITOR_OPTIONS])
    if found := re.search(r"the following arguments are required: (.*)", message):
        name = _class_before(message, found.start()).rpartition(".")[2] or f"--{key}"
        return f"{name} needs {_options(found[1], f'{key}.')}."
    if "object has no attribute" in message:
        return f"the init_args of --{key} must be a mapping such as {{name: value}}."
    no_class = NO_CLASS.search(message)
    if not no_class and (found := re.search(r"import path string: (\S+)|has no attribute '(\w+)'", message)):
        return _unknown_class(key, found[1] or found[2])
    if found := re.search(r"Given value: (\S+\.ya?ml)$", message):
        return f"--{key} names a class, not the file {found[1]}: give configs with --config."
    if found := re.search(r"(No module named '.*?')", message):
        return f"the class that --{key} names cannot be imported: {found[1]}."
    if found := re.search(r"Import path.*? does not (correspond to a subclass of \w+)", message):
        return f"the class that --{key} names does not {found[1]}: choose another one."
    # of nested messages the innermost comes first
    message = message.rpartition('Parser key "')[2]
    value = re.search(r"(?:Got|Given) value: (.*)$", message, re.MULTILINE)
    kinds = re.findall(
        r"Expected an? (?!path but|dot import)(.*?)(?:\. Got value|$)", message[: value and value.end()], re.MULTILINE
    )
    if value is None or not (kinds or no_class):
        return f"--{key}: {one_line(message.partition(chr(10))[2]).rstrip('.')}."
    choices = list(dict.fromkeys(choice for kind in kinds for choice in _choices(kind)))
    expected = list(dict.fromkeys(_plain(kind) for kind in kinds if not _choices(kind)))
    if key in NEEDED:
        expected = [kind for kind in expected if kind != "null"]
    if no_class:
        expected.insert(0, A_CLASS)
    if choices:
        expected.insert(0, f"one of {', '.join(choices)}")
    got = YAML.get(value[1], value[1])
    hint = " (is null meant?)" if no_class and got == "false" and "null" in expected else meant(got, choices)
    return f"--{key} must be {', or '.join(expected)}; got {got}{hint}."


def _class_before(message: str, place: int) -> str:
    """Import path of the class that a message is about at ``place``; empty if it names none."""
    found: list[str] = re.findall(r"Problem with given class_path '(.*?)'", message[:place])
    return found[-1] if found else ""


def _parameters(class_path: str) -> list[str]:
    parameters = inspect.signature(found).parameters if callable(found := locate(class_path)) else {}
    return [name for name, parameter in parameters.items() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]


def _unknown_class(key: str, name: str) -> str:
    known = sorted(kind.__name__ for kind in _subclasses(FAMILIES[key])) if key in FAMILIES else []
    return f"--{key} names the class {name}, which does not exist{meant(name, known, 0.5)}: give its import path."


def _subclasses(family: type) -> set[type]:
    """All public subclasses that were imported, at any depth."""
    direct: list[type] = family.__subclasses__()
    return {kind for kind in direct if not kind.__name__.startswith("_")}.union(*map(_subclasses, direct))


def _choices(kind: str) -> list[str]:
    return re.findall(r"'?([\w.-]+)'?(?:, |\])", kind) if kind.startswith("typing.Literal[") else []


def _plain(kind: str) -> str:
    if found := re.fullmatch(r"tuple with (\d+) elements", kind):
        return f"a list of {found[1]} values"
    return TYPES.get(kind, kind.removeprefix("<class '").removesuffix("'>").rpartition(".")[2])
