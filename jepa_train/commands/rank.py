"""The subcommand ``rank``: a folder of images by any encoder, into a table."""

from __future__ import annotations

import inspect
import json

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_only

from jepa_train.commands.parsing import Parser
from jepa_train.errors import counted
from jepa_train.ranking.results import merge
from jepa_train.ranking.run import rank
from jepa_train.ranking.summary import FILE
from jepa_train.ranking.table import place_of

RANK_HELP = "And rank, which writes a table of how typical images are (rank --help)."
# of the Trainer's arguments those that a prediction has a use for
TRAINER = {
    *("accelerator", "strategy", "devices", "num_nodes", "precision", "callbacks", "enable_progress_bar"),
    *("benchmark", "deterministic", "plugins", "profiler"),
}


def run_rank(arguments: list[str]) -> None:
    """Run the subcommand.

    Raises:
        ConfigurationError: for options that do not exist; see :func:`rank`.
    """
    if arguments[:1] == ["merge"]:
        run_merge(arguments[1:])
        return
    parser = rank_parser()
    settings = parser.instantiate_classes(parser.parse_args(arguments)).as_dict()
    settings.pop("config", None)
    table = rank(**settings)
    if table is not None:
        table_file, folder = place_of(settings["output"])
        warnings = json.loads((folder / FILE).read_text())["warnings"]
        _say(
            "\n".join(
                [
                    *(f"warning: {sentence}" for sentence in warnings),
                    f"Wrote {table_file}: {counted(table.num_rows, 'image')}.",
                ]
            )
        )


def run_merge(arguments: list[str]) -> None:
    """Run ``rank merge``.

    Raises:
        ConfigurationError: for options that do not exist; see :func:`merge`.
    """
    parser = Parser(prog="train.py rank merge", description="Put the shards of a ranking together.")
    parser.add_argument("shards", nargs="+", help="folders of all shards")
    parser.add_function_arguments(merge, skip={"shards", "overwrite"}, as_positional=False)
    parser.add_argument("--overwrite", action="store_true", help="replace another ranking at that place")
    settings = parser.parse_args(arguments).as_dict()
    table = merge(**settings)
    print(f"Wrote {place_of(settings['output'])[0]}: {counted(table.num_rows, 'image')}.")


def rank_parser() -> Parser:
    """The parser of ``rank``."""
    parser = Parser(prog="train.py rank", description="Rank images by how typical they are.")
    parser.add_argument("images", nargs="?", help="folder of images, nested or flat; or --data.list")
    parser.add_argument("--encoder", type=str, required=True, help="name of an encoder, see docs/encoders.md")
    parser.add_function_arguments(rank, skip={"images", "encoder", "overwrite", "trainer"}, as_positional=False)
    parser.add_argument("--overwrite", action="store_true", help="replace another ranking at that place")
    parser.add_class_arguments(
        pl.Trainer, "trainer", skip=inspect.signature(pl.Trainer).parameters.keys() - TRAINER, instantiate=False
    )
    return parser


@rank_zero_only
def _say(text: str) -> None:
    print(text)
