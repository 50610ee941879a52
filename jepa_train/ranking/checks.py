"""Checks of a ranking before its first pass, in the order of what they cost; one sentence for the first that fails."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from jepa_train.errors import ConfigurationError, check_at_least
from jepa_train.ranking.arguments import check_arguments
from jepa_train.ranking.batches import DataSettings
from jepa_train.ranking.course import Course
from jepa_train.ranking.embedding import embedding_size
from jepa_train.ranking.encoders import ImageEncoder
from jepa_train.ranking.listing import ImageListing
from jepa_train.ranking.references import check_reference
from jepa_train.ranking.soundness import check_derivative
from jepa_train.ranking.workspace import REFERENCE


def check_data(data: DataSettings) -> None:
    """See that settings of the reading of images are of their kinds, and numbers not too small.

    Raises:
        ConfigurationError: naming the first that is not.
    """
    check_arguments(DataSettings, vars(data), group="data.")
    check_at_least(1, **{f"--data.{name}": getattr(data, name) for name in ("batch_size", "part_size")})
    check_at_least(0, **{"--data.num_workers": data.num_workers or 0})


def check_shard(course: Course) -> None:
    """See that a shard has the reference that all shards share.

    Raises:
        ConfigurationError: if it has not.
    """
    if course.shard.of > 1 and course.reference_file is None:
        raise ConfigurationError(
            "a shard cannot make the reference that all shards share: run once with --stage reference, and give its "
            "reference.pt as --reference."
        )


def check_images(listing: ImageListing, course: Course) -> None:
    """See that images have the classes, and are as many, as the course needs, before any is read.

    Raises:
        ConfigurationError: if not.
    """
    wanted, reference = course.wanted, course.source
    if wanted.explicit and "class_percentile" in wanted.names and not listing.nested:
        raise ConfigurationError(
            f"there are no classes for class_percentile, because {listing.root} has no folders: ask for percentile."
        )
    if course.compares and reference is None and len(listing) < 2:
        raise ConfigurationError(
            f"{listing.root} has 1 image, and a ranking compares at least 2: give more images, or a --reference to "
            "compare with."
        )
    if course.compares and isinstance(reference, ImageListing) and len(reference) < 2:
        raise ConfigurationError(
            f"the --reference {reference.root} has 1 image, and needs at least 2: give a folder with more."
        )


def check_place(table_file: Path, folder: Path, listing: ImageListing, course: Course, *, overwrite: bool) -> None:
    """See that a ranking is written neither among its images nor over its own reference.

    Args:
        table_file, folder: where the table goes, and all else.
        listing: the images.
        course: says where the reference is.
        overwrite: replace the ranking that is there.

    Raises:
        ConfigurationError: if it is.
    """
    if folder.resolve() == listing.root.resolve():
        beside = f", and all else of {table_file.name} would be written there" if table_file.parent != folder else ""
        raise ConfigurationError(f"{folder} is the folder of the images{beside}: choose another --output.")
    file = course.reference_file
    if overwrite and file is not None and file.resolve() == (folder / REFERENCE).resolve():
        raise ConfigurationError(
            f"the --reference {file} is of the ranking that --overwrite replaces: copy it elsewhere."
        )


def check_encoder(encoder: ImageEncoder, course: Course) -> int:
    """See that an encoder makes a vector of an image, as the reference has it, with the derivative that volumes need.

    Returns:
        K, the size of the vector.

    Raises:
        ConfigurationError: if it does not.
    """
    size = embedding_size(encoder)
    if course.reference_file is not None and course.compares:
        check_reference(course.reference_file, encoder.identity)
    if course.wanted.volumes:
        check_derivative(encoder.name, encoder.module, encoder.prepare(Image.new("RGB", (64, 64))), size)
    return size
