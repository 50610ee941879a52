"""The convolutional stem: its shapes, that it sees nothing hidden, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from jepa_train.errors import ConfigurationError
from jepa_train.models.encoder import ViTEncoder
from jepa_train.models.stem import convolutions, halvings, hide

SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2}


def make(patch_size: int = 8, **settings: Any) -> ViTEncoder:
    overrides = {**SMALL, **settings.pop("overrides", {})}
    return ViTEncoder(
        "vit_tiny_patch16_224",
        image_size=32,
        patch_size=patch_size,
        overrides=overrides,
        stem="convolutional",
        **settings,
    ).eval()


@pytest.mark.parametrize(
    ("patch_size", "widths", "sides"),
    [(2, [64], [3]), (4, [32, 64], [3, 3]), (16, [8, 16, 32, 64], [3] * 4), (14, [32, 64], [3, 7])],
)
def test_convolutions_go_down_to_the_patch_grid(patch_size: int, widths: list[int], sides: list[int]) -> None:
    stem = convolutions(3, 64, patch_size)
    found = [layer for layer in stem if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in found] == widths
    assert [layer.kernel_size for layer in found] == [(side, side) for side in sides]
    assert stem(torch.randn(2, 3, 3 * patch_size, 2 * patch_size)).shape == (2, 64, 3, 2)


@pytest.mark.parametrize(
    ("image_size", "patch_size", "expected"),
    [
        (28, 7, 3),
        (14, 7, 3),
        (224, 16, 4),
        (32, 8, 3),
        (8, 8, 3),
        (224, 14, None),
        (96, 12, None),
        (20, 5, None),
        (32, 1, None),
    ],
)
def test_halving_leads_to_the_grid_or_past_it(image_size: int, patch_size: int, expected: int | None) -> None:
    assert halvings(image_size, patch_size) == expected


def test_an_odd_patch_has_a_stem_where_halving_leads_to_its_grid() -> None:
    encoder = ViTEncoder(
        "vit_tiny_patch16_224",
        image_size=28,
        patch_size=7,
        overrides={**SMALL, "depth": 0, "dynamic_img_size": True},
        stem="convolutional",
    )
    convolved = [layer.out_channels for layer in encoder.vit.patch_embed.proj if isinstance(layer, nn.Conv2d)]
    assert convolved == [8, 16, 32]
    assert encoder(torch.randn(2, 3, 28, 28)).shape == (2, 16, 32)
    assert encoder(torch.randn(2, 3, 14, 21)).shape == (2, 6, 32)
    assert encoder(torch.randn(2, 3, 28, 28), torch.tensor([[0, 3], [5, 15]])).shape == (2, 2, 32)


def test_channels_before_the_last_can_be_given() -> None:
    encoder = make(stem_channels=[8, 12])
    layers = [layer for layer in encoder.vit.patch_embed.proj if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in layers] == [8, 12, 32]
    assert encoder(torch.randn(2, 3, 32, 32)).shape == (2, 16, 32)


@pytest.mark.parametrize("channels", [[8], [8, 16, 32], [8, 0], []])
def test_as_many_channels_as_convolutions_before_the_last(channels: list[int]) -> None:
    with pytest.raises(ConfigurationError, match=r"stem_channels must be 2 numbers of at least 1"):
        make(stem_channels=channels)


def test_groups_divide_any_width() -> None:
    assert convolutions(1, 20, 4)(torch.randn(1, 1, 8, 8)).shape == (1, 20, 2, 2)


def test_what_is_hidden_becomes_zero_even_where_it_is_infinite() -> None:
    images = torch.randn(2, 1, 4, 6)
    images[0, 0, 0, 0] = torch.inf
    hidden = hide(images, torch.tensor([[1, 5], [0, 3]]), 2)
    assert torch.equal(hidden[0, :, :2, 2:4], images[0, :, :2, 2:4])
    assert torch.equal(hidden[0, :, 2:, 4:], images[0, :, 2:, 4:])
    assert torch.equal(hidden[1, :, :2, :2], images[1, :, :2, :2])
    assert int((hidden != 0).sum()) == 4 * 4


@pytest.mark.parametrize("overrides", [{}, {"reg_tokens": 2}, {"dynamic_img_size": True}], ids=str)
def test_hidden_pixels_change_nothing(overrides: dict[str, Any]) -> None:
    encoder = make(overrides=overrides)
    images, visible = torch.randn(2, 3, 32, 32), torch.tensor([[0, 1, 5], [4, 9, 15]])
    tokens = encoder(images, visible)
    assert tokens.shape == (2, 3, 32)
    changed = images + 100.0 * torch.randn_like(images)
    for image, patches in enumerate(visible.tolist()):
        for patch in patches:
            rows, columns = slice(patch // 4 * 8, patch // 4 * 8 + 8), slice(patch % 4 * 8, patch % 4 * 8 + 8)
            changed[image, :, rows, columns] = images[image, :, rows, columns]
    assert torch.equal(encoder(changed, visible), tokens)
    assert not torch.equal(encoder(changed), encoder(images))
    changed[0, :, :8, :8] += 1.0  # a visible one
    assert not torch.equal(encoder(changed, visible)[0], tokens[0])


def test_all_patches_visible_are_the_whole_image() -> None:
    encoder, images = make(), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(encoder(images, torch.arange(16).expand(2, -1)), encoder(images))


def test_it_sees_images_of_other_sizes_and_more_than_a_patch() -> None:
    encoder = make(overrides={"dynamic_img_size": True})
    assert encoder(torch.randn(2, 3, 16, 24)).shape == (2, 6, 32)
    images = torch.randn(1, 3, 32, 32).requires_grad_()
    grid = encoder.vit.patch_embed(images)
    (gradient,) = torch.autograd.grad(grid[0, 1, 1].sum(), images)
    assert bool((gradient[0, :, 7, 8:16] != 0).any())  # the row above the patch


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_size": 1}, "patch_size 1 is odd: choose an even one"),
        ({"pretrained": True}, "published weights have a linear stem"),
        ({"overrides": {"embed_layer": nn.Identity}}, "cannot set embed_layer"),
    ],
)
def test_refusals(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make(**settings)
