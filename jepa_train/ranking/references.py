"""The reference of a ranking: embeddings of the images that are typical by definition, and what is fitted to them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jepa_monitor.density import (
    EmbeddingReference,
    GaussianDensity,
    Subspace,
    gram_and_embedding,
)
from jepa_monitor.density.strategies import Encode
from jepa_monitor.ranking import Mahalanobis
from jepa_monitor.runtime.concise import Concise
from jepa_train.checkpoints.files import CORRUPTED, is_whole_archive, written_whole
from jepa_train.errors import ConfigurationError, counted

MOST = 20_000  # embeddings
FEWEST_DIFFERENT = 12  # embeddings, below which there is no intrinsic dimension
CALIBRATION, FEWEST_CALIBRATION = 16, 8  # images whose exact Jacobians a subspace is fitted to
COLLAPSED = 1e-10  # variance as a share of the mean square
TYPICAL, FEWEST_TRIMMED, CONCENTRATIONS = 0.9, 100, 3
FORMAT = 1


@dataclass(frozen=True, repr=False)
class RankingReference(Concise):
    """Reference embeddings, and what is fitted to them.

    Attributes:
        z: (M, K) float64, finite.
        indices: (M,) index of the image of each, ascending.
        images: identity of the listing that they belong to.
        encoder: identity of the encoder.
        source: where the images are from, for the summary.
        density: density and rank, in the embedding's own coordinates; ``None`` where all embeddings are equal, or two.
        mahalanobis: one Gaussian with a shrunk covariance; ``None`` where there is none.
        subspace: rows of volumes; ``None`` for exact ones.
    """

    z: Tensor
    indices: NDArray[np.int64]
    images: str
    encoder: str
    source: str
    density: EmbeddingReference | None
    mahalanobis: Mahalanobis | None
    subspace: Subspace | None = None

    def to(self, device: torch.device) -> RankingReference:
        """Copy to another device."""
        subspace, gaussian = self.subspace, self.mahalanobis
        if subspace is not None:
            subspace = replace(subspace, reference=subspace.reference.to(device), shared=subspace.shared.to(device))
        if gaussian is not None:
            gaussian = replace(gaussian, mean=gaussian.mean.to(device), factor=gaussian.factor.to(device))
        density = None if self.density is None else self.density.to(device)
        return replace(self, z=self.z.to(device), density=density, mahalanobis=gaussian, subspace=subspace)

    def places(self, indices: NDArray[np.int64], images: str) -> NDArray[np.int64]:
        """Place among the reference of each image of a listing, -1 where it is none of it."""
        if images != self.images or not len(self.indices):
            return np.full(len(indices), -1, dtype=np.int64)
        places = np.searchsorted(self.indices, indices).clip(max=len(self.indices) - 1)
        return np.where(self.indices[places] == indices, places, -1)


def draw(count: int, seed: int) -> NDArray[np.int64]:
    """Indices of the reference among ``count`` images, ascending: all, or a random 20,000."""
    drawn = np.random.default_rng(seed).choice(count, min(count, MOST), replace=False)
    return np.sort(drawn).astype(np.int64)


def fit_reference(
    z: NDArray[np.float32], indices: NDArray[np.int64], *, images: str, encoder: str, source: str, trim: bool = False
) -> RankingReference:
    """Fit to the finite of the embeddings (M, K) of images.

    Args:
        z, indices, images, encoder, source: see :class:`RankingReference`.
        trim: nobody looked the images through: fit to those that :func:`typical` marks.

    Raises:
        ConfigurationError: if fewer than two are finite.
    """
    finite = np.isfinite(z).all(1)
    if finite.sum() < 2:
        fewest = "a ranking compares at least 2: give more images, or a --reference to compare with"
        raise ConfigurationError(
            f"only {int(finite.sum())} of {counted(len(z), 'image')} of {source} could be read and have a finite "
            f"embedding, and {fewest if trim else 'a --reference needs at least 2: give a folder with more'}."
        )
    kept = typical(z) if trim else finite
    rows = torch.from_numpy(z[kept].astype(np.float64))
    gaussian = _mahalanobis(rows)
    density = None if is_collapsed(rows) else _density(rows, gaussian)
    return RankingReference(rows, indices[kept], images, encoder, source, density, gaussian)


def typical(z: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mark the embeddings (M, K) that images which nobody looked through are compared with: nine tenths of the finite.

    Faults that have something in common would make a dense place of their own, and look typical there. So the tenth
    that lies farthest from the rest is left out: by a Gaussian with a shrunk covariance, fitted three times to those
    that the last one left in (the concentration steps of Rousseeuw and Van Driessen 1999). Fewer than 100 are all kept.
    """
    finite = np.asarray(np.isfinite(z).all(1))
    rows = torch.from_numpy(z[finite].astype(np.float64))
    if len(rows) < FEWEST_TRIMMED or is_collapsed(rows):
        return finite
    kept = torch.ones(len(rows), dtype=torch.bool)
    for _ in range(CONCENTRATIONS):
        gaussian = _mahalanobis(rows[kept])
        if gaussian is None:  # those that are left are equal
            return finite
        distances = torch.linalg.solve_triangular(gaussian.factor, (rows - gaussian.mean).T, upper=False).norm(dim=0)
        kept = distances <= distances.quantile(TYPICAL)
    finite[finite] = kept.numpy()
    return finite


def is_collapsed(z: Tensor) -> bool:
    """Tell whether embeddings (M, K) are one point up to rounding."""
    return not float((z - z.mean(0)).square().sum()) > COLLAPSED * float(z.square().sum())


def _density(z: Tensor, gaussian: Mahalanobis | None) -> EmbeddingReference | None:
    if len(torch.unique(z, dim=0)) >= FEWEST_DIFFERENT:
        return EmbeddingReference.fit(z)
    if gaussian is None:
        return None
    # too few for neighbours: one Gaussian with the shrunk covariance
    variances, axes = torch.linalg.eigh(gaussian.factor @ gaussian.factor.T)
    shrunk = GaussianDensity(gaussian.mean, (axes / variances.sqrt()).T.contiguous())
    return EmbeddingReference(shrunk, rank=shrunk.size, embeddings=z, choice=shrunk)


def _mahalanobis(z: Tensor) -> Mahalanobis | None:
    try:
        return Mahalanobis.fit(z)
    except ValueError:  # the summary says that there is none
        return None


def calibration_places(reference: RankingReference) -> NDArray[np.int64]:
    """Places, spread over the reference, of the images that a subspace is calibrated on."""
    count = min(CALIBRATION, len(reference.z))
    places: NDArray[np.int64] = np.linspace(0, len(reference.z) - 1, count).round().astype(np.int64)
    return places


def calibrated(reference: RankingReference, encode: Encode, x: Tensor) -> RankingReference:
    """Fit the rows of volumes to the exact Jacobians of a few images (N, C, H, W), on their device."""
    assert reference.density is not None
    gram, z = gram_and_embedding(encode, x)
    subspace = Subspace.calibrate(gram, z, reference.density.rank, reference=reference.z.to(x.device))
    return replace(reference, subspace=replace(subspace, reference=reference.z, shared=subspace.shared.cpu()))


def write_reference(path: Path, reference: RankingReference) -> None:
    """Write a reference whole: embeddings and plain values, from which :func:`read_reference` fits the rest again."""
    subspace = reference.subspace
    content = {
        "format": FORMAT,
        "embeddings": reference.z.float(),
        "indices": torch.from_numpy(reference.indices),
        "images": reference.images,
        "encoder": reference.encoder,
        "source": reference.source,
        "subspace": None
        if subspace is None
        else {
            "rank": subspace.rank,
            "directions": subspace.directions,
            "shared": subspace.shared,
            "held_out_spearman": subspace.held_out_spearman,
        },
    }
    with written_whole(path) as file:
        torch.save(content, file)


def read_reference(path: Path, encoder: str) -> RankingReference:
    """Read a reference, and fit to its embeddings what is not in the file.

    Args:
        path: ``reference.pt`` of a ranking.
        encoder: identity of the encoder that is in use.

    Raises:
        ConfigurationError: if it cannot be read, or is of another encoder.
    """
    content = _content(path, encoder)
    z, indices = content["embeddings"].numpy(), content["indices"].numpy()
    origin = {name: content[name] for name in ("images", "encoder", "source")}
    reference = fit_reference(z, indices, **origin)
    kept = content["subspace"]
    if kept is None or reference.density is None:
        return reference
    return replace(reference, subspace=Subspace(reference=reference.z, **kept))


def check_reference(path: Path, encoder: str) -> None:
    """See that a file is a reference, made by this encoder.

    Raises:
        ConfigurationError: as :func:`read_reference` does.
    """
    _content(path, encoder)


def has_subspace(path: Path, encoder: str) -> bool:
    """Tell whether a reference has rows of volumes, calibrated by Jacobians.

    Raises:
        ConfigurationError: as :func:`read_reference` does.
    """
    return _content(path, encoder)["subspace"] is not None


def _content(path: Path, encoder: str) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True) if is_whole_archive(path) else None
    except CORRUPTED:
        content = None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ConfigurationError(
            f"{path} is damaged, or not a reference of this version: --reference takes a folder of images, "
            "or reference.pt of an earlier ranking."
        )
    if content["encoder"] != encoder:
        raise ConfigurationError(
            f"{path} was made with another encoder, or other settings of it: make it again with this one "
            "(--stage reference)."
        )
    return content


def file_identity(path: Path) -> str:
    """Identify a file by its content: sha256, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
