"""The Gaussian of a probe's embeddings against its definition, and its refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jepa_monitor import EmbeddingReference
from tests.monitor.density.helpers import ENCODERS


def test_reference_holds_what_was_measured() -> None:
    encode, x = ENCODERS["tall"]().double(), torch.randn(50, 10).double()
    reference = EmbeddingReference.measure(encode, x)
    z = encode(x).detach()
    torch.testing.assert_close(reference.mean, z.mean(0))
    torch.testing.assert_close(reference.covariance, torch.cov(z.T))
    jacobian = torch.autograd.functional.jacobian(lambda batch: encode(batch).sum(0), x).permute(1, 0, 2)
    spectrum = torch.linalg.svdvals(reference.whitener @ jacobian).log().mean(0)
    torch.testing.assert_close(reference.mean_log_spectrum, spectrum)
    assert reference.to(torch.device("cpu")).rank == reference.rank


def test_reference_whitens_and_drops_dead_directions() -> None:
    z = torch.randn(200, 2).double() @ torch.randn(2, 5).double() + 3.0
    reference = EmbeddingReference.fit(z)
    white = reference.whiten(z)
    assert white.shape == (200, 2)
    torch.testing.assert_close(torch.cov(white.T), torch.eye(2).double())


def test_reference_refuses_what_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="more than 4"):
        EmbeddingReference.fit(torch.randn(4, 4))
    with pytest.raises(ValueError, match="collapsed"):
        EmbeddingReference.fit(torch.ones(9, 4))


def test_a_reference_is_refused_before_the_first_jacobian() -> None:
    backward_passes: list[Tensor] = []

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]  # torch's hint says *args
            backward_passes.append(gradient)
            return gradient

    layer = nn.Linear(6, 5)

    def encode(x: Tensor) -> Tensor:
        return layer(Counted.apply(x))

    with pytest.raises(ValueError, match="5 finite embeddings cannot give the covariance of 5 coordinates"):
        EmbeddingReference.measure(encode, torch.randn(5, 6), strategy="loop")
    with pytest.raises(ValueError, match="all embeddings are equal"):
        EmbeddingReference.measure(encode, torch.ones(9, 6), strategy="loop")
    assert not backward_passes
    EmbeddingReference.measure(encode, torch.randn(9, 6), strategy="loop")
    assert backward_passes


def test_log_density_is_that_of_the_fitted_gaussian() -> None:
    z = torch.randn(300, 3).double() @ torch.randn(3, 3).double() + 2.0
    reference = EmbeddingReference.fit(z)
    fitted = torch.distributions.MultivariateNormal(reference.mean, reference.covariance).log_prob(z)
    difference = reference.log_density(reference.whiten(z)) - fitted
    torch.testing.assert_close(difference, difference[:1].expand(300))  # up to a constant
