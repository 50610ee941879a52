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
        queries and bank, (Q, D) and (B, D), in float64; where D > B, (Q, B + 1) and (B, B + 1) with the same lengths,
        inner products and distances between a query and a bank sample: the bank has no extent along the other
        directions, so that one number is enough for what a query has there, its length.
    """
    mean = bank.double().mean(0)
    from_mean, of_bank = queries.double() - mean, bank.double() - mean
    variances, axes = _principal_axes(of_bank)
    floor = ridge * variances.sum() / bank.shape[1]
    scaled_axes = axes / (variances + floor).sqrt()
    white_queries, white_bank = from_mean @ scaled_axes, of_bank @ scaled_axes
    if bank.shape[1] <= len(bank):
        return white_queries, white_bank
    outside = (from_mean - from_mean @ axes @ axes.T).norm(dim=1, keepdim=True) / floor.sqrt()
    return torch.cat([white_queries, outside], dim=1), torch.nn.functional.pad(white_bank, (0, 1))


def principal(queries: Tensor, bank: Tensor, *, components: int) -> tuple[Tensor, Tensor]:
    """Both sets in the bank's first principal components, (Q, C) and (B, C); as they are where D is no larger.

    Where B < C, there are B of them.
    """
    if bank.shape[1] <= components:
        return queries, bank
    mean = bank.double().mean(0)
    axes = _principal_axes(bank.double() - mean)[1][:, -components:]
    return (queries.double() - mean) @ axes, (bank.double() - mean) @ axes


def _principal_axes(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Variances (R,), from the smallest, and axes (D, R) of B centred samples, (B, D); R is the smaller of B and D."""
    count, width = centred.shape
    if width <= count:
        variances, axes = torch.linalg.eigh(torch.cov(centred.T).reshape(width, width))
        return variances.clamp_min(0.0), axes
    # a covariance (D, D) would be mostly directions without variance, at the price of D cubed
    _, deviations, rows = torch.linalg.svd(centred, full_matrices=False)
    return deviations.flip(0).square() / (count - 1), rows.flip(0).T
