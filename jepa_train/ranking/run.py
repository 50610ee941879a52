"""``rank``: the order of the stages, from a folder of images to a table, a summary and a page."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image

from jepa_train.errors import ConfigurationError, check_at_least
from jepa_train.ranking.arguments import check_arguments
from jepa_train.ranking.batches import DataSettings
from jepa_train.ranking.columns import Wanted, wanted_columns
from jepa_train.ranking.embedding import embedding_size
from jepa_train.ranking.encoders import ImageEncoder, load_encoder
from jepa_train.ranking.images import FilesToRank
from jepa_train.ranking.listing import ImageListing, list_images
from jepa_train.ranking.passes import on_first_process, ranking_trainer
from jepa_train.ranking.references import Estimator, RankingReference, check_reference, file_identity
from jepa_train.ranking.replacing import begin_ranking
from jepa_train.ranking.results import searches, write_results
from jepa_train.ranking.shards import Shard
from jepa_train.ranking.soundness import check_derivative
from jepa_train.ranking.stages import (
    Job,
    draw_reference,
    embed,
    measure_volumes,
    score,
    search_nearest,
    settle_reference,
)
from jepa_train.ranking.table import place_of, read_table
from jepa_train.ranking.workspace import (
    FORMAT,
    LOWEST_FIRST,
    REFERENCE,
    Workspace,
    abandoned_where_refused,
    read_manifest,
)

PACKAGES = ("jepa-train", "torch", "timm", "pillow", "pyarrow")  # whose versions results depend on
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
    page: bool = True,
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
        budget: time for volumes, such as 90s, 30m or 2h, the lowest embedding_log_density first; by default all.
        shard: I/N, for every N-th part of the images, to be merged; it needs a reference.pt.
        stage: ``reference`` ends with reference.pt, for shards.
        pooling: how tokens become one vector, see :func:`load_encoder`.
        image_size: height and width of the encoder's input, in pixels.
        overwrite: begin anew where there is a ranking, and replace it.
        seed: seed of the draw of the reference.
        page: write index.html, too.
        data: how images are read.
        trainer: arguments of Lightning's Trainer, such as ``{"devices": 2}``.

    Returns:
        the table; ``None`` for a shard, and after ``stage="reference"``.

    Raises:
        ConfigurationError: for anything that a user can mend.
    """
    check_arguments(rank, locals())
    check_arguments(DataSettings, vars(data), group="data.")
    wanted, part = wanted_columns(scores.split(",") if isinstance(scores, str) else scores), Shard.parse(shard)
    course = Course(
        wanted,
        source=None if reference is None else reference_at(Path(reference)),
        estimator=estimator_for(wanted, estimator),
        seconds=None if budget is None else parse_budget(budget),
        reference_alone=stage == "reference",
        seed=seed,
    )
    check_at_least(1, **{f"--data.{name}": getattr(data, name) for name in ("batch_size", "part_size")})
    check_at_least(0, **{"--data.num_workers": data.num_workers or 0})
    _check_shard(part, course.reference_file)
    if images is None and data.list is None:
        raise ConfigurationError("there is nothing to rank: name a folder of images, or a --data.list of files.")
    listing = list_images(Path(images or "."), listed=data.list)
    if wanted.explicit and "class_percentile" in wanted.names and not listing.nested:
        raise ConfigurationError(
            f"there are no classes for class_percentile, because {listing.root} has no folders: ask for percentile."
        )
    if course.compares:
        _check_there_are_two(listing, course.source)
    loaded = load_encoder(encoder, pooling=pooling, image_size=image_size) if isinstance(encoder, str) else encoder
    runner = ranking_trainer(trainer or {})
    _say_how(loaded)
    table_file, folder = place_of(Path(output))
    if folder.resolve() == listing.root.resolve():
        beside = f", and all else of {table_file.name} would be written there" if table_file.parent != folder else ""
        raise ConfigurationError(f"{folder} is the folder of the images{beside}: choose another --output.")
    job = Job(Workspace(folder), loaded, FilesToRank(listing, loaded.prepare), part, data, runner)
    size = embedding_size(loaded)
    if course.reference_file is not None and course.compares:
        check_reference(course.reference_file, loaded.identity)
    if course.wanted.volumes:
        check_derivative(loaded.name, loaded.module, loaded.prepare(Image.new("RGB", (64, 64))), size)
    manifest = manifest_of(job, course)
    on_first_process(runner, partial(begin_ranking, table_file, folder, manifest, overwrite=overwrite))
    clock = Stopwatch()
    with abandoned_where_refused(job.workspace) if runner.is_global_zero else nullcontext():
        fitted = _stages(job, course, size, clock)
    if course.reference_alone or part.of > 1:
        return None
    write = partial(write_results, job.workspace, job.parts, wanted, table_file, fitted, clock.seconds, page=page)
    on_first_process(runner, write)
    return read_table(table_file)


@dataclass(frozen=True)
class Course:
    """Settings that decide which stages there are, and what they compute; see :func:`rank`.

    Attributes:
        source: other images that are typical, or the file of another ranking's reference.
    """

    wanted: Wanted
    source: ImageListing | Path | None
    estimator: Estimator
    seconds: float | None
    reference_alone: bool
    seed: int

    @property
    def reference_file(self) -> Path | None:
        """File of another ranking's reference."""
        return self.source if isinstance(self.source, Path) else None

    @property
    def compares(self) -> bool:
        """True where anything is compared with a reference."""
        return self.reference_alone or self.wanted.volumes or self.wanted.needs("reference")


def _stages(job: Job, course: Course, size: int, clock: Stopwatch) -> RankingReference | None:
    """Run the stages that columns need, and return the reference, if any needs one."""
    wanted, fitted = course.wanted, None
    if not course.reference_alone:
        with clock.times("embeddings"):
            embed(job, size)
    if course.compares:
        with clock.times("reference"):
            embedded, source = not course.reference_alone, course.source
            origin = (
                source
                if isinstance(source, Path)
                else draw_reference(job, source, size, seed=course.seed, embedded=embedded)
            )
            fitted = settle_reference(job, origin, estimator=course.estimator, volumes=wanted.volumes)
    if course.reference_alone:
        return fitted
    if fitted is not None:
        with clock.times("scores"):
            score(job, fitted)
    if fitted is not None and wanted.volumes:
        with clock.times("volumes"):
            manifest = read_manifest(job.workspace.folder) or {}
            lowest_first = manifest.get("order") == LOWEST_FIRST  # that of the first call, whose parts are there
            measure_volumes(job, fitted, lowest_first=lowest_first, seconds=course.seconds)
    if job.shard.of == 1 and searches(wanted, len(job.listing)):
        with clock.times("nearest"):
            search_nearest(job)
    return fitted


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


def reference_at(path: Path) -> ImageListing | Path:
    """Find what ``--reference`` names: the images of a folder, or the file of a ranking, whose folder may be named.

    Raises:
        ConfigurationError: if there is neither.
    """
    if path.is_dir() and not _is_ranking(path):
        return list_images(path)
    file = path / REFERENCE if path.is_dir() else path
    if file.is_file():
        return file
    if _is_ranking(file.parent):
        raise ConfigurationError(
            f"the ranking in {file.parent} has no {REFERENCE}, because its --scores need none, or it was interrupted: "
            "run its command again, without --scores and with --stage reference."
        )
    raise ConfigurationError(
        f"there is no --reference {path}: give a folder of typical images, or the folder of a ranking by this encoder."
    )


def _is_ranking(folder: Path) -> bool:
    with suppress(ConfigurationError):  # a manifest of something else
        return read_manifest(folder) is not None
    return False


def estimator_for(wanted: Wanted, estimator: Estimator) -> Estimator:
    """The estimator that is asked for, by itself or by columns that need all singular values.

    Raises:
        ConfigurationError: where these contradict each other.
    """
    by_score = wanted.explicit and wanted.needs("exact volume")
    if by_score and estimator == "subspace":
        raise ConfigurationError(
            "jepa_score needs all singular values, which the estimator subspace does not have: leave out --estimator, "
            "or jepa_score of --scores."
        )
    return "exact" if by_score else estimator


def _check_there_are_two(listing: ImageListing, reference: ImageListing | Path | None) -> None:
    """See that there are images to compare with, before any is read."""
    if reference is None and len(listing) < 2:
        raise ConfigurationError(
            f"{listing.root} has 1 image, and a ranking compares at least 2: give more images, or a --reference to "
            "compare with."
        )
    if isinstance(reference, ImageListing) and len(reference) < 2:
        raise ConfigurationError(
            f"the --reference {reference.root} has 1 image, and needs at least 2: give a folder with more."
        )


def _say_how(encoder: ImageEncoder) -> None:
    """Print how images are prepared and embedded."""
    facts = ", ".join(f"{name} {value}" for name, value in encoder.preparation.items())
    rank_zero_info(" ".join([f"{encoder.name}: {facts}.", *encoder.notes]))


def _check_shard(shard: Shard, reference: Path | None) -> None:
    if shard.of > 1 and reference is None:
        raise ConfigurationError(
            "a shard cannot make the reference that all shards share: run once with --stage reference, and give its "
            "reference.pt as --reference."
        )


def manifest_of(job: Job, course: Course) -> dict[str, Any]:
    """All that results depend on, in plain JSON types: images, encoder, reference, settings and packages."""
    encoder, listing, source = job.encoder, job.listing, course.source
    if isinstance(source, Path):
        reference = {"file": file_identity(source)}
    else:
        reference = {"images": (source or listing).identity, "taken": "trimmed" if source is None else "whole"}
    return {
        "format": FORMAT,
        "encoder": encoder.identity,
        "preparation": dict(encoder.preparation),
        "images": listing.identity,
        "reference": reference,
        "estimator": course.estimator,
        "precision": str(job.trainer.precision),
        "seed": course.seed,
        "shard": str(job.shard),
        "part_size": job.data.part_size,
        "versions": {name: version(name) for name in PACKAGES},
        # what two calls for one ranking may differ in
        "order": "listing" if course.seconds is None else LOWEST_FIRST,
        "scores": list(course.wanted.names) if course.wanted.explicit else None,
        "count": len(listing),
        "root": str(listing.root.resolve()),
        "name": encoder.name,
        "notes": list(encoder.notes),
    }
