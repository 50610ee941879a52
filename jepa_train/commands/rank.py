"""The subcommand ``rank``: a folder of images by any encoder, into a table."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import lightning.pytorch as pl
import pyarrow as pa
from lightning.pytorch.utilities import rank_zero_only

from jepa_train.commands.parsing import Parser
from jepa_train.errors import counted
from jepa_train.ranking.embedding import listing_order
from jepa_train.ranking.results import merge
from jepa_train.ranking.run import rank
from jepa_train.ranking.shards import Shard
from jepa_train.ranking.summary import FILE
from jepa_train.ranking.table import place_of
from jepa_train.ranking.workspace import INDEX, REFERENCE, read_manifest

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
    table, output = rank(**settings), Path(settings["output"])
    if table is not None:
        _say(_of_table(table, output))
    elif settings["stage"] == "reference":
        _say(f"Wrote {place_of(output)[1] / REFERENCE}: rank with it as --reference.")
    else:
        _say(_of_shard(Shard.parse(settings["shard"]), place_of(output)[1]))


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
    print(_of_table(merge(**settings), Path(settings["output"])))


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


def _of_table(table: pa.Table, output: Path) -> str:
    """Lines that end a ranking: its warnings, and what was written where."""
    table_file, folder = place_of(output)
    warnings = json.loads((folder / FILE).read_text())["warnings"]
    page = folder / INDEX
    look = f" The page to open is {page}." if page.exists() else ""
    wrote = f"Wrote {table_file}: {counted(table.num_rows, 'image')}.{look}"
    return "\n".join([*(f"warning: {sentence}" for sentence in warnings), wrote])


def _of_shard(shard: Shard, folder: Path) -> str:
    """Line that ends the ranking of a shard."""
    manifest = read_manifest(folder) or {}
    order = listing_order(manifest["count"], manifest["part_size"])
    images = sum(len(order.of_part(number)) for number in shard.take(order.parts))
    of_all = f"{images} of {counted(len(order.indices), 'image')}"
    return f"Wrote shard {shard} to {folder}: {of_all}; rank merge makes one table of all {shard.of}."


@rank_zero_only
def _say(text: str) -> None:
    print(text)
