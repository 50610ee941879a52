"""Choosing what is measured, and leaving it as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jepa_monitor.encoding import pool_embedding, resolve_encoder
from jepa_monitor.isolation import evaluating


class Project(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def test_choices() -> None:
    project, x = Project().eval(), torch.randn(5, 4)
    encode, description = resolve_encoder(project, None, "auto")
    assert torch.equal(encode(x), project.backbone(x))
    assert description == "backbone (Sequential)"
    encode, _ = resolve_encoder(project, "backbone.0", "auto")
    assert torch.equal(encode(x), project.backbone[0](x))
    encode, _ = resolve_encoder(project, lambda module, inputs: module.head(module.backbone(inputs)), "auto")
    assert torch.equal(encode(x), project(x))
    encode, description = resolve_encoder(nn.Linear(4, 2), None, "auto")
    assert encode(x).shape == (5, 2)
    assert description == "forward (Linear)"


def test_an_unknown_path_names_what_there_is() -> None:
    with pytest.raises(ValueError, match="submodules are: backbone, head"):
        resolve_encoder(Project(), "bakbone", "auto")


def test_pooling() -> None:
    tokens, maps = torch.randn(2, 5, 3), torch.randn(2, 3, 4, 4)
    assert torch.equal(pool_embedding(tokens, "auto"), tokens.mean(1))
    assert torch.equal(pool_embedding(tokens, "cls"), tokens[:, 0])
    assert pool_embedding(tokens, "flatten").shape == (2, 15)
    assert torch.equal(pool_embedding((maps, None), "mean"), maps.mean((2, 3)))
    assert torch.equal(pool_embedding(maps, lambda output: output[:, :, 0, 0]), maps[:, :, 0, 0])
    with pytest.raises(ValueError, match="pass pool="):
        pool_embedding(maps, "cls")
    with pytest.raises(ValueError, match="dict"):
        pool_embedding({}, "auto")


def test_evaluating_puts_each_mode_back_even_after_an_error() -> None:
    project = Project().train()
    project.backbone[1].eval()

    def fail() -> None:
        with evaluating(project):
            assert not any(module.training for module in project.modules())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert project.training
    assert not project.backbone[1].training
    assert project.backbone[2].training
