"""The stages of a ranking, one function each: what is missing is computed and written, by all processes together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from jepa_train.errors import ConfigurationError, counted
from jepa_train.ranking.batches import DataSettings, Order
from jepa_train.ranking.duplicates import write_nearest
from jepa_train.ranking.embedding import EmbeddingPass, embeddings_at, listing_order
from jepa_train.ranking.encoders import ImageEncoder
from jepa_train.ranking.images import FilesToRank
from jepa_train.ranking.listing import ImageListing
from jepa_train.ranking.passes import failing_together, missing_parts, on_first_process, run_pass, share_of
from jepa_train.ranking.references import (
    RankingReference,
    calibrated,
    calibration_places,
    draw,
    fit_reference,
    has_subspace,
    read_reference,
    write_reference,
)
from jepa_train.ranking.scores import write_scores
from jepa_train.ranking.shards import Shard
from jepa_train.ranking.volumes import Estimator, VolumePass, chooses_exact, volume_order, volume_part_size
from jepa_train.ranking.workspace import (
    AUTO,
    EMBEDDINGS,
    LOWEST_FIRST,
    NEAREST,
    REFERENCE,
    REFERENCES,
    SCORES,
    Workspace,
    read_manifest,
    vectors,
)


@dataclass(frozen=True)
class Job:
    """The images of a ranking, and what works on them.

    Attributes:
        workspace: where results are.
        encoder: the encoder.
        images: all images by index.
        shard: which of them are ranked.
        data: how images are read.
        trainer: runs the passes.
    """

    workspace: Workspace
    encoder: ImageEncoder
    images: FilesToRank
    shard: Shard
    data: DataSettings
    trainer: pl.Trainer

    @property
    def listing(self) -> ImageListing:
        """Names of the images."""
        return self.images.listing

    @property
    def parts(self) -> list[int]:
        """Numbers of the parts that are ranked."""
        return self.shard.take(listing_order(len(self.listing), self.data.part_size).parts)

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.trainer.strategy.root_device

    def share(self, kind: str) -> list[int]:
        """This process's share of the parts that are not there."""
        return share_of(missing_parts(self.trainer, self.workspace, kind, self.parts), self.trainer)


@dataclass(frozen=True)
class Drawn:
    """Images of the reference, which are embedded.

    Attributes:
        images: all images, by index.
        indices: index of each image that was drawn, ascending.
        name: what they are called.
        kind: name of the parts that hold the embeddings.
    """

    images: FilesToRank
    indices: NDArray[np.int64]
    name: str
    kind: str = EMBEDDINGS


def embed(job: Job, size: int) -> None:
    """Embed the images that are ranked; K is ``size``."""
    order = listing_order(len(job.listing), job.data.part_size)
    _embed(job, size, EMBEDDINGS, job.images, order, job.parts, "Embeddings")


def draw_reference(job: Job, others: ImageListing | None, size: int, *, seed: int, embedded: bool) -> Drawn:
    """Draw the images of the reference, and embed those that are not embedded already.

    Args:
        job: the ranking.
        others: other images that are typical; ``None`` is the images that are ranked.
        size: K.
        seed: seed of the draw.
        embedded: all images that are ranked are embedded already.
    """
    images = job.images if others is None else FilesToRank(others, job.encoder.prepare)
    indices = draw(len(images), seed)
    drawn = Drawn(images, indices, str(images.listing.root))
    if others is None and embedded:
        return drawn
    order = Order(indices, job.data.part_size)
    _embed(job, size, REFERENCES, images, order, list(order.parts), "Embeddings of the reference")
    return replace(drawn, kind=REFERENCES)


def settle_reference(job: Job, source: Drawn | Path, *, estimator: Estimator, volumes: bool = True) -> RankingReference:
    """Fit the reference, or read the one that is there.

    Args:
        job: the ranking.
        source: images that were drawn and embedded, or the file of another ranking's reference.
        estimator: see :func:`chooses_exact`; once one is chosen, the ranking goes on with that.
        volumes: volumes will be measured, for which some Jacobians are needed now.

    Raises:
        ConfigurationError: where there are too few images, or a file is of another encoder.
    """
    path = job.workspace.folder / REFERENCE
    on_first_process(job.trainer, partial(_settle, job, path, source, estimator, volumes))
    with failing_together(job.trainer):
        return read_reference(path, job.encoder.identity)


def _settle(job: Job, path: Path, source: Drawn | Path, estimator: Estimator, volumes: bool) -> None:
    written = path.is_file()
    if written and (not volumes or has_subspace(path, job.encoder.identity)):
        return
    known = path if written else source
    reference = read_reference(known, job.encoder.identity) if isinstance(known, Path) else _fit(job, known)
    if volumes:
        reference = _with_estimator(job, reference, source, estimator)
    if not written or reference.subspace is not None:
        write_reference(path, reference)


def _with_estimator(
    job: Job, reference: RankingReference, source: Drawn | Path, estimator: Estimator
) -> RankingReference:
    """Choose how volumes are estimated, unless that was chosen before, and give the reference what that needs."""
    chosen = (read_manifest(job.workspace.folder) or {}).get("estimator", AUTO)
    exact = chooses_exact(estimator if chosen == AUTO else chosen, reference)
    if exact:
        reference = replace(reference, subspace=None)
    elif isinstance(source, Drawn):
        reference = _calibrate(job, reference, source)
    elif reference.subspace is None:
        raise ConfigurationError(
            f"{source} was made for exact volumes, or for none: make it again with --stage reference, and without "
            "--scores and --estimator; or add --estimator exact."
        )
    if reference.density is not None:  # else there will be no volumes
        job.workspace.note(estimator="exact" if exact else "subspace")
    return reference


def _fit(job: Job, drawn: Drawn) -> RankingReference:
    if drawn.kind == EMBEDDINGS:
        z = embeddings_at(
            job.workspace, EMBEDDINGS, listing_order(len(drawn.images), job.data.part_size), drawn.indices
        )
    else:
        numbers = Order(drawn.indices, job.data.part_size).parts
        z = np.concatenate([vectors(job.workspace.read(drawn.kind, number)["embedding"]) for number in numbers])
    trim = drawn.images is job.images  # a folder of a user's choice is typical as it is
    reference = fit_reference(
        z,
        drawn.indices,
        images=drawn.images.listing.identity,
        encoder=job.encoder.identity,
        source=drawn.name,
        trim=trim,
    )
    if trim and drawn.kind == REFERENCES:
        _warn_of_trimmed(drawn.name, int(np.isfinite(z).all(1).sum()), len(reference.z))
    return reference


def _warn_of_trimmed(name: str, count: int, kept: int) -> None:
    """Say what a reference that is made by itself leaves out, as whoever makes it may hold all images for typical."""
    if kept < count:
        rank_zero_warn(
            f"The reference leaves out {count - kept} of {counted(count, 'image')} of {name}, those farthest from the "
            "rest, because ranked images may have faults: if all images are typical, give their folder as --reference, "
            "which is used whole."
        )


def _calibrate(job: Job, reference: RankingReference, drawn: Drawn) -> RankingReference:
    indices = reference.indices[calibration_places(reference)]
    images = [drawn.images[int(index)]["image"] for index in indices]
    x = torch.stack([image for image in images if image is not None]).to(job.device)
    return calibrated(reference, job.encoder.module.to(job.device), drawn.images.inputs(x))


def score(job: Job, reference: RankingReference) -> None:
    """Score all embeddings."""
    share = job.share(SCORES)
    with failing_together(job.trainer):
        write_scores(job.workspace, reference, job.listing.identity, share, job.device)


def measure_volumes(job: Job, reference: RankingReference, *, seconds: float | None) -> None:
    """Measure volumes, of all images or as many as the time suffices for."""
    if reference.density is None:
        return
    manifest = read_manifest(job.workspace.folder) or {}
    lowest_first = manifest.get("order") == LOWEST_FIRST  # that of the first call, whose parts are there
    size = volume_part_size(job.data.part_size)
    order = volume_order(job.workspace, job.parts, size, lowest_first=lowest_first, shard=job.shard)
    parts = list(order.parts)
    images = FilesToRank(job.listing, job.encoder.prepare, described=False)
    module = VolumePass(job.encoder, reference, job.workspace, images, order, parts, job.data, seconds=seconds)
    run_pass(job.trainer, module)


def search_nearest(job: Job) -> None:
    """Search the nearest other image of each."""
    share = job.share(NEAREST)
    with failing_together(job.trainer):
        write_nearest(job.workspace, job.parts, share, job.device)


def _embed(job: Job, size: int, kind: str, images: FilesToRank, order: Order, parts: list[int], title: str) -> None:
    module = EmbeddingPass(job.encoder, size, job.workspace, kind, images, order, parts, job.data, title=title)
    run_pass(job.trainer, module)
