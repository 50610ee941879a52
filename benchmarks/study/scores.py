"""Rankings by an encoder: with the density that its embeddings have, with N(0, I), and with one part alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_monitor.density.densities import GaussianDensity
from jepa_monitor.density.intrinsic import intrinsic_dimension
from jepa_monitor.density.manifold import ManifoldDensity
from jepa_monitor.density.volume import leading_volume, log_singular_values
from jepa_monitor.gaussianity import sliced_epps_pulley, sliced_epps_pulley_null
from jepa_monitor.ranking import auroc, spearman
from study.readings import Reading, Samples

SMALLEST_DEVIATION = 1e-5  # of the largest


@dataclass(frozen=True)
class Parts:
    """Both summands of log p(x), each (N,) in nats.

    Attributes:
        density: log density of the embedding.
        volume: log volume of the largest directions of the Jacobian.
    """

    density: Tensor
    volume: Tensor

    @property
    def both(self) -> Tensor:
        """log p(x), up to a constant."""
        return self.density + self.volume


@dataclass(frozen=True)
class Model:
    """A density fitted to reference embeddings, and the number of directions of its volume.

    Attributes:
        log_density: log density (N,) of embeddings (N, K).
        log_singular_values: log singular values (N, L), largest first, from Gram matrices (N, K, K).
        rank: number of leading directions that the volume counts.
    """

    log_density: Callable[[Tensor], Tensor]
    log_singular_values: Callable[[Tensor], Tensor]
    rank: int

    def parts(self, samples: Samples) -> Parts:
        """Return log density and log volume."""
        volume = leading_volume(self.log_singular_values(samples.gram), self.rank)
        return Parts(self.log_density(samples.z), volume)


def fitted(reference: Tensor) -> dict[str, Model]:
    """Fit the density that reference embeddings (M, K) have, with the volume of r directions, and N(0, I), with all."""
    rank = intrinsic_dimension(reference).rank
    own, gaussian = ManifoldDensity.fit(reference, dimension=rank), GaussianDensity.fit(reference)
    whitener = gaussian.whitener

    def white_log_singular_values(gram: Tensor) -> Tensor:
        return log_singular_values(whitener @ gram @ whitener.T)

    return {
        "own": Model(own.log_density, log_singular_values, rank),
        "gaussian": Model(gaussian.log_density, white_log_singular_values, len(whitener)),
    }


def ranking(reading: Reading) -> dict[str, float]:
    """Rank correlations with the true log density, the dimension r, and how Gaussian the embeddings are."""
    assert reading.truth is not None
    values: dict[str, float] = {}
    for name, model in fitted(reading.reference).items():
        parts = model.parts(reading.probe)
        values[name] = spearman(parts.both, reading.truth)
        values[f"{name} density alone"] = spearman(parts.density, reading.truth)
        values[f"{name} volume alone"] = spearman(parts.volume, reading.truth)
        if name == "own":
            values["rank"] = model.rank
    values["Eq. 5"] = spearman(log_singular_values(reading.probe.gram).sum(1), reading.truth)
    return values | {"Gaussianity": gaussianity(reading.reference), "norm spread": norm_spread(reading.reference)}


def detection(reading: Reading) -> dict[str, dict[str, float]]:
    """AUROC of the probe against each other set, by set: of both parts together and of each alone."""
    found: dict[str, dict[str, float]] = {name: {} for name in reading.sets}
    for density, model in fitted(reading.reference).items():
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
    centred = z.double() - z.double().mean(0)
    axes, deviations, _ = torch.linalg.svd(centred, full_matrices=False)
    norms = axes[:, deviations > SMALLEST_DEVIATION * deviations[0]].norm(dim=1)
    return float(norms.std() / norms.mean())


def norm_spread_of_gaussian(size: int) -> float:
    """The same of N(0, I) in ``size`` dimensions."""
    mean = math.sqrt(2.0) * math.exp(math.lgamma((size + 1) / 2) - math.lgamma(size / 2))
    return math.sqrt(size - mean**2) / mean
