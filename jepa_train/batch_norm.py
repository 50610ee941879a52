"""Batch normalisation over the global batch, on any backend."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_train.distributed import global_count, sum_over_processes
from jepa_train.errors import ConfigurationError
from jepa_train.precision import at_least_float32


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
        # a process with enough samples of its own does not look at the count: an accelerator would have to wait for it
        if len(values) < 2 and count < 2:
            raise ConfigurationError("batch norm needs at least 2 samples per training batch: raise the batch size.")
        mean = sum_over_processes(values.sum(0)) / count
        centred = values - mean
        variance = sum_over_processes(centred.square().sum(0)) / count
        self._update_running_statistics(mean.detach(), variance.detach() * count / (count - 1))
        normalised = centred * torch.rsqrt(variance + self.eps)
        return (normalised * self.weight + self.bias).to(input.dtype)

    @torch.no_grad()
    def _update_running_statistics(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased_variance.to(self.running_var.dtype), self.momentum)
