"""Encoders, and their Jacobians by plain autograd in float64."""

from __future__ import annotations

import copy

import timm
import torch
from torch import Tensor, nn

from jepa_monitor.density import Encode, Strategy

GENERATOR = torch.Generator().manual_seed(0)
CENTRES, WEIGHT = torch.randn(4, 6, generator=GENERATOR), torch.randn(4, 6, generator=GENERATOR)
X = torch.randn(64, 6, generator=GENERATOR)
STRATEGIES: tuple[Strategy, ...] = ("auto", "loop", "replicate", "jacrev", "forward")


def reference_gram(encode: Encode, x: Tensor) -> Tensor:
    """Gram matrices (N, K, K) by autograd's own Jacobian, one sample at a time, in float64."""
    if isinstance(encode, nn.Module):
        encode = copy.deepcopy(encode).double()
    grams = []
    for sample in x.double():
        jacobian = torch.autograd.functional.jacobian(lambda one: encode(one[None])[0], sample).flatten(1)
        grams.append(jacobian @ jacobian.T)
    return torch.stack(grams)


def assert_equals_reference(gram: Tensor, encode: Encode, x: Tensor) -> None:
    expected = reference_gram(encode, x)
    torch.testing.assert_close(gram, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def make_mlp(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, outputs))


def vision_transformer() -> nn.Module:
    """A Vision Transformer whose patches of 768 values become tokens of 64: the Jacobian is smaller behind them."""
    return timm.create_model("test_vit", img_size=32, num_classes=0, global_pool="avg").eval()


class Collapsed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.0 * x.flatten(1)[:, :3] + 1.0


ENCODERS = {
    "tall": lambda: nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 4)),
    "wide": lambda: nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 6)),
    "layer norm": lambda: nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.LayerNorm(8)),
    "rank-deficient": lambda: nn.Sequential(nn.Linear(10, 2), nn.Tanh(), nn.Linear(2, 5)),
    "collapsed": Collapsed,
}


def distances(p: float) -> Encode:
    return lambda inputs: torch.cdist(inputs, CENTRES.to(inputs), p=p)


def on_sphere(count: int, dimension: int) -> Tensor:
    """Uniform on the unit sphere of this dimension, (count, dimension + 1) float64."""
    z = torch.randn(count, dimension + 1).double()
    return z / z.norm(dim=1, keepdim=True)


def embed_isometrically(z: Tensor, size: int) -> Tensor:
    """Rotate (N, r) into ``size`` coordinates, or none where that is fewer, and away from the origin; float64."""
    size = max(size, z.shape[1])
    frame = torch.linalg.qr(torch.randn(size, z.shape[1]).double()).Q
    return z.double() @ frame.T + torch.randn(size).double()
