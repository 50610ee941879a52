"""Rankings by an encoder: with the density that its embeddings have, with N(0, I), and with one part alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_monitor.density import EmbeddingReference
from jepa_monitor.density.neighbours import nearest
from jepa_monitor.density.volume import leading_volume, log_singular_values
from jepa_monitor.gaussianity import sliced_epps_pulley, sliced_epps_pulley_null
from jepa_monitor.ranking import auroc, spearman
from study.readings import Reading, Samples

DENSITIES = ("own", "gaussian")  # that of the embeddings, and the one the theorem assumes


@dataclass(frozen=True)
class Parts:
    """Both summands of log p(x), each (N,) in nats.

    Attributes:
        density: log density of the embedding.
        volume: log volume of the r largest directions of the Jacobian.
    """

    density: Tensor
    volume: Tensor

    @property
    def both(self) -> Tensor:
        """log p(x), up to a constant."""
        return self.density + self.volume


@dataclass(frozen=True)
class Scratch:
    """Stands in for the library's until that has landed."""

    reference: Tensor
    white: EmbeddingReference | None
    rank: int

    @classmethod
    def fit(cls, reference: Tensor, density: str) -> Scratch:
        index = torch.arange(len(reference))
        d, _ = nearest(reference, reference, 20, own=index)
        logs = d.clamp_min(1e-12).log()
        inverse = (logs[:, -1:] - logs[:, :-1]).sum(1) / 18
        rank = max(1, min(reference.shape[1], round(float(1 / inverse.mean()))))
        return cls(reference, EmbeddingReference.fit(reference) if density == "gaussian" else None, rank)

    def log_density(self, z: Tensor) -> Tensor:
        if self.white is not None:
            return self.white.log_density(self.white.whiten(z))
        return -self.rank * nearest(z, self.reference, 20)[0][:, -1].log()

    def parts(self, samples: Samples) -> Parts:
        if self.white is not None:
            r = min(self.rank, len(self.white.whitener))
            values = self.white.log_singular_values(samples.gram)
            return Parts(self.white.log_density(self.white.whiten(samples.z)), leading_volume(values, r))
        d, _ = nearest(samples.z, self.reference, 20)
        return Parts(-self.rank * d[:, -1].log(), leading_volume(log_singular_values(samples.gram), self.rank))


def fitted(reference: Tensor, density: str) -> Scratch:
    """Fit a density of ``DENSITIES`` to reference embeddings."""
    return Scratch.fit(reference, density)


def ranking(reading: Reading) -> dict[str, float]:
    """Rank correlations with the true log density, the dimension r, and how Gaussian the embeddings are."""
    assert reading.truth is not None
    values: dict[str, float] = {}
    for name in DENSITIES:
        model = fitted(reading.reference, name)
        parts = model.parts(reading.probe)
        values[name] = spearman(parts.both, reading.truth)
        values[f"{name} density alone"] = spearman(parts.density, reading.truth)
        values[f"{name} volume alone"] = spearman(parts.volume, reading.truth)
        values["rank"] = model.rank
    values["Eq. 5"] = spearman(log_singular_values(reading.probe.gram).sum(1), reading.truth)
    return values | {"Gaussianity": gaussianity(reading.reference), "norm spread": norm_spread(reading.reference)}


def detection(reading: Reading) -> dict[str, dict[str, float]]:
    """AUROC of the probe against each other set, by set: of both parts together and of each alone."""
    found: dict[str, dict[str, float]] = {name: {} for name in reading.sets}
    for density in DENSITIES:
        model = fitted(reading.reference, density)
        inside = model.parts(reading.probe)
        for name, samples in reading.sets.items():
            outside = model.parts(samples)
            found[name] |= {
                density: auroc(inside.both, outside.both),
                f"{density} density alone": auroc(inside.density, outside.density),
                f"{density} volume alone": auroc(inside.volume, outside.volume),
            }
    return found


def gaussianity(z: Tensor) -> float:
    """Sliced Epps-Pulley statistic over its value for N(0, I): 1 is Gaussian, more is less so."""
    return float(sliced_epps_pulley(z).mean()) / sliced_epps_pulley_null(*z.shape)


def norm_spread(z: Tensor) -> float:
    """Standard deviation of the norm of whitened embeddings over its mean: 0 where all lie on one sphere."""
    norms = EmbeddingReference.fit(z).whiten(z).norm(dim=1)
    return float(norms.std() / norms.mean())


def norm_spread_of_gaussian(size: int) -> float:
    """The same of N(0, I) in ``size`` dimensions."""
    mean = math.sqrt(2.0) * math.exp(math.lgamma((size + 1) / 2) - math.lgamma(size / 2))
    return math.sqrt(size - mean**2) / mean
