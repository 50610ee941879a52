"""Coordinates in which a bank of features is white, however few samples it has."""

from __future__ import annotations

import torch
from torch import Tensor


def whiten(queries: Tensor, bank: Tensor, *, ridge: float = 1e-4) -> tuple[Tensor, Tensor]:
    """Both sets in the coordinates in which the bank is white.

    Pooled tokens vary hundreds of times more along some directions than along others; distances would see the first
    few alone.

    Args:
        queries: (Q, D).
        bank: (B, D), at least two.
        ridge: added to every variance, as a share of the mean variance: keeps directions without any from blowing up.

    Returns:
        queries and bank, (Q, D) and (B, D), in float64.
    """
    mean = bank.double().mean(0)
    covariance = torch.cov(bank.double().T).reshape(bank.shape[1], bank.shape[1])
    variances, axes = torch.linalg.eigh(covariance)
    scaled_axes = axes / (variances.clamp_min(0.0) + ridge * variances.mean()).sqrt()
    return (queries.double() - mean) @ scaled_axes, (bank.double() - mean) @ scaled_axes


def principal(queries: Tensor, bank: Tensor, *, components: int) -> tuple[Tensor, Tensor]:
    """Both sets in the bank's first principal components, (Q, C) and (B, C); as they are where D is no larger."""
    if bank.shape[1] <= components:
        return queries, bank
    mean = bank.double().mean(0)
    axes = torch.linalg.eigh(torch.cov(bank.double().T))[1][:, -components:]
    return (queries.double() - mean) @ axes, (bank.double() - mean) @ axes
