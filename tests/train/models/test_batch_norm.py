"""Batch norm over processes: torch's own on one of them, and the joined batch on several, for any number of axes."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from jepa_train.errors import ConfigurationError
from jepa_train.models import batch_norm
from jepa_train.models.batch_norm import GlobalBatchNorm, GlobalBatchNorm1d, GlobalBatchNorm2d, join_statistics

KINDS = [
    (GlobalBatchNorm1d, nn.BatchNorm1d, (5, 3)),
    (GlobalBatchNorm1d, nn.BatchNorm1d, (5, 3, 4)),
    (GlobalBatchNorm2d, nn.BatchNorm2d, (2, 3, 4, 5)),
    (batch_norm.GlobalBatchNormAct2d, BatchNormAct2d, (2, 3, 4, 5)),
]


@pytest.mark.parametrize("in_group", [False, True], ids=["alone", "in a group"])
@pytest.mark.parametrize(("ours", "theirs", "shape"), KINDS, ids=str)
@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0, None])
@pytest.mark.parametrize("settings", [{}, {"affine": False}, {"track_running_stats": False}, {"eps": 0.1}], ids=str)
def test_it_is_torchs_own_with_all_of_its_settings(
    ours: type[GlobalBatchNorm],
    theirs: type[nn.Module],
    shape: tuple[int, ...],
    momentum: float | None,
    settings: dict[str, Any],
    in_group: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A group of one, here without any, makes it take its own way to the statistics."""
    monkeypatch.setattr(batch_norm, "in_group", lambda: in_group)
    norms = [kind(3, momentum=momentum, **settings).double() for kind in (ours, theirs)]
    for norm in norms:
        for parameter in norm.parameters():
            nn.init.constant_(parameter, 0.7)
    for seed in range(3):
        batch = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2 + 1
        values = [batch.clone().requires_grad_() for _ in range(2)]
        outputs = [norm(value) for norm, value in zip(norms, values, strict=True)]
        for output in outputs:
            output.pow(3).sum().backward()
        torch.testing.assert_close(*outputs)
        torch.testing.assert_close(values[0].grad, values[1].grad)
        torch.testing.assert_close(norms[0].state_dict(), norms[1].state_dict())
    torch.testing.assert_close(norms[0].eval()(batch), norms[1].eval()(batch))


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_a_network_keeps_names_weights_and_output(name: str) -> None:
    network = timm.create_model(name, num_classes=0)
    images = torch.randn(4, 3, 32, 32)
    expected, names = network(images), list(network.state_dict())
    weights = [id(parameter) for parameter in network.parameters()]
    join_statistics(network)
    assert not any(type(part) in batch_norm.KINDS for part in network.modules())
    assert list(network.state_dict()) == names
    assert [id(parameter) for parameter in network.parameters()] == weights
    torch.testing.assert_close(network(images), expected)


def test_a_norm_without_counterpart_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the encoder has a SyncBatchNorm, whose"):
        join_statistics(nn.Sequential(nn.SyncBatchNorm(3)))


@pytest.mark.parametrize(("norm", "shape"), [(GlobalBatchNorm1d(3), (1, 3)), (GlobalBatchNorm2d(3), (1, 3, 1, 1))])
def test_one_value_has_no_statistics(norm: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="raise the batch size"):
        norm(torch.ones(shape))
