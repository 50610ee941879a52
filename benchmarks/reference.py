"""The reference of settings: every option of the command line with its description and its default.

    python benchmarks/reference.py             # print the tables
    python benchmarks/reference.py --write     # put them into docs/settings.md

Everything is read from the parsers of the command line. The Trainer's options are Lightning's, and left to its manual.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import lightning.pytorch as pl
from studies import with_tables

import jepa_monitor
import jepa_train.data
from jepa_train.cli import JEPACLI
from jepa_train.commands.parsing import Parser
from jepa_train.commands.rank import rank_parser
from jepa_train.export import export
from jepa_train.module import JEPA
from jepa_train.ranking import RankingWriter, merge

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
HEAD = "| option | what it is | default |\n|---|---|---|\n"
LEFT_OUT = ("help", "trainer", "model", "data", "monitor")  # groups, of which the options count
SETTINGS = {"auto_configure_optimizers": False, "seed_everything_default": 0}
LIGHTNINGS = {  # in words that are the same with each of its versions
    "config": "YAML file of settings, or `-c`; of several, each changes lines of those before it",
    "print_config": "print the settings of the command, and end",
    "seed_everything": "seed of the first weights, and of all random numbers that have no seed of their own",
    "weights_only": "read a checkpoint without running code in it, which is what `null` means, too",
}


class _Found(Exception):
    """Carries the parser of ``fit`` out of a command line that is not run."""


class _Listing(JEPACLI):
    def parse_arguments(self, parser: Any, args: Any) -> None:
        raise _Found(self._subcommand_parsers["fit"])


def fit_parser() -> Parser:
    """Build the parser of ``fit``, with the defaults of the classes instead of those of a config."""
    try:
        _Listing(JEPA, pl.LightningDataModule, subclass_mode_data=True, parser_class=Parser, **SETTINGS)
    except _Found as found:
        parser: Parser = found.args[0]
    return parser


def tables() -> str:
    """Write a table for ``fit``, the model, the monitor, each DataModule and callback, and the other commands."""
    fit = list(_actions(fit_parser()))
    own = [action for action in fit if "." not in action.dest]
    model = [action for action in fit if action.dest.startswith("model.")]
    callbacks = [made for made in classes(jepa_monitor, pl.Callback) if made is not jepa_monitor.JEPAScoreMonitor]
    modules = classes(jepa_train.data, pl.LightningDataModule)
    parts = {
        "`fit`, `validate`, `test`": own,
        "The model: `--model.NAME`": model,
        "The monitor: `--monitor.NAME`": _of_class(jepa_monitor.JEPAScoreMonitor),
        **{f"Data: `--data {made.__name__}`": _of_class(made) for made in modules},
        **{f"Callback: `jepa_monitor.{made.__name__}`": _of_class(made) for made in callbacks},
        "Callback: `jepa_train.ranking.RankingWriter`": _of_class(RankingWriter),
        "`rank`": _actions(rank_parser()),
        "`rank merge`": _of_function(merge),
        "`export`": _of_function(export),
    }
    return "\n\n".join(_section(title, actions) for title, actions in parts.items())


def classes(package: Any, base: type) -> list[type]:
    """List the classes that a package names in public, derive from ``base``, and can be made."""
    public = [getattr(package, name) for name in package.__all__]
    fitting = [made for made in public if inspect.isclass(made) and issubclass(made, base)]
    return [made for made in fitting if not inspect.isabstract(made)]


def _of_class(made: type) -> Iterator[argparse.Action]:
    parser = Parser()
    parser.add_class_arguments(made)
    return _actions(parser)


def _of_function(made: Callable[..., Any]) -> Iterator[argparse.Action]:
    parser = Parser()
    parser.add_function_arguments(made)
    return _actions(parser)


def _actions(parser: Parser) -> Iterator[argparse.Action]:
    """Options of a parser, but for groups, pages of help, and what is Lightning's Trainer's."""
    for action in parser._actions:
        if action.dest not in LEFT_OUT and not action.dest.startswith("trainer.") and not action.dest.endswith(".help"):
            yield action


def _section(title: str, actions: Iterable[argparse.Action]) -> str:
    return f"## {title}\n\n{HEAD}" + "\n".join(_row(action) for action in actions)


def _row(action: argparse.Action) -> str:
    name = action.dest.removeprefix("model.")
    text = LIGHTNINGS.get(name, str(action.help))
    meaning = " ".join(re.sub(r":\w+:", "", text).replace("``", "`").replace("`None`", "`null`").split()).rstrip(".")
    choices = [str(choice) for choice in get_args(getattr(action, "_typehint", None)) if isinstance(choice, str)]
    if missing := [choice for choice in choices if choice not in meaning]:
        meaning += f"; one of {', '.join(f'`{choice}`' for choice in missing)}"
    return f"| `{name}` | {meaning.replace('|', chr(92) + '|')} | {_default(action)} |"


def _default(action: argparse.Action) -> str:
    if action.required:
        return "needed"
    if action.default is argparse.SUPPRESS:
        return "the data's" if action.dest.startswith("model.") else "-"
    return f"`{json.dumps(action.default, default=str)}`"


def main() -> None:
    """Print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    print(written := tables())
    if write:
        PAGE.write_text(with_tables(PAGE.read_text(), "settings", written))


if __name__ == "__main__":
    main()
