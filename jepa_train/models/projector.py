"""The projector from tokens to the embedding, and its batch normalisation over the global batch, on any backend."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from jepa_train.errors import ConfigurationError
from jepa_train.global_batch import at_least_float32, global_count, sum_over_processes


class Projector(nn.Module):
    """Maps the mean token to the embedding z that is predicted, kept from collapsing, and scored.

    Batch norm in the hidden layers keeps SIGReg from stalling with a single live direction; with several processes
    its statistics are those of the global batch.

    Args:
        width: D, channels of a token.
        hidden: width of the two hidden layers; 0 makes the projector one linear map.
        embedding_size: K.
        batch_norm: normalise the hidden layers over the batch.
    """

    def __init__(self, width: int, *, hidden: int, embedding_size: int, batch_norm: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2 if hidden else 0):
            layers.append(nn.Linear(width, hidden, bias=not batch_norm))
            if batch_norm:
                layers.append(GlobalBatchNorm1d(hidden))
            layers.append(nn.GELU())
            width = hidden
        layers.append(nn.Linear(width, embedding_size))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) mean tokens -> (B, K) embeddings."""
        return cast("Tensor", self.layers(features))


class GlobalBatchNorm1d(nn.BatchNorm1d):
    """``BatchNorm1d`` whose training statistics are those of the batch joined over all processes.

    ``nn.SyncBatchNorm`` refuses CPU tensors, so a gloo run could not be equal to a one-process run.
    Whether there are other processes is asked at each call, so no conversion step can be forgotten.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, F) -> (B, F); needs two samples or more over all processes when training."""
        if not self.training:
            return super().forward(input)
        values = at_least_float32(input)
        count = global_count(len(values), like=values)
        # a process with enough samples of its own does not read the count: an accelerator would have to wait for it
        if len(values) < 2 and count < 2:
            raise ConfigurationError("batch norm needs at least 2 samples per training batch: raise the batch size.")
        mean = sum_over_processes(values.sum(0)) / count
        centred = values - mean
        variance = sum_over_processes(centred.square().sum(0)) / count
        if self.track_running_stats:
            self._update_running_statistics(mean.detach(), variance.detach() * count / (count - 1))
        normalised = centred * torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            normalised = normalised * self.weight
        if self.bias is not None:
            normalised = normalised + self.bias
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _update_running_statistics(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        for running, batch in ((self.running_mean, mean), (self.running_var, unbiased_variance)):
            # without a momentum every batch counts alike; the counter stays on its device, where nobody waits for it
            share = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.to(running.dtype)
            running.lerp_(batch.to(running.dtype), share)


def reestimates_statistics(module: nn.Module) -> bool:
    """True while running statistics are plain averages over the batches since their reset.

    ``torch.optim.swa_utils.update_bn`` and ``StochasticWeightAveraging`` set this for a pass over the training data in
    which the averaged weights stand still.
    """
    return any(isinstance(part, GlobalBatchNorm1d) and part.momentum is None for part in module.modules())
