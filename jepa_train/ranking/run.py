"""``rank``: the order of the stages, from a folder of images to a table, a summary and a page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from lightning.pytorch.utilities import rank_zero_info

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.arguments import check_arguments
from jepa_train.ranking.batches import DataSettings
from jepa_train.ranking.checks import check_data, check_encoder, check_images, check_place, check_shard
from jepa_train.ranking.course import Course
from jepa_train.ranking.encoders import ImageEncoder, load_encoder
from jepa_train.ranking.images import FilesToRank
from jepa_train.ranking.listing import ImageListing, list_images
from jepa_train.ranking.passes import on_first_process, ranking_trainer
from jepa_train.ranking.references import RankingReference, file_identity
from jepa_train.ranking.replacing import begin_ranking
from jepa_train.ranking.results import searches, write_results
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
from jepa_train.ranking.volumes import Estimator
from jepa_train.ranking.workspace import FORMAT, LOWEST_FIRST, Workspace, abandoned_where_refused

PACKAGES = ("jepa-train", "torch", "timm", "pillow", "pyarrow")  # whose versions results depend on
DATA = DataSettings()


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
        output: folder to write to, or the file of the table, ending in .parquet or .csv, which then has a folder of the
            same name beside it.
        reference: folder of typical images, or ``reference.pt`` of another ranking. By default the images are compared
            with each other.
        scores: columns of the table, separated by commas; by default all.
        estimator: ``exact`` volumes take K backward passes an image, ``subspace`` 1.5 r; ``auto`` chooses by K and r.
        budget: time to spend on volumes, such as 90s, 30m or 2h; images of lowest embedding_log_density come first. By
            default all images have volumes.
        shard: I/N ranks part I of N parts of the images, which ``rank merge`` joins; it needs a reference.pt.
        stage: ``all`` stages, or ``reference`` alone, which ends with a reference.pt for shards.
        pooling: rule by which tokens become one vector, see :func:`load_encoder`.
        image_size: height and width of the encoder's input, in pixels.
        overwrite: replace a ranking that is there, and begin anew.
        seed: seed of the random choice of the reference.
        page: write the page index.html, too.
        data: how images are read.
        trainer: arguments of Lightning's Trainer, such as ``{"devices": 2}``.

    Returns:
        the table; ``None`` for a shard, and after ``stage="reference"``.

    Raises:
        ConfigurationError: for anything that a user can mend.
    """
    check_arguments(rank, locals())
    check_data(data)
    course = Course.of(
        scores=scores, reference=reference, estimator=estimator, budget=budget, shard=shard, stage=stage, seed=seed
    )
    listing, (table_file, folder) = _images_to_rank(images, data.list, course), place_of(Path(output))
    check_place(table_file, folder, listing, course, overwrite=overwrite)
    loaded = load_encoder(encoder, pooling=pooling, image_size=image_size) if isinstance(encoder, str) else encoder
    files, runner = FilesToRank(listing, loaded.prepare), ranking_trainer(trainer or {})
    _say_how(loaded)
    size = check_encoder(loaded, course)
    job, clock = Job(Workspace(folder), loaded, files, course.shard, data, runner), Stopwatch()
    on_first_process(runner, partial(begin_ranking, table_file, folder, manifest_of(job, course), overwrite=overwrite))
    with abandoned_where_refused(job.workspace) if runner.is_global_zero else nullcontext():
        fitted = _run_stages(job, course, size, clock)
    if not course.ends_with_table:
        on_first_process(runner, partial(job.workspace.note, scores=course.scores))  # for the merge
        return None
    write = partial(
        write_results, job.workspace, job.parts, course.wanted, table_file, fitted, clock.seconds, page=page
    )
    on_first_process(runner, write)
    return read_table(table_file)


def _images_to_rank(images: Path | str | None, listed: Path | None, course: Course) -> ImageListing:
    """List the images that a user named, and check them."""
    check_shard(course)
    if images is None and listed is None:
        raise ConfigurationError("there is nothing to rank: name a folder of images, or a --data.list of files.")
    listing = list_images(Path(images or "."), listed=listed)
    check_images(listing, course)
    return listing


def _say_how(encoder: ImageEncoder) -> None:
    """Print how images are prepared and embedded."""
    facts = ", ".join(f"{name} {value}" for name, value in encoder.preparation.items())
    rank_zero_info(" ".join([f"{encoder.name}: {facts}.", *encoder.notes]))


def _run_stages(job: Job, course: Course, size: int, clock: Stopwatch) -> RankingReference | None:
    """Run the stages that columns need, and return the reference, if any needs one."""
    fitted = None
    if not course.reference_alone:
        with clock.times("embeddings"):
            embed(job, size)
    if course.compares:
        with clock.times("reference"):
            fitted = _settled_reference(job, course, size)
    if course.reference_alone:
        return fitted
    if fitted is not None:
        with clock.times("scores"):
            score(job, fitted)
    if fitted is not None and course.wanted.volumes:
        with clock.times("volumes"):
            measure_volumes(job, fitted, seconds=course.seconds)
    if course.ends_with_table and searches(course.wanted, len(job.listing)):
        with clock.times("nearest"):
            search_nearest(job)
    return fitted


def _settled_reference(job: Job, course: Course, size: int) -> RankingReference:
    """Fit the reference to images that are drawn, or read that of another ranking."""
    known, embedded = course.source, not course.reference_alone
    source = known if isinstance(known, Path) else draw_reference(job, known, size, seed=course.seed, embedded=embedded)
    return settle_reference(job, source, estimator=course.estimator, volumes=course.wanted.volumes)


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
        "scores": course.scores,
        "count": len(listing),
        "root": str(listing.root.resolve()),
        "name": encoder.name,
        "notes": list(encoder.notes),
    }
