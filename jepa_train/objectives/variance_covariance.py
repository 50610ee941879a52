"""Variance and covariance terms of VICReg (arXiv 2105.04906); its invariance term is the prediction loss."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_train.global_batch import at_least_float32, centred, joined_count, joined_product
from jepa_train.objectives.term import Anticollapse


def vicreg(z: Tensor, *, variance_weight: float = 25.0, covariance_weight: float = 1.0, eps: float = 1e-4) -> Tensor:
    """Hinge on the standard deviations plus squared off-diagonal covariances, of the batch joined over processes.

    variance: mean_k max(0, 1 - sqrt(Var z_k + eps)); covariance: sum_{j != k} C_jk^2 / K, both with n - 1.

    Args:
        z: (B, K) embeddings of this process.
        variance_weight, covariance_weight: weights of the two terms; the paper's 25 and 1.
        eps: keeps the square root's gradient finite at zero variance.

    Returns:
        scalar, 0 for uncorrelated coordinates of unit variance or more.

    Raises:
        ConfigurationError: with fewer than two samples over all processes.
    """
    with torch.autocast(z.device.type, enabled=False):
        z = at_least_float32(z)
        count = joined_count(z, "VICReg")
        z = centred(z, count)
        covariance = joined_product(z, z) / (count - 1)
        variances = covariance.diagonal()
        variance_loss = torch.relu(1.0 - (variances + eps).sqrt()).mean()
        off_diagonal = (covariance - torch.diag(variances)).square().sum()
        return variance_weight * variance_loss + covariance_weight * off_diagonal / z.shape[1]


class VICReg(Anticollapse):
    """:func:`vicreg` of both views, with its weights as attributes.

    As in the published code the variance term is averaged over the views and the covariance term is summed; the paper's
    equation 6 sums both.
    """

    def __init__(self, variance_weight: float = 25.0, covariance_weight: float = 1.0) -> None:
        super().__init__()
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight

    def forward(self, first: Tensor, second: Tensor, seed: int) -> Tensor:
        """(B, K) and (B, K) -> scalar loss; nothing is drawn from the seed."""
        return self._of_one_view(first) + self._of_one_view(second)

    def _of_one_view(self, z: Tensor) -> Tensor:
        return vicreg(z, variance_weight=0.5 * self.variance_weight, covariance_weight=self.covariance_weight)
