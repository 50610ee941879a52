"""The cloud that statistics share: whitened axes are orthonormal."""

from __future__ import annotations

import torch

from jepa_monitor.gaussianity import Cloud


def test_whitened_axes_are_orthonormal_in_a_spread_spectrum() -> None:
    z = torch.randn(200, 12).double() * torch.logspace(0, -4, 12) + 3.0
    white = Cloud.of(z).white
    torch.testing.assert_close(white.T @ white / 200, torch.eye(12).double(), rtol=0.0, atol=1e-6)
    assert float(white.mean(0).abs().max()) < 1e-9
