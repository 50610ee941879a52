"""The encoder against timm, and the arguments it refuses."""

from __future__ import annotations

import pytest
import timm
import torch

from jepa_train.encoder import Projector, ViTEncoder, gather_tokens
from jepa_train.errors import ConfigurationError

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}


def make(name: str = "vit_tiny_patch16_224", overrides: dict[str, int] | None = None) -> ViTEncoder:
    return ViTEncoder(name, image_size=32, patch_size=8, overrides=overrides or SMALL).eval()


def test_full_tokens_are_bitwise_timms() -> None:
    encoder, images = make(), torch.randn(2, 3, 32, 32)
    assert torch.equal(encoder(images), encoder.vit.forward_features(images))
    assert encoder.grid_size == (4, 4)
    assert encoder.width == 32


@pytest.mark.parametrize("registers", [0, 3])
def test_visible_tokens_do_not_see_the_others(registers: int) -> None:
    encoder = make(overrides=SMALL | {"reg_tokens": registers})
    images, visible = torch.randn(2, 3, 32, 32), torch.tensor([[0, 1, 4], [2, 9, 15]])
    tokens = encoder(images, visible)
    assert tokens.shape == (2, 3, 32)
    changed = images.clone()
    changed[0, :, 24:, 24:] += 1.0  # patch 15 is hidden in the first image, visible in the second
    changed[1, :, 24:, 24:] += 1.0
    other = encoder(changed, visible)
    assert torch.equal(other[0], tokens[0])
    assert not torch.equal(other[1], tokens[1])


def test_all_patches_visible_is_the_full_image() -> None:
    encoder, images = make(), torch.randn(2, 3, 32, 32)
    everything = torch.arange(16).expand(2, -1)
    torch.testing.assert_close(encoder(images, everything), encoder(images))


def test_positions_are_fixed_and_distinct() -> None:
    positions = make().vit.pos_embed
    assert not positions.requires_grad
    assert len(torch.unique(positions[0], dim=0)) == 16


def test_gather_tokens() -> None:
    tokens = torch.arange(12.0).view(1, 6, 2)
    assert gather_tokens(tokens, torch.tensor([[5, 0]])).tolist() == [[[10.0, 11.0], [0.0, 1.0]]]


def test_pretrained_weights_come_from_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}
    create = timm.create_model

    def remember(name: str, **settings: object) -> object:
        asked.update(settings)
        return create(name, **{**settings, "pretrained": False})

    monkeypatch.setattr(timm, "create_model", remember)
    encoder = ViTEncoder("test_vit", image_size=32, patch_size=16, pretrained=True)
    assert asked["pretrained"] is True
    assert encoder.vit.pos_embed.requires_grad  # published positions are kept, not overwritten


def test_projector_shapes() -> None:
    features = torch.randn(6, 32)
    assert Projector(32, hidden=16, embedding_size=4)(features).shape == (6, 4)
    assert [type(layer) for layer in Projector(32, hidden=0, embedding_size=4).layers] == [torch.nn.Linear]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "vit_tiny_patch16_224", "image_size": 30, "patch_size": 8}, "not divisible by patch_size 8"),
        ({"name": "vit_tinny_patch16_224", "image_size": 32, "patch_size": 8}, "timm has no model named"),
        ({"name": "resnet18", "image_size": 32, "patch_size": 8}, "VisionTransformer"),
    ],
)
def test_refusals(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ViTEncoder(**settings)  # type: ignore[arg-type]  # parametrised
