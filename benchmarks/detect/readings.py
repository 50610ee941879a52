"""Readings of encoders: embeddings, spectra of Jacobians, and sizes of pictures, taken once for all methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from detect.pictures import Pictures
from detect.sets import Counts, Drawn
from jepa_monitor.density import (
    GaussianDensity,
    Subspace,
    gram_and_embedding,
    intrinsic_dimension,
    jepa_score,
    leading_volume,
    log_singular_values,
)
from jepa_monitor.density.subspace import CALIBRATION_SAMPLES
from jepa_monitor.ranking import compressed_size
from jepa_train.checkpoints.files import written_whole
from jepa_train.errors import ConfigurationError
from jepa_train.ranking import ImageEncoder
from jepa_train.ranking.preparation import PicturePreparation

Volumes = Literal["exact", "subspace"]
Preparation = Literal["timm", "openood"]
A_PASS = 100  # images
SMALLEST_CROP = 0.7  # of the area, of a view


@dataclass(frozen=True)
class Settings:
    """Choices that a reading depends on, beside encoder and pictures.

    Attributes:
        counts: number of pictures.
        volumes: ``exact`` keeps whole spectra; ``subspace`` keeps the volume of the r largest directions alone.
        views: number of views of a picture, for Eq. 4.
        viewed: pictures of each set, from the first, of which there are views.
        preparation: preparation of pictures, see :func:`prepared`.
        measured: pictures of each set, from the first, that get a Jacobian; ``None`` is all.
    """

    counts: Counts = field(default_factory=Counts)
    volumes: Volumes = "exact"
    views: int = 4
    viewed: int = 64
    preparation: Preparation = "timm"
    measured: int | None = None


@dataclass(frozen=True)
class Samples:
    """N pictures as an encoder sees them.

    Attributes:
        z: (N, K) embeddings.
        size: (N,) bytes after compression.
        volume: (n,) log volume of the r largest directions of the first n, nats.
        spectrum: (n, K) log singular values, largest first; (n, 0) where they were not measured.
        white: (n, L) the same in coordinates in which the reference is white.
        views: (V, T) Eq. 5 of T views of each of the first V pictures; (0, T) where there are none.
    """

    z: Tensor
    size: Tensor
    volume: Tensor
    spectrum: Tensor
    white: Tensor
    views: Tensor

    def take(self, places: slice) -> Samples:
        """The pictures at some places."""
        return Samples(**{own.name: getattr(self, own.name)[places] for own in fields(self)})


@dataclass(frozen=True)
class Reading:
    """All that methods are fitted to, and score.

    Attributes:
        reference: (M, K) embeddings.
        labels: (M,) of the reference, -1 where there is none.
        rank: r, the intrinsic dimension of the reference.
        calibration: further pictures of the distribution.
        sets: what is scored, by name.
    """

    reference: Tensor
    labels: Tensor
    rank: int
    calibration: Samples
    sets: Mapping[str, Samples]

    def save(self, path: Path, settings: Settings) -> None:
        """Write whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            torch.save({"settings": asdict(settings), **_plain(self)}, file)

    @classmethod
    def load(cls, path: Path, settings: Settings, names: Iterable[str]) -> Reading:
        """Load what :meth:`save` wrote.

        Raises:
            ConfigurationError: if it was read with other settings, or other sets.
        """
        kept = torch.load(path, weights_only=True)
        if kept.pop("settings") != asdict(settings) or list(kept["sets"]) != list(names):
            raise ConfigurationError(f"{path} was read with other settings or sets: remove it, or give the same.")
        sets = {name: Samples(**values) for name, values in kept.pop("sets").items()}
        return cls(**kept | {"calibration": Samples(**kept["calibration"]), "sets": sets})


def _plain(record: Reading | Samples) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for own in fields(record):
        value = getattr(record, own.name)
        if isinstance(value, Mapping):
            value = {name: _plain(samples) for name, samples in value.items()}
        found[own.name] = _plain(value) if isinstance(value, Samples) else value
    return found


def prepared(encoder: ImageEncoder, preparation: Preparation) -> PicturePreparation:
    """Preparation of pictures: the encoder's own, or OpenOOD's for ImageNet.

    OpenOOD resizes the short side to 256, bilinear, and crops the centre of 224; mean and deviation are the encoder's.

    Raises:
        ConfigurationError: if the encoder is code with a preparation of its own, or takes images of another size.
    """
    if not isinstance(encoder.prepare, PicturePreparation):
        raise ConfigurationError(f"{encoder.name} prepares pictures by code of its own: state a data_config instead.")
    if preparation == "timm":
        return encoder.prepare
    if list(encoder.preparation["input_size"]) != [3, 224, 224]:
        raise ConfigurationError(f"OpenOOD's preparation makes 224 px: {encoder.name} must be loaded with that size.")
    changes = {"interpolation": "bilinear", "crop_pct": 224 / 256, "crop_mode": "center"}
    return PicturePreparation({**encoder.preparation, **changes}, background=encoder.prepare.background)


@dataclass(frozen=True)
class Reader:
    """Reads pictures with one encoder.

    Attributes:
        encode: (B, C, H, W) -> (B, K).
        prepare: pictures become its input.
        device: where it is.
        settings: choices.
    """

    encode: Callable[[Tensor], Tensor]
    prepare: PicturePreparation
    device: torch.device
    settings: Settings

    def read(self, drawn: Drawn, report: Callable[[str], None] = lambda name: None) -> Reading:
        """Read a benchmark; ``report`` gets the name of each set that was read.

        Raises:
            ConfigurationError: if the reference has fewer than 2 K pictures.
        """
        z, labels = self._embed(drawn.reference)
        if len(z) < 2 * z.shape[1]:
            raise ConfigurationError(
                f"{len(z)} reference images are too few for covariances of {z.shape[1]} coordinates: use at least "
                f"{2 * z.shape[1]} (--reference)."
            )
        rank, whitener = intrinsic_dimension(z).rank, GaussianDensity.fit(z).whitener.to(self.device)
        subspace = None
        if self.settings.volumes == "subspace":
            few, _ = self._inputs(drawn.calibration, 0, CALIBRATION_SAMPLES)
            subspace = Subspace.fit(self.encode, few, rank, reference=z.to(self.device))
        calibration = self._measure(drawn.calibration, rank, whitener, subspace, viewed=0)
        report("calibration")
        sets = {}
        for name, pictures in drawn.sets.items():
            viewed = self.settings.viewed if len(pictures) >= self.settings.counts.scored else 0
            sets[name] = self._measure(pictures, rank, whitener, subspace, viewed=viewed)
            report(name)
        return Reading(z, labels, rank, calibration, sets)

    def _inputs(self, pictures: Pictures, start: int, count: int) -> tuple[Tensor, list[Image.Image]]:
        found = [pictures[index][0] for index in range(start, min(start + count, len(pictures)))]
        return torch.stack([self.prepare(picture) for picture in found]).to(self.device), found

    @torch.no_grad()
    def _embed(self, pictures: Pictures) -> tuple[Tensor, Tensor]:
        z, labels = [], []
        for start in range(0, len(pictures), A_PASS):
            part = [pictures[index] for index in range(start, min(start + A_PASS, len(pictures)))]
            z.append(self.encode(torch.stack([self.prepare(picture) for picture, _ in part]).to(self.device)).cpu())
            labels += [label for _, label in part]
        return torch.cat(z), torch.tensor(labels)

    def _measure(
        self, pictures: Pictures, rank: int, whitener: Tensor, subspace: Subspace | None, *, viewed: int
    ) -> Samples:
        most = len(pictures) if self.settings.measured is None else min(self.settings.measured, len(pictures))
        measured = pictures.take(range(most))
        parts = [
            self._measured(*self._inputs(measured, start, A_PASS), rank, whitener, subspace)
            for start in range(0, most, A_PASS)
        ]
        parts += [self._seen(*self._inputs(pictures, start, A_PASS)) for start in range(most, len(pictures), A_PASS)]
        joined = {name: torch.cat([part[name] for part in parts if name in part]) for name in parts[0]}
        return Samples(**joined, views=self._views(pictures, viewed if subspace is None else 0))

    def _seen(self, x: Tensor, pictures: list[Image.Image]) -> dict[str, Tensor]:
        """Embeddings and sizes of pictures that get no Jacobian."""
        with torch.no_grad():
            z = self.encode(x).cpu()
        pixels = torch.stack([self.prepare.pixels(picture) for picture in pictures])
        return {"size": torch.from_numpy(compressed_size(pixels, low=0.0, high=255.0)), "z": z}

    def _measured(
        self, x: Tensor, pictures: list[Image.Image], rank: int, whitener: Tensor, subspace: Subspace | None
    ) -> dict[str, Tensor]:
        pixels = torch.stack([self.prepare.pixels(picture) for picture in pictures])
        found = {"size": torch.from_numpy(compressed_size(pixels, low=0.0, high=255.0))}
        if subspace is not None:
            with torch.no_grad():
                z = self.encode(x)
            nothing = torch.empty(len(x), 0, dtype=torch.float64)
            found |= {"z": z, "volume": subspace.log_volume(self.encode, x), "spectrum": nothing, "white": nothing}
        else:
            gram, z = gram_and_embedding(self.encode, x)
            spectrum = log_singular_values(gram)
            white = log_singular_values(whitener @ gram @ whitener.T)
            found |= {"z": z, "volume": leading_volume(spectrum, rank), "spectrum": spectrum, "white": white}
        return {name: value.detach().cpu() for name, value in found.items()}

    def _views(self, pictures: Pictures, viewed: int) -> Tensor:
        """Eq. 5 of views: random crops of at least 0.7 of the area, resized."""
        count = self.settings.views
        if not viewed or not count:
            return torch.empty(0, count, dtype=torch.float64)
        x, _ = self._inputs(pictures, 0, viewed)
        crop = v2.RandomResizedCrop(tuple(x.shape[-2:]), scale=(SMALLEST_CROP, 1.0), antialias=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            drawn = torch.stack([crop(one) for one in x for _ in range(count)])
        scores = torch.cat([jepa_score(self.encode, part) for part in drawn.split(A_PASS)])
        return scores.view(-1, count).cpu()
