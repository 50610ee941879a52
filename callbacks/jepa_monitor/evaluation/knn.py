"""The nearest-neighbour vote that self-supervised encoders are compared by (arXiv 1805.01978)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 2048


def weighted_knn(queries: Tensor, bank: Tensor, labels: Tensor, *, k: int = 20, temperature: float = 0.07) -> Tensor:
    """Labels by a vote of the nearest neighbours in cosine similarity, weighted by exp(similarity / temperature).

    Both sets are centred on the bank's mean first: without it, features that share an offset all look alike.

    Args:
        queries: (Q, D).
        bank: (B, D).
        labels: (B,) of the bank, from 0.
        k: neighbours; all of them in a smaller bank.
        temperature: of the weights.

    Returns:
        (Q,) labels.
    """
    mean = bank.mean(0)
    bank = F.normalize(bank - mean, dim=1)
    votes = []
    for part in queries.split(CHUNK):
        similarity, neighbours = (F.normalize(part - mean, dim=1) @ bank.T).topk(min(k, len(bank)), dim=1)
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        tally = weight.new_zeros(len(part), int(labels.max()) + 1)
        votes.append(tally.scatter_add_(1, labels[neighbours], weight).argmax(1))
    return torch.cat(votes)
