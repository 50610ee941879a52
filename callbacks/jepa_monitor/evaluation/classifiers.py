"""Classifiers of frozen features, and the coordinates in which they see more than a few directions.

They are written out although scikit-learn has both. On one CPU thread the vote is faster here, and the regression as
fast or faster for the same optimum (``benchmarks/solvers.py``); the vote runs on the device of the features, and the
regression treats two classes as it treats more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F

from ..density.neighbours import largest_products
from ..gaussianity.cloud import principal_axes
from ..runtime.concise import Concise

# a standard deviation below this share of the column's largest value is rounding of float32 features
SMALLEST_SPREAD = 1e-6

Array = NDArray[np.float64]


def weighted_knn(queries: Tensor, bank: Tensor, labels: Tensor, *, k: int = 20, temperature: float = 0.07) -> Tensor:
    """Labels by a vote of the nearest neighbours in cosine similarity, weighted by exp(similarity / temperature).

    Both sets are centred on the bank's mean first: without it, features that share an offset all look alike.

    Args:
        queries: (Q, D).
        bank: (B, D).
        labels: (B,) classes of the bank, from 0.
        k: number of neighbours that vote; all of them in a smaller bank.
        temperature: fall in similarity that divides a weight by e.

    Returns:
        (Q,) labels.
    """
    mean = bank.mean(0)
    bank = F.normalize(bank - mean, dim=1)
    votes = []
    for part, similarity, neighbours in largest_products(F.normalize(queries - mean, dim=1), bank, min(k, len(bank))):
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        tally = weight.new_zeros(len(part), int(labels.max()) + 1)
        votes.append(tally.scatter_add_(1, labels[neighbours], weight).argmax(1))
    return torch.cat(votes)


@dataclass(frozen=True, repr=False)
class LinearProbe(Concise):
    """A fitted classifier: argmax over classes of ((x - mean) / scale) @ weight.T + bias.

    Attributes:
        weight: (C, D) of the standardised features.
        bias: (C,).
        mean, scale: (D,) of the features it was fitted to; the scale of a column without spread is 1.
        converged: the gradient vanished before the iterations were used up.
        iterations: number of iterations used.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    converged: bool
    iterations: int

    @classmethod
    def fit(
        cls, features: Tensor, labels: Tensor, *, ridge: float = 1e-3, max_iterations: int = 1_000, tol: float = 1e-5
    ) -> LinearProbe:
        """Minimise mean cross-entropy + ridge / 2 * sum of squared weights, by full-batch L-BFGS in float64.

        The problem is strictly convex in the weights, so that the answer depends on features and labels alone: not on
        a seed, an order of batches, a learning rate or on what was measured before.

        Args:
            features: (B, D).
            labels: (B,) classes from 0; there are as many classes as the largest + 1.
            ridge: weight of the penalty; scikit-learn's C is 1 / (ridge * B).
            max_iterations: most iterations of L-BFGS.
            tol: largest entry of the gradient at which it stops.
        """
        x = features.detach().cpu().double()
        mean, spread = x.mean(0), x.std(0, correction=0)
        scale = torch.where(spread > SMALLEST_SPREAD * x.abs().amax(0), spread, 1.0)
        standardised = ((x - mean) / scale).numpy()
        classes = int(labels.max()) + 1
        objective = _Objective(standardised, labels.cpu().numpy(), classes, ridge)
        result = minimize(
            objective,
            np.zeros(classes * (x.shape[1] + 1)),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": max_iterations, "maxfun": 2 * max_iterations, "gtol": tol, "ftol": 0.0, "maxcor": 20},
        )
        solution = torch.from_numpy(result.x).reshape(classes, -1)
        converged = bool(np.abs(result.jac).max() <= tol)
        return cls(solution[:, :-1], solution[:, -1], mean, scale, converged, int(result.nit))

    def predict(self, features: Tensor) -> Tensor:
        """(Q, D) -> (Q,) labels, on the CPU."""
        standardised = (features.cpu().double() - self.mean) / self.scale
        return (standardised @ self.weight.T + self.bias).argmax(1)


@dataclass(frozen=True)
class _Objective:
    """Value and gradient; the parameters are (C, D + 1), the bias last."""

    x: Array
    labels: NDArray[np.int64]
    classes: int
    ridge: float

    def __call__(self, flat: Any) -> tuple[float, Array]:
        parameters = flat.reshape(self.classes, -1)
        weight, bias = parameters[:, :-1], parameters[:, -1]
        # classes first: sums over them run along memory
        logits = weight @ self.x.T
        logits += bias[:, None]
        logits -= logits.max(0)
        samples = np.arange(len(self.labels))
        chosen = logits[self.labels, samples]
        probability = np.exp(logits, out=logits)
        total = probability.sum(0)
        value = (np.log(total) - chosen).mean() + 0.5 * self.ridge * np.square(weight).sum()
        probability /= total
        probability[self.labels, samples] -= 1.0
        probability /= len(samples)
        gradient = np.empty_like(parameters)
        gradient[:, :-1] = probability @ self.x + self.ridge * weight
        gradient[:, -1] = probability.sum(1)
        return float(value), gradient.ravel()


def whiten(queries: Tensor, bank: Tensor, *, ridge: float = 1e-4) -> tuple[Tensor, Tensor]:
    """Both sets in the coordinates in which the bank is white.

    Pooled tokens vary hundreds of times more along some directions than along others; distances would see the first
    few alone.

    Args:
        queries: (Q, D).
        bank: (B, D), at least two.
        ridge: added to every variance, as a share of the mean variance: keeps directions without any from blowing up.

    Returns:
        queries and bank, (Q, D) and (B, D), in float64; where D > B, (Q, B + 1) and (B, B + 1) with the same lengths,
        inner products and distances between a query and a bank sample: the bank has no extent along the other
        directions, so that one number is enough for what a query has there, its length.
    """
    mean = bank.double().mean(0)
    from_mean, of_bank = queries.double() - mean, bank.double() - mean
    variances, axes = principal_axes(of_bank)
    floor = ridge * variances.sum() / bank.shape[1]
    scaled_axes = axes / (variances + floor).sqrt()
    white_queries, white_bank = from_mean @ scaled_axes, of_bank @ scaled_axes
    if bank.shape[1] <= len(bank):
        return white_queries, white_bank
    outside = (from_mean - from_mean @ axes @ axes.T).norm(dim=1, keepdim=True) / floor.sqrt()
    return torch.cat([white_queries, outside], dim=1), F.pad(white_bank, (0, 1))


def principal(queries: Tensor, bank: Tensor, *, components: int) -> tuple[Tensor, Tensor]:
    """Both sets in the bank's first principal components, (Q, C) and (B, C); as they are where D is no larger.

    Where B < C, there are B of them.
    """
    if bank.shape[1] <= components:
        return queries, bank
    mean = bank.double().mean(0)
    axes = principal_axes(bank.double() - mean)[1][:, -components:]
    return (queries.double() - mean) @ axes, (bank.double() - mean) @ axes
