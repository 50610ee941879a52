"""Isolation: training finds all as it was, modes, buffers and random-number generators, after an error too."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


@contextmanager
def isolated(module: nn.Module) -> Generator[None, None, None]:
    """Run a block in eval mode without gradients, and put modes, buffers and generators back."""
    with random_state_kept(), evaluating(module), buffers_kept(module), torch.no_grad():
        yield


@contextmanager
def evaluating(module: nn.Module) -> Generator[None, None, None]:
    """Put every submodule in eval mode, and afterwards each in the mode it was in.

    The flags alone: an ``eval`` of the user's own may merge weights, say, which setting the mode back would not undo.
    """
    training = [(submodule, submodule.training) for submodule in module.modules()]
    try:
        for submodule, _ in training:
            submodule.training = False
        yield
    finally:
        for submodule, was_training in training:
            submodule.training = was_training


@contextmanager
def buffers_kept(module: nn.Module) -> Generator[None, None, None]:
    """Put back buffers that a forward pass changes or replaces although it is in eval mode (counters, queues)."""
    kept = [
        (submodule, name, buffer, buffer.detach().clone() if _is_plain(buffer) else None)
        for submodule in module.modules()
        for name, buffer in submodule.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for submodule, name, buffer, value in kept:
                if value is not None and not (buffer.shape == value.shape and torch.equal(buffer, value)):
                    buffer.resize_(value.shape).copy_(value)
                if getattr(submodule, name, None) is not buffer:
                    setattr(submodule, name, buffer)


def _is_plain(buffer: Tensor) -> bool:
    """Return false for a buffer that is sparse or still without a shape."""
    return buffer.layout == torch.strided and not is_lazy(buffer)


@contextmanager
def random_state_kept() -> Generator[None, None, None]:
    """Keep the state of all generators, those of CUDA devices in use included; inside, the CPU ones start at 0.

    A dataset that augments at random then gives the same samples at each measurement and on every process. Lightning's
    ``isolate_rng`` puts nothing back after an exception.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        random.seed(0)
        np.random.seed(0)
        torch.default_generator.manual_seed(0)  # not torch.manual_seed, which would seed other devices too
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
