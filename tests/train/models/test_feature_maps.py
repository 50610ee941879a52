"""Encoders of other families: tokens of maps, batch norm over processes, what is trained, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from jepa_train.errors import ConfigurationError
from jepa_train.models.batch_norm import GlobalBatchNorm
from jepa_train.models.feature_maps import FeatureEncoder

SWIN = "swin_tiny_patch4_window7_224"
SMALL_SWIN: dict[str, Any] = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
EVA: dict[str, Any] = {"depth": 1, "embed_dim": 24, "num_heads": 2}


@pytest.mark.parametrize(
    ("name", "overrides", "places", "width"),
    [
        ("test_resnet", {}, 1, 96),
        ("test_convnext", {}, 1, 64),
        (SWIN, SMALL_SWIN, 1, 128),
        ("eva02_tiny_patch14_224", EVA, 4, 24),
        ("mixer_s32_224", {}, 1, 512),
    ],
)
def test_the_mean_of_the_tokens_is_that_of_timms_features(
    name: str, overrides: dict[str, Any], places: int, width: int
) -> None:
    encoder = FeatureEncoder(name, image_size=32, channels=1, overrides=overrides).eval()
    images = torch.randn(2, 1, 32, 32)
    tokens = encoder(images)
    assert tokens.shape == (2, places, width)
    assert encoder.width == width
    model = encoder.network
    assert model is not None
    by_timm = eval(encoder.mean_in_timm)  # the line of the model card
    torch.testing.assert_close(tokens.mean(1), by_timm)


def test_what_forward_features_does_not_reach_is_not_trained() -> None:
    encoder = FeatureEncoder("test_convnext", image_size=32, channels=1)
    frozen = [name for name, parameter in encoder.network.named_parameters() if not parameter.requires_grad]
    assert frozen == ["head.norm.weight", "head.norm.bias"]
    encoder(torch.randn(2, 1, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters() if parameter.requires_grad)


def test_building_it_draws_what_timm_draws() -> None:
    states = []
    for sizes in ([], [16]):
        torch.manual_seed(0)
        FeatureEncoder("test_resnet", image_size=32, sizes=sizes)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_its_batch_norms_are_over_the_joined_batch() -> None:
    network = FeatureEncoder("test_resnet", image_size=32).network
    norms = [part for part in network.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(isinstance(norm, GlobalBatchNorm) for norm in norms)


def test_gradient_checkpointing_changes_no_number() -> None:
    gradients = []
    for gradient_checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = FeatureEncoder("test_convnext", image_size=32, gradient_checkpointing=gradient_checkpointing)
        images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        weights = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        gradients.append(torch.autograd.grad(encoder(images).square().sum(), weights))
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overrides": {"nonsense": 1}}, "timm refuses an argument in encoder_overrides"),
        ({"overrides": {"features_only": True}}, "encoder_overrides cannot set features_only"),
        ({"gradient_checkpointing": True}, "set gradient_checkpointing to false"),
        ({"name": "coat_tiny"}, "returns neither maps nor tokens of 152 channels"),
        ({"name": SWIN, "sizes": [24], "overrides": SMALL_SWIN}, "cannot be the encoder of images of 24 px"),
    ],
)
def test_refusals(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        FeatureEncoder(**{"name": "test_resnet", "image_size": 32, **settings})
