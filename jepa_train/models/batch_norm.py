"""Batch normalisation whose training statistics are those of the batch joined over all processes, on any backend.

Shape letters: B samples, C channels.
"""

from __future__ import annotations

from typing import cast

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from jepa_monitor.runtime.distributed import in_group
from jepa_train.errors import ConfigurationError
from jepa_train.global_batch import at_least_float32, global_count, sum_over_processes


class GlobalBatchNorm(_BatchNorm):
    """Batch norm of any number of axes, over the batch joined over all processes.

    ``nn.SyncBatchNorm`` refuses CPU tensors, so a gloo run could not be equal to a one-process run. Whether there are
    other processes is asked at each call; where there are none, the kernel is torch's own.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C, ...); needs two values a channel or more over all processes when training."""
        if not self.training:
            return super().forward(input)
        own_count = input.numel() // input.shape[1]
        if not in_group():
            if own_count < 2:
                raise _too_few()
            return super().forward(input)
        return self.finish(self._normalised(at_least_float32(input), own_count).to(input.dtype))

    def finish(self, normalised: Tensor) -> Tensor:
        """Whatever follows the norm within the same module; nothing here."""
        return normalised

    def _normalised(self, values: Tensor, own_count: int) -> Tensor:
        axes = [axis for axis in range(values.ndim) if axis != 1]
        along = [-1 if axis == 1 else 1 for axis in range(values.ndim)]  # (C,) becomes (1, C, 1, ...)
        count = global_count(own_count, like=values)
        # a process with enough values of its own does not read the count: an accelerator would have to wait for it
        if own_count < 2 and count < 2:
            raise _too_few()
        mean = sum_over_processes(values.sum(axes)) / count
        centred = values - mean.view(along)
        variance = sum_over_processes(centred.square().sum(axes)) / count
        if self.track_running_stats:
            self._update_running_statistics(mean.detach(), variance.detach() * count / (count - 1))
        normalised = centred * torch.rsqrt(variance + self.eps).view(along)
        if self.weight is not None:
            normalised = normalised * self.weight.view(along)
        if self.bias is not None:
            normalised = normalised + self.bias.view(along)
        return normalised

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


class GlobalBatchNorm1d(GlobalBatchNorm, nn.BatchNorm1d):
    """``BatchNorm1d`` over the joined batch."""


class GlobalBatchNorm2d(GlobalBatchNorm, nn.BatchNorm2d):
    """``BatchNorm2d`` over the joined batch."""


class GlobalBatchNormAct2d(GlobalBatchNorm, BatchNormAct2d):
    """timm's ``BatchNormAct2d``, a norm with its activation, over the joined batch."""

    def finish(self, normalised: Tensor) -> Tensor:
        """Dropout, if there is any, and activation."""
        return cast("Tensor", self.act(self.drop(normalised)))


KINDS: dict[type[nn.Module], type[GlobalBatchNorm]] = {
    nn.BatchNorm1d: GlobalBatchNorm1d,
    nn.BatchNorm2d: GlobalBatchNorm2d,
    BatchNormAct2d: GlobalBatchNormAct2d,
}


def join_statistics(network: nn.Module) -> None:
    """Replace every batch norm of a network by one over the joined batch, with the same weights and names.

    Raises:
        ConfigurationError: for a kind of batch norm that has no such counterpart.
    """
    for parent in list(network.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, _BatchNorm):
                parent.register_module(name, _joined(norm))


def has_batch_norm(network: nn.Module) -> bool:
    """Return true if a network normalises over the batch."""
    return any(isinstance(part, _BatchNorm) for part in network.modules())


def _joined(norm: _BatchNorm) -> GlobalBatchNorm:
    kind = KINDS.get(type(norm))
    if kind is None:
        raise ConfigurationError(
            f"the encoder has a {type(norm).__name__}, whose statistics cannot be joined over processes: choose "
            "another encoder."
        )
    ours = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    for name, parameter in norm.named_parameters(recurse=False):
        ours.register_parameter(name, parameter)
    for name, buffer in norm.named_buffers(recurse=False):
        ours.register_buffer(name, buffer)
    for name, part in norm.named_children():
        ours.register_module(name, part)
    return ours.train(norm.training)


def _too_few() -> ConfigurationError:
    return ConfigurationError("batch norm needs at least 2 samples per training batch: raise the batch size.")


def reestimates_statistics(module: nn.Module) -> bool:
    """True while running statistics are plain averages over the batches since their reset.

    ``torch.optim.swa_utils.update_bn`` and ``StochasticWeightAveraging`` set this for a pass over the training data in
    which the averaged weights stand still.
    """
    return any(isinstance(part, GlobalBatchNorm) and part.momentum is None for part in module.modules())
