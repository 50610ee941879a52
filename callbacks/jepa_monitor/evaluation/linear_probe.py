"""Multinomial logistic regression on frozen features: fitted when asked, with one answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from ..runtime.concise import Concise

# a standard deviation below this share of the column's largest value is rounding of float32 features
SMALLEST_SPREAD = 1e-6

Array = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class LinearProbe(Concise):
    """A fitted classifier: argmax over classes of ((x - mean) / scale) @ weight.T + bias.

    Attributes:
        weight: (C, D) of the standardised features.
        bias: (C,).
        mean, scale: (D,) of the features it was fitted to; the scale of a column without spread is 1.
        converged: did the gradient vanish before the iterations were used up?
        iterations: that were used.
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
            labels: (B,) from 0; there are as many classes as the largest + 1.
            ridge: weight of the penalty; scikit-learn's C is 1 / (ridge * B).
            max_iterations: of L-BFGS.
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
