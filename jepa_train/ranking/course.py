"""The settings of a ranking that decide which stages there are, read from what a user gave."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.columns import Wanted, wanted_columns
from jepa_train.ranking.listing import ImageListing, list_images
from jepa_train.ranking.shards import Shard
from jepa_train.ranking.volumes import Estimator, estimator_for
from jepa_train.ranking.workspace import REFERENCE, read_manifest

SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}


@dataclass(frozen=True)
class Course:
    """Settings that decide which stages there are, and what they compute; see :func:`rank`.

    Attributes:
        wanted: columns of the table.
        source: other images that are typical, or the file of another ranking's reference.
        estimator: how volumes are estimated.
        seconds: time for volumes; ``None`` is without limit.
        shard: which of the images are ranked.
        reference_alone: end with the reference.
        seed: seed of the draw of the reference.
    """

    wanted: Wanted
    source: ImageListing | Path | None
    estimator: Estimator
    seconds: float | None
    shard: Shard
    reference_alone: bool
    seed: int

    @classmethod
    def of(
        cls,
        *,
        scores: str | Sequence[str] | None,
        reference: Path | str | None,
        estimator: Estimator,
        budget: str | None,
        shard: str | None,
        stage: str,
        seed: int,
    ) -> Course:
        """Read the arguments of :func:`rank`.

        Raises:
            ConfigurationError: for one that cannot be, or two that contradict each other.
        """
        wanted, part = wanted_columns(scores.split(",") if isinstance(scores, str) else scores), Shard.parse(shard)
        source = None if reference is None else reference_at(Path(reference))
        asked, seconds = estimator_for(wanted, estimator), None if budget is None else parse_budget(budget)
        return cls(wanted, source, asked, seconds, part, stage == "reference", seed)

    @property
    def reference_file(self) -> Path | None:
        """File of another ranking's reference."""
        return self.source if isinstance(self.source, Path) else None

    @property
    def compares(self) -> bool:
        """True where anything is compared with a reference."""
        return self.reference_alone or self.wanted.volumes or self.wanted.needs("reference")

    @property
    def scores(self) -> list[str] | None:
        """Columns that were asked for, in plain types; ``None`` where none were named."""
        return list(self.wanted.names) if self.wanted.explicit else None

    @property
    def ends_with_table(self) -> bool:
        """True where all images are ranked."""
        return not self.reference_alone and self.shard.of == 1


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
