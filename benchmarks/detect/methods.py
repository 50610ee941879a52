"""Methods of detection, one record each: all are fitted to the same pictures, and score the same others.

A score is higher where a picture is more typical.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from detect.readings import Reading, Samples
from jepa_monitor.density import (
    EmbeddingReference,
    FlowDensity,
    aggregate_views,
    leading_volume,
)
from jepa_monitor.ranking import Mahalanobis, NearestNeighbours, typicality

Score = Callable[[Samples], Tensor]
Needs = Literal["nothing", "volume", "spectrum", "views"]
REFERENCE, CALIBRATION, NOTHING = "reference", "calibration", "nothing"
DEFAULT = "log_density"
DENSITY_ALONE, MAHALANOBIS, KNN = "manifold alone", "Mahalanobis", "kNN"


@dataclass(frozen=True)
class Fitted:
    """Densities of one reading, each fitted when it is first asked for."""

    reading: Reading

    @property
    def calibration(self) -> Samples:
        """Pictures that Gaussians over few statistics are fitted to: the first half of those that calibrate."""
        return self.reading.calibration.take(slice(len(self.reading.calibration.z) // 2))

    @property
    def usual(self) -> Samples:
        """Pictures whose median score is the usual one: the others."""
        return self.reading.calibration.take(slice(len(self.reading.calibration.z) // 2, None))

    @cached_property
    def manifold(self) -> EmbeddingReference:
        """The default of :func:`jepa_monitor.log_density`."""
        return EmbeddingReference.fit(self.reading.reference)

    @cached_property
    def neighbours(self) -> EmbeddingReference:
        """Nearest neighbours in r dimensions."""
        return self.manifold.refit(density="neighbours")

    @cached_property
    def gaussian(self) -> EmbeddingReference:
        """N(0, I) of white coordinates, all directions."""
        return self.manifold.refit(density="gaussian")

    @cached_property
    def mixture(self) -> EmbeddingReference:
        """Gaussians with full covariances."""
        return self.manifold.refit(density="mixture")

    @cached_property
    def flow(self) -> EmbeddingReference:
        """Neural spline flow."""
        return self.manifold.refit(density=FlowDensity.fit(self.reading.reference))

    def density(self, name: str, samples: Samples) -> Tensor:
        """Log density of embeddings alone, (N,) nats."""
        reference: EmbeddingReference = getattr(self, name)
        return reference.log_density(reference.coordinates(samples.z))

    def with_volume(self, name: str, samples: Samples) -> Tensor:
        """Log density of pictures up to a constant: that of embeddings, and the volume of its directions."""
        reference: EmbeddingReference = getattr(self, name)
        spectrum = samples.spectrum if reference.gaussian is None else samples.white
        volume = leading_volume(spectrum, reference.rank) if spectrum.shape[1] else samples.volume
        return self.density(name, samples)[: len(volume)] + volume


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: name in tables.
        fitted_to: pictures that it is fitted to: ``reference``, ``calibration`` or ``nothing``.
        fit: makes the score.
        needs: measurements that it takes beside embeddings.
    """

    name: str
    fitted_to: str
    fit: Callable[[Fitted], Score]
    needs: Needs = "nothing"

    def applies(self, reading: Reading) -> bool:
        """Tell whether the reading has what the method needs."""
        of = reading.calibration if self.needs != "views" else reading.sets["inside"]
        return self.needs == "nothing" or bool(getattr(of, self.needs).numel())


def two_sided(method: Method) -> Method:
    """Distance of a score from its median over pictures that nothing was fitted to, with the sign changed."""

    def fit(fitted: Fitted) -> Score:
        score = method.fit(fitted)
        usual = score(fitted.usual)
        return lambda samples: torch.from_numpy(typicality(score(samples), usual))

    return Method(f"{method.name}, two-sided", CALIBRATION, fit, method.needs)


def spectrum_statistics(samples: Samples) -> Tensor:
    """Sum of log sigma, log Frobenius norm, spectral entropy and log effective count of a Jacobian: (N, 4) nats.

    With p_k the share of sigma_k^2 in their sum, the entropy is -sum p log p and the count 1 / sum p^2.
    """
    doubled = 2.0 * samples.spectrum
    log_share = doubled.log_softmax(1)
    entropy = -(log_share.exp() * log_share).sum(1)
    count = -(2.0 * log_share).logsumexp(1)
    return torch.stack([samples.spectrum.sum(1), 0.5 * doubled.logsumexp(1), entropy, count], dim=1)


def _spectrum_gaussian(fitted: Fitted) -> Score:
    gaussian = Mahalanobis.fit(_standardised(fitted, fitted.calibration))
    return lambda samples: gaussian.score(_standardised(fitted, samples))


def _standardised(fitted: Fitted, samples: Samples) -> Tensor:
    """Statistics in units of their deviation: shrinkage is towards equal variances."""
    usual = spectrum_statistics(fitted.calibration)
    return (spectrum_statistics(samples) - usual.mean(0)) / usual.std(0)


def _mahalanobis(fitted: Fitted) -> Score:
    gaussian = Mahalanobis.fit(fitted.reading.reference)
    return lambda samples: gaussian.score(samples.z)


def _neighbours(fitted: Fitted) -> Score:
    neighbours = NearestNeighbours.fit(fitted.reading.reference)
    return lambda samples: neighbours.score(samples.z)


def _mahalanobis_by_class(fitted: Fitted) -> Score:
    """Distance to the nearest class mean, by the covariance that all classes share (Lee et al. 2018)."""
    z, labels = fitted.reading.reference.double(), fitted.reading.labels
    means = {int(label): z[labels == label].mean(0) for label in labels.unique()}
    gaussian = Mahalanobis.fit(z - torch.stack([means[int(label)] for label in labels]))
    return lambda samples: torch.stack([gaussian.score(samples.z - mean) for mean in means.values()]).amax(0)


def _density(name: str) -> Callable[[Fitted], Score]:
    return lambda fitted: lambda samples: fitted.density(name, samples)


def _with_volume(name: str) -> Callable[[Fitted], Score]:
    return lambda fitted: lambda samples: fitted.with_volume(name, samples)


def _of(score: Score) -> Callable[[Fitted], Score]:
    return lambda fitted: score


LOG_DENSITY = Method(DEFAULT, REFERENCE, _with_volume("manifold"), "volume")
EQUATION_5 = Method("Eq. 5", NOTHING, _of(lambda samples: samples.spectrum.sum(1)), "spectrum")
SPECTRUM = Method("spectrum Gaussian", CALIBRATION, _spectrum_gaussian, "spectrum")
SIZE = Method("compressed size", NOTHING, _of(lambda samples: -samples.size))
OF_OBJECTIVES = (DEFAULT, "log_density, gaussian", "Eq. 5", DENSITY_ALONE, MAHALANOBIS, KNN, "compressed size")
BY_CLASS = Method("Mahalanobis by class", f"{REFERENCE}, labels", _mahalanobis_by_class)
FLOWS = (
    Method("log_density, flow", REFERENCE, _with_volume("flow"), "spectrum"),
    Method("flow alone", REFERENCE, _density("flow")),
)
METHODS = (
    LOG_DENSITY,
    Method("log_density, neighbours", REFERENCE, _with_volume("neighbours"), "volume"),
    Method("log_density, mixture", REFERENCE, _with_volume("mixture"), "spectrum"),
    Method("log_density, gaussian", REFERENCE, _with_volume("gaussian"), "spectrum"),
    two_sided(LOG_DENSITY),
    EQUATION_5,
    two_sided(EQUATION_5),
    Method("Eq. 4", NOTHING, _of(lambda samples: aggregate_views(samples.views, 1)), "views"),
    Method("volume alone", NOTHING, _of(lambda samples: samples.volume), "volume"),
    SPECTRUM,
    two_sided(SPECTRUM),
    Method(DENSITY_ALONE, REFERENCE, _density("manifold")),
    Method("neighbours alone", REFERENCE, _density("neighbours")),
    Method("mixture alone", REFERENCE, _density("mixture")),
    Method(MAHALANOBIS, REFERENCE, _mahalanobis),
    Method(KNN, REFERENCE, _neighbours),
    SIZE,
    two_sided(SIZE),
    BY_CLASS,
    *FLOWS,
)


def scores(reading: Reading, methods: tuple[Method, ...] = METHODS) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the name of each method that applies and its scores of every set; what is not installed is left out."""
    fitted = Fitted(reading)
    labelled = bool((reading.labels >= 0).all()) and len(reading.labels.unique()) > 1
    for method in methods:
        if not method.applies(reading) or (method is BY_CLASS and not labelled):
            continue
        try:
            score = method.fit(fitted)
            found = {name: score(samples) for name, samples in reading.sets.items()}
        except (ImportError, ValueError) as error:  # not installed, or embeddings that no density can be fitted to
            print(f"left out: {method.name} ({error})", flush=True)
            continue
        yield method.name, found
