"""The encoder against timm, and the arguments it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from jepa_train.errors import ConfigurationError
from jepa_train.models.encoder import EmbeddingEncoder, ViTEncoder, gather_tokens

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}


def make(name: str = "vit_tiny_patch16_224", overrides: dict[str, Any] | None = None) -> ViTEncoder:
    return ViTEncoder(name, image_size=32, patch_size=8, overrides=overrides or SMALL).eval()


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_tiny_patch16_224", {"class_token": True, "reg_tokens": 2}),
        ("vit_small_patch14_dinov2", {"class_token": True, "no_embed_class": True}),
        ("test_vit", {}),
        ("vit_base_patch16_clip_224", {"class_token": True}),
        ("vit_tiny_patch16_224", {"pos_embed": "none"}),
    ],
)
def test_full_tokens_are_bitwise_timms(name: str, overrides: dict[str, object]) -> None:
    encoder, images = make(name, SMALL | overrides), torch.randn(2, 3, 32, 32)
    theirs = encoder.vit.forward_features(images)
    assert torch.equal(encoder(images), theirs[:, encoder.vit.num_prefix_tokens :])
    assert encoder.vit.num_prefix_tokens == int(overrides.get("class_token", False)) + int(
        overrides.get("reg_tokens", 0)
    )
    everything = torch.arange(16).expand(2, -1)
    torch.testing.assert_close(encoder(images, everything), encoder(images))
    assert encoder.grid_size == (4, 4)
    assert encoder.width == 32


def test_what_timm_builds_from_the_recorded_arguments_is_the_same_network() -> None:
    encoder, images = make(overrides=SMALL | {"reg_tokens": 1}), torch.randn(2, 3, 32, 32)
    again = timm.create_model(encoder.name, **encoder.timm_arguments).eval()
    again.load_state_dict(encoder.vit.state_dict())
    assert torch.equal(again(images), encoder(images).mean(1))


def test_other_image_sizes_where_timm_allows_them() -> None:
    encoder = make(overrides=SMALL | {"dynamic_img_size": True})
    images, visible = torch.randn(2, 3, 48, 40), torch.tensor([[0, 5, 29], [1, 2, 3]])
    assert encoder(images).shape == (2, 30, 32)
    tokens = encoder(images, visible)
    changed = images.clone()
    changed[0, :, 8:16, 8:16] += 1.0  # patch 6 of a 6 x 5 grid: hidden in both
    assert torch.equal(encoder(changed, visible), tokens)


@pytest.mark.parametrize(("patches", "local"), [(14, 6), (4, 2), (7, 3)])
def test_fixed_positions_of_another_grid_are_sin_cos_of_the_places_between(patches: int, local: int) -> None:
    """timm resamples them, bicubic and smoothed; a local view's patches have places spread over the whole image's."""
    settings = {"image_size": 2 * patches, "patch_size": 2, "overrides": SMALL | {"depth": 1, "dynamic_img_size": True}}
    vit = ViTEncoder("vit_tiny_patch16_224", **settings).eval().vit
    nothing = torch.zeros(1, local, local, 32)
    resampled = vit._pos_embed(nothing)[0].double()
    places = (torch.arange(local, dtype=torch.float64) + 0.5) * patches / local - 0.5
    angles = places.unsqueeze(1) * 10000.0 ** (-torch.arange(8, dtype=torch.float64) / 8)
    rows, columns = angles.repeat_interleave(local, 0), angles.repeat(local, 1)
    exact = torch.cat([rows.sin(), columns.sin(), rows.cos(), columns.cos()], dim=1)
    assert float(torch.nn.functional.cosine_similarity(resampled, exact).min()) > 0.995
    assert float(torch.pdist(resampled).min()) > 0.7 * float(torch.pdist(exact).min())


def test_gradient_checkpointing_changes_no_number() -> None:
    images, visible = torch.randn(2, 3, 32, 32), torch.tensor([[0, 1, 4], [2, 9, 15]])
    results = []
    for gradient_checkpointing in (False, True):
        torch.manual_seed(0)
        settings = {"image_size": 32, "patch_size": 8, "overrides": SMALL | {"drop_path_rate": 0.5}}
        encoder = ViTEncoder("vit_tiny_patch16_224", **settings, gradient_checkpointing=gradient_checkpointing)
        torch.manual_seed(1)
        loss = encoder(images, visible).square().sum() + encoder(images).square().sum()
        weights = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        results.append([loss, *torch.autograd.grad(loss, weights)])
    for plain, checkpointed in zip(*results, strict=True):
        assert torch.equal(plain, checkpointed)


def test_a_frozen_copy_drops_nothing_in_any_mode() -> None:
    rates = {"drop_path_rate": 0.5, "proj_drop_rate": 0.5, "pos_drop_rate": 0.5}
    online = EmbeddingEncoder(make(overrides=SMALL | rates), torch.nn.Identity()).train()
    images = torch.randn(2, 3, 32, 32)
    assert not torch.equal(online(images), online(images))
    target = online.frozen_copy().train()
    assert torch.equal(target(images), online.eval()(images))
    assert not any(parameter.requires_grad for parameter in target.parameters())


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


def test_positions_are_fixed_and_distinct() -> None:
    positions = make().vit.pos_embed
    assert not positions.requires_grad
    assert len(torch.unique(positions[0], dim=0)) == 16


def test_positions_may_be_learned() -> None:
    encoder = ViTEncoder("vit_tiny_patch16_224", image_size=32, patch_size=8, overrides=SMALL, positions="learned")
    assert encoder.vit.pos_embed.requires_grad


def test_class_tokens_have_no_position() -> None:
    positions = make(overrides=SMALL | {"class_token": True}).vit.pos_embed[0]
    assert float(positions[0].abs().sum()) == 0.0
    torch.testing.assert_close(positions[1:], make().vit.pos_embed[0])


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
    assert "class_token" not in asked  # that of the published model is kept
    assert encoder.vit.pos_embed.requires_grad  # published positions are kept, not overwritten


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "vit_tiny_patch16_224", "image_size": 30, "patch_size": 8}, "not divisible by patch_size 8"),
        ({"name": "vit_tinny_patch16_224", "image_size": 32, "patch_size": 8}, "timm has no model named"),
        (
            {"name": "test_vit", "image_size": 32, "patch_size": 8, "overrides": {"nonsense": 1}},
            "timm refuses an argument in encoder_overrides",
        ),
        *(
            (
                {"name": "test_vit", "image_size": 32, "patch_size": 8, "overrides": {name: value}},
                f"encoder_overrides cannot set {name}",
            )
            for name, value in {
                "patch_drop_rate": 0.5,
                "fc_norm": True,
                "global_pool": "token",
                "num_classes": 3,
            }.items()
        ),
        (
            {"name": "test_vit", "image_size": 32, "patch_size": 8, "overrides": {"num_heads": 5}},
            "timm cannot build test_vit with .*divisible",
        ),
        (
            {"name": "test_vit", "image_size": 32, "patch_size": 8, "overrides": {"reg_tokens": -1}},
            "timm cannot build test_vit with",
        ),
        ({"name": "test_vit", "image_size": 32, "patch_size": 8, "positions": "sincos"}, "fixed or learned"),
        ({"name": "test_vit", "image_size": 32, "patch_size": 8, "stem": "deep"}, "linear or convolutional"),
        ({"name": "test_vit", "image_size": 32, "patch_size": 8, "stem_channels": [8]}, "set stem to convolutional"),
        ({"name": "resnet18", "image_size": 32, "patch_size": 8}, "VisionTransformer"),
    ],
)
def test_refusals(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ViTEncoder(**settings)  # type: ignore[arg-type]  # parametrised
