"""``rank`` and ``merge``: the order of the stages, from a folder of images to a table, a summary and a page."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from jepa_train.errors import ConfigurationError, check_at_least
from jepa_train.ranking.batches import DataSettings
from jepa_train.ranking.columns import Wanted, wanted_columns
from jepa_train.ranking.embedding import embedding_size, listing_order
from jepa_train.ranking.encoders import ImageEncoder, load_encoder
from jepa_train.ranking.images import FilesToRank
from jepa_train.ranking.listing import ImageListing, list_images
from jepa_train.ranking.passes import on_first_process, ranking_trainer
from jepa_train.ranking.references import Estimator, file_identity
from jepa_train.ranking.shards import Shard
from jepa_train.ranking.stages import (
    Job,
    draw_reference,
    embed,
    measure_volumes,
    score,
    search_nearest,
    settle_reference,
)
from jepa_train.ranking.table import assemble, place_of, read_table, write_table
from jepa_train.ranking.workspace import FORMAT, Workspace, open_workspace, read_manifest

PACKAGES = ("jepa-train", "torch", "timm", "pillow")  # whose versions results depend on
MOST_SEARCHED = 100_000  # images whose nearest is searched without being asked for
DATA = DataSettings()
SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def rank(
    images: Path | str | None = None,
    *,
    encoder: str | ImageEncoder,
    output: Path | str = "ranked",
    reference: Path | str | None = None,
    scores: str | Sequence[str] | None = None,
    estimator: Estimator = "auto",
    budget: str | None = None,
    shard: str | None = None,
    stage: Literal["all", "reference"] = "all",
    pooling: str = "auto",
    image_size: int | None = None,
    overwrite: bool = False,
    seed: int = 0,
    data: DataSettings = DATA,
    trainer: Mapping[str, Any] | None = None,
) -> pa.Table | None:
    """Rank images by how typical they are, and write a table of scores.

    A ranking that was interrupted goes on where it was, and ends with the same table.

    Args:
        images: folder of images, nested or flat; or ``data.list``.
        encoder: name of an encoder, see :func:`load_encoder`, or an encoder.
        output: folder to write to; or the table's file, ending in .parquet or .csv, with a folder of that name beside.
        reference: folder of images that are typical, or ``reference.pt`` of another ranking; by default the images
            themselves, of which each is compared with the others.
        scores: columns of the table, by comma; by default all.
        estimator: ``exact`` volumes take K backward passes an image, ``subspace`` 1.5 r; ``auto`` chooses by K and r.
        budget: time for volumes, such as 90s, 30m or 2h, spent on the most doubtful images first; by default all.
        shard: I/N, for every N-th part of the images, to be merged; it needs a reference.pt.
        stage: ``reference`` ends with reference.pt, for shards.
        pooling: how tokens become one vector, see :func:`load_encoder`.
        image_size: height and width of the encoder's input, in pixels.
        overwrite: replace another ranking at that place.
        seed: seed of the draw of the reference.
        data: how images are read.
        trainer: arguments of Lightning's Trainer, such as ``{"devices": 2}``.

    Returns:
        the table; ``None`` for a shard, and after ``stage="reference"``.

    Raises:
        ConfigurationError: for anything that a user can mend.
    """
    wanted, of = _wanted(scores), Shard.parse(shard)
    check_at_least(1, **{"--data.batch_size": data.batch_size})
    seconds = None if budget is None else parse_budget(budget)
    source = None if reference is None else Path(reference)
    _check_shard(of, source)
    if images is None and data.list is None:
        raise ConfigurationError("there is nothing to rank: name a folder of images, or a --data.list of files.")
    listing = list_images(Path(images or "."), listed=data.list)
    loaded = load_encoder(encoder, pooling=pooling, image_size=image_size) if isinstance(encoder, str) else encoder
    size = embedding_size(loaded)
    runner = ranking_trainer(trainer or {})
    needs_all = estimator == "exact" or (wanted.explicit and wanted.needs("exact volume"))
    manifest = _identities(listing, loaded, source) | {
        "estimator": "exact" if needs_all else estimator,
        "precision": str(runner.precision),
        "seed": seed,
        "shard": str(of),
        "order": "listing" if seconds is None else "doubtful",
    }
    table_file, folder = place_of(Path(output))
    on_first_process(runner, partial(_open, table_file, folder, manifest, overwrite))
    parts = of.take(listing_order(len(listing)).parts)
    job = Job(Workspace(folder), loaded, FilesToRank(listing, loaded.prepare), parts, data, runner)

    clock = Stopwatch()
    if stage == "all":
        with clock.times("embeddings"):
            embed(job, size)
    if stage == "reference" or wanted.needs("reference", "volume", "exact volume"):
        with clock.times("reference"):
            given = source if source is not None and source.is_file() else None
            origin = given or draw_reference(job, source, size, seed=seed, embedded=stage == "all")
            fitted = settle_reference(job, origin, estimator=estimator, needs_all=needs_all)
        if stage == "reference":
            return None
        with clock.times("scores"):
            score(job, fitted)
    if wanted.needs("volume", "exact volume"):
        with clock.times("volumes"):
            doubtful = (read_manifest(folder) or manifest)["order"] == "doubtful"
            measure_volumes(job, fitted, doubtful_first=doubtful, seconds=seconds)
    if of.of > 1:
        return None
    if _searches(wanted, len(listing)):
        with clock.times("nearest"):
            search_nearest(job)
    on_first_process(runner, partial(_finish, job.workspace, parts, wanted, table_file))
    return read_table(table_file)


class Stopwatch:
    """Seconds that each stage took, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def times(self, stage: str) -> Iterator[None]:
        """Measure a stage."""
        start = time.monotonic()
        yield
        self.seconds[stage] = time.monotonic() - start


def parse_budget(text: str) -> float:
    """Read a time such as 90s, 30m, 2h or 1h30m: seconds.

    Raises:
        ConfigurationError: for anything else.
    """
    pieces = re.findall(r"(\d+(?:\.\d+)?)([hms])", text)
    if not pieces or "".join(number + unit for number, unit in pieces) != text.strip():
        raise ConfigurationError(f"--budget must be a time such as 90s, 30m, 2h or 1h30m, got {text!r}.")
    return sum(float(number) * SECONDS[unit] for number, unit in pieces)


def _wanted(scores: str | Sequence[str] | None) -> Wanted:
    return wanted_columns(scores.split(",") if isinstance(scores, str) else scores)


def _check_shard(shard: Shard, reference: Path | None) -> None:
    if shard.of > 1 and (reference is None or not reference.is_file()):
        raise ConfigurationError(
            "a shard cannot make the reference that all shards share: run once with --stage reference, and give its "
            "reference.pt as --reference."
        )


def _identities(listing: ImageListing, encoder: ImageEncoder, reference: Path | None) -> dict[str, Any]:
    if reference is None:
        source = {"images": listing.identity}
    elif reference.is_file():
        source = {"file": file_identity(reference)}
    else:
        source = {"images": list_images(reference).identity}
    return {
        "format": FORMAT,
        "encoder": encoder.identity,
        "preparation": dict(encoder.preparation),
        "images": listing.identity,
        "count": len(listing),
        "reference": source,
        "versions": {name: version(name) for name in PACKAGES},
    }


def _open(table_file: Path, folder: Path, manifest: Mapping[str, Any], overwrite: bool) -> None:
    if table_file.exists() and read_manifest(folder) is None and not overwrite:
        raise ConfigurationError(f"{table_file} exists already: choose another --output, or add --overwrite.")
    open_workspace(folder, manifest, overwrite=overwrite)


def _searches(wanted: Wanted, count: int) -> bool:
    return wanted.needs("neighbours") and (wanted.explicit or count <= MOST_SEARCHED)


def _finish(workspace: Workspace, parts: list[int], wanted: Wanted, table_file: Path) -> None:
    write_table(table_file, assemble(workspace, parts, wanted))
