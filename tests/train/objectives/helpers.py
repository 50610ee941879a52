"""Embeddings for the tests of objectives."""

from __future__ import annotations

import torch
from torch import Tensor


def two_views(count: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two (count, size) float64 views of the same samples: alike, correlated, off the origin, of different scales."""
    generator = torch.Generator().manual_seed(seed)
    shared, *noises = torch.randn(3, count, size, dtype=torch.float64, generator=generator)
    mixing = torch.randn(size, size, dtype=torch.float64, generator=generator) + torch.eye(size, dtype=torch.float64)
    first, second = ((shared + 0.4 * noise) @ mixing + 0.3 for noise in noises)
    return first, second


def unit_directions(size: int, count: int, seed: int = 0) -> Tensor:
    """(size, count) float64 unit vectors."""
    directions = torch.randn(size, count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return directions / directions.norm(dim=0)


def rotation(size: int, seed: int) -> Tensor:
    """(size, size) float64 orthogonal matrix."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator)).Q
