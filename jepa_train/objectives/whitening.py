"""W-MSE (arXiv 2007.06346): two views agree after each has been whitened, which a collapsed cloud cannot be."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from jepa_train.global_batch import at_least_float32, centred, joined_count, joined_product, mean_over_processes
from jepa_train.objectives.term import Anticollapse, check_paired

NAME = "W-MSE"
FLOOR = 1e-12  # variance that is added even where all variances are zero, so that Cholesky's factor exists
RIDGE = 1e-9  # as little as double precision needs; the paper has none
SHORTEST = 1e-3  # whitened samples have a length around sqrt(K); shorter ones, at a collapse, are not stretched to 1


def whitening_mse(first: Tensor, second: Tensor, *, ridge: float = RIDGE) -> Tensor:
    """Mean over samples of ||u / |u| - v / |v| ||^2, u and v the whitened views.

    Each view is whitened by itself: u = L^-1 (z - mean), where L L^T = covariance + ridge * (mean variance) * I, with
    the mean and the covariance of the joined batch, in double precision. The ridge is a share of the variance, so the
    scale of the embeddings does not count as long as it is far above 1e-6, the root of what is added at zero variance.

    A ridge that can be seen invites a collapse: directions with less variance than it are not whitened, so shrinking
    one in which the views disagree lowers the loss. With 1e-3 embeddings kept one live direction.

    Args:
        first, second: (B, K) two views of the samples of this process.
        ridge: share of the mean variance; it bounds the condition number of what is factored, and at its default
            changes nothing but rounding.

    Returns:
        scalar in [0, 4]: 0 for views that are equal after whitening, 2 for unrelated ones; NaN where a covariance is
        not finite.

    Raises:
        ConfigurationError: with K samples or fewer over all processes, whose whitening is the same simplex whatever
            they are, or views of different shapes.
    """
    check_paired(first, second, NAME)
    with torch.autocast(first.device.type, enabled=False):
        like = at_least_float32(first)
        first, second = _doubled(first), _doubled(second)
        because = ", one more than the embedding has coordinates"
        count = joined_count(first, NAME, at_least=max(2, first.shape[1] + 1), because=because)
        first, second = _whitened(first, count, ridge), _whitened(second, count, ridge)
        return mean_over_processes((_directions(first) - _directions(second)).square().sum(1)).to(like)


class WhiteningMSE(Anticollapse):
    """:func:`whitening_mse` with its ridge as an attribute."""

    paired = True

    def __init__(self, ridge: float = RIDGE) -> None:
        super().__init__()
        self.ridge = ridge

    def forward(self, first: Tensor, second: Tensor, seed: int) -> Tensor:
        """(B, K) and (B, K) -> scalar loss; nothing is drawn from the seed."""
        return whitening_mse(first, second, ridge=self.ridge)


def _doubled(z: Tensor) -> Tensor:
    return (z.cpu() if z.device.type == "mps" else z).double()  # MPS has no float64


def _whitened(z: Tensor, count: Tensor, ridge: float) -> Tensor:
    z = centred(z, count)
    covariance = joined_product(z, z) / (count - 1)
    loading = (ridge * covariance.diagonal().mean() + FLOOR).expand(len(covariance))
    # cholesky would make an accelerator wait for its check; here what could not be factored becomes NaN, and is seen
    factor, failed = torch.linalg.cholesky_ex(covariance + torch.diag(loading))
    factor = factor.masked_fill(failed != 0, torch.nan)
    white: Tensor = torch.linalg.solve_triangular(factor, z.T, upper=False).T
    return white


def _directions(white: Tensor) -> Tensor:
    return F.normalize(white, dim=1, eps=SHORTEST)
