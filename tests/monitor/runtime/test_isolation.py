"""The state that a measurement touches is put back, after an error too."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jepa_monitor.runtime.isolation import evaluating, isolated


class Counting(nn.Module):
    """Changes its buffers in eval mode as well, one in place and one by another."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("queue", torch.arange(3.0))
        self.calls: Tensor
        self.queue: Tensor
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1.0
        self.queue = self.queue.roll(1)
        return self.norm(x)


def everything(module: Counting) -> list[object]:
    buffers = {name: (id(buffer), buffer.tolist()) for name, buffer in module.named_buffers()}
    modes = [part.training for part in module.modules()]
    generators = [random.random(), float(np.random.rand()), float(torch.rand(()))]
    return [buffers, modes, generators]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("inference", [False, True])
def test_buffers_modes_and_generators_are_put_back(fails: bool, inference: bool) -> None:
    module = Counting().train()
    module.norm.eval()
    found = []
    for measured in (False, True):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        if measured:
            try:
                with torch.inference_mode(inference), isolated(module):
                    assert not module.training
                    assert not torch.is_grad_enabled()
                    module(torch.rand(4, 2))
                    random.random(), np.random.rand()
                    if fails:
                        raise RuntimeError
            except RuntimeError:
                assert fails
        found.append(everything(module))
    assert found[0] == found[1]


def test_without_the_remedy_it_differs() -> None:
    module = Counting().train()
    before = everything(module)
    module(torch.rand(4, 2))
    assert everything(module)[0] != before[0]


def test_an_eval_of_the_users_own_is_not_called() -> None:
    class Merging(nn.Linear):
        merged = False

        def train(self, mode: bool = True) -> Merging:
            self.merged = not mode
            return super().train(mode)

    module = Merging(2, 2)
    with isolated(module):
        assert not module.training
    assert module.training
    assert not module.merged


def test_buffers_of_any_kind_are_left_alone() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("sparse", torch.eye(2).to_sparse())
            self.register_buffer("lazy", nn.UninitializedBuffer())
            self.register_buffer("grows", torch.zeros(2))
            self.grows: Tensor

    module = Odd()
    with isolated(module):
        module.grows.resize_(3).fill_(1.0)
    assert module.grows.tolist() == [0.0, 0.0]


def test_augmentation_draws_the_same_each_time() -> None:
    drawn = []
    for _ in range(2):
        with isolated(nn.Identity()):
            drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
    assert drawn[0] == drawn[1]


def test_evaluating_puts_each_mode_back_even_after_an_error() -> None:
    project = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    project[1].eval()

    def fail() -> None:
        with evaluating(project):
            assert not any(module.training for module in project.modules())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert project.training
    assert not project[1].training
    assert project[2].training
