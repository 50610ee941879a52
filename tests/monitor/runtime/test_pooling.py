"""The mean over positions, wherever an encoder has its channels: against what the libraries do themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import convnext_tiny
from torchvision.models.swin_transformer import SwinTransformer

from jepa_monitor.runtime.encoder import resolve_encoder
from jepa_monitor.runtime.pooling import channel_axis, pool_embedding

SMALL_SWIN = {"img_size": 56, "window_size": 7, "depths": (1, 1, 1, 1), "embed_dim": 24}
TIMM = {
    "swin_tiny_patch4_window7_224": SMALL_SWIN,
    "swinv2_tiny_window8_256": {**SMALL_SWIN, "img_size": 64, "window_size": 4},
    "swinv2_cr_tiny_224": {**SMALL_SWIN, "num_heads": (1, 2, 3, 4)},
    "sequencer2d_s": {"layers": (1, 1, 1, 1), "embed_dims": (24, 24, 24, 24), "hidden_sizes": (8, 8, 8, 8)},
    "caformer_s18": {},
    "poolformer_s12": {},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "resnet10t": {},
    "hiera_tiny_224": {"img_size": 64, "embed_dim": 24, "stages": (1, 1, 1, 1)},
    "vit_tiny_patch16_224": {"img_size": 32, "depth": 1, "class_token": False, "pool_include_prefix": True},
}


@pytest.mark.parametrize("name", TIMM)
def test_equals_timms_own_mean(name: str) -> None:
    """The same weights, without a norm behind the mean."""
    features = timm.create_model(name, num_classes=0, global_pool="", **TIMM[name]).eval()
    size = features.default_cfg["input_size"][-1] if name == "resnet10t" else TIMM[name].get("img_size", 64)
    with torch.no_grad():
        maps = features(torch.randn(2, 3, size, size))
    positions = {"NHWC": (1, 2)}.get(getattr(features, "output_fmt", ""), (2, 3)) if maps.ndim == 4 else (1,)
    expected = maps.mean(positions)
    assert expected.shape == (2, features.num_features)
    torch.testing.assert_close(pool_embedding(maps, "auto", features), expected)
    torch.testing.assert_close(pool_embedding(maps, "mean", features), expected)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "sequencer2d_s"])
def test_equals_timms_own_pooling(name: str) -> None:
    pooled = timm.create_model(name, num_classes=0, global_pool="avg", **TIMM[name]).eval()
    images = torch.randn(2, 3, 56, 56) if "swin" in name else torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(pool_embedding(pooled.forward_features(images), "auto", pooled), pooled(images))


def torchvision_swin() -> SwinTransformer:
    return SwinTransformer([4, 4], 16, [1, 1], [2, 2], [4, 4])


@pytest.mark.parametrize("make", [torchvision_swin, convnext_tiny])
@pytest.mark.parametrize("height", [32, 64])
def test_torchvisions_features(make: Callable[[], nn.Module], height: int) -> None:
    """Swin's have channels last and ConvNeXt's first; squares and not."""
    model = make().eval()
    images = torch.randn(2, 3, height, 96)
    with torch.no_grad():
        maps = model.features(images)
    axis = 3 if make is torchvision_swin else 1
    expected = maps.mean([other for other in (1, 2, 3) if other != axis])
    torch.testing.assert_close(pool_embedding(maps, "auto", model.features), expected)
    encode, _ = resolve_encoder(model, "features", "auto")
    torch.testing.assert_close(encode(images), expected)


class Permuted(nn.Module):
    """A convolution whose result is handed over with channels last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).permute(0, 2, 3, 1)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 12), (12, 8)])
def test_own_modules_are_measured_along_the_axis_that_the_last_layer_says(height: int, width: int) -> None:
    images = torch.randn(2, 3, height, width)
    permuted = Permuted(5)
    encode, _ = resolve_encoder(nn.ModuleDict({"encoder": permuted}), "encoder", "auto")
    torch.testing.assert_close(encode(images), permuted.conv(images).mean((2, 3)))
    plain = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU()).eval()
    torch.testing.assert_close(pool_embedding(plain(images), "auto", plain), plain(images).mean((2, 3)))


def test_as_many_channels_as_columns() -> None:
    images = torch.randn(2, 3, 8, 8)
    convolution, linear = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()), nn.Linear(3, 8)
    torch.testing.assert_close(
        pool_embedding(convolution(images), "auto", convolution), convolution(images).mean((2, 3))
    )
    last = linear(images.permute(0, 2, 3, 1))
    torch.testing.assert_close(pool_embedding(last, "auto", linear), last.mean((1, 2)))


def test_sequences() -> None:
    """Tokens are averaged over the first axis, what a 1-d convolution returns over the last."""
    series = torch.randn(2, 3, 20)
    wave = nn.Sequential(nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6), nn.ReLU()).eval()
    torch.testing.assert_close(pool_embedding(wave(series), "auto", wave), wave(series).mean(2))
    tokens = torch.randn(2, 20, 6)
    mixing = nn.ModuleList([nn.Linear(6, 6), nn.Linear(20, 20)])  # the last one over positions
    table = nn.ModuleList([nn.Conv1d(3, 6, 3), nn.LayerNorm(6)])
    table.num_features = 20  # of the table, which are tokens
    for encoder in (None, mixing, table, nn.Identity()):
        torch.testing.assert_close(pool_embedding(tokens, "auto", encoder), tokens.mean(1))


class NoLayers(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def test_what_cannot_be_known_is_asked_for() -> None:
    maps = torch.randn(2, 5, 6, 7)
    with pytest.raises(ValueError, match=r"feature map of shape \(2, 5, 6, 7\): pass pool="):
        pool_embedding(maps, "auto", NoLayers())
    torch.testing.assert_close(pool_embedding(maps, lambda output: output.mean((1, 2)), NoLayers()), maps.mean((1, 2)))
    # a square says where positions are; without an encoder, torch's convention is left
    for encoder in (None, NoLayers()):
        torch.testing.assert_close(pool_embedding(torch.ones(2, 6, 6, 7), "auto", encoder), torch.ones(2, 7))
        torch.testing.assert_close(pool_embedding(torch.ones(2, 5, 6, 6), "auto", encoder), torch.ones(2, 5))
    assert channel_axis(maps.shape) == 1


def test_the_name_of_a_layer_that_normalises_maps() -> None:
    cube = torch.Size([2, 6, 6, 6])
    assert channel_axis(cube, timm.layers.LayerNorm2d(6)) == 1
    assert channel_axis(cube, nn.LayerNorm(6)) == 3


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
