"""Spectra, volumes, ranks, and how far rounding moves them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from jepa_monitor import jacobian_gram, jepa_score, log_volume
from jepa_monitor.density import leading_volume, log_singular_values


def test_rank_convention_sums_the_largest() -> None:
    gram = torch.diag(torch.tensor([4.0, 1e-4, 9.0])).double()
    assert float(log_volume(gram, convention="rank", rank=2)) == pytest.approx(math.log(6.0))
    assert float(log_volume(gram)) == pytest.approx(math.log(6.0) + math.log(1e-2))
    assert float(log_volume(torch.zeros(3, 3).double())) == pytest.approx(3 * math.log(1e-6))


@pytest.mark.parametrize("rank", [None, 0, 4])
def test_rank_out_of_range_is_refused(rank: int | None) -> None:
    with pytest.raises(ValueError, match="from 1 to 3"):
        log_volume(torch.eye(3).double(), convention="rank", rank=rank)
    with pytest.raises(ValueError, match="convention='rank'"):
        log_volume(torch.eye(3).double(), rank=2)
    if rank is not None:
        with pytest.raises(ValueError, match="from 1 to 3"):
            leading_volume(torch.zeros(2, 3), rank)


def test_nan_stays_with_its_sample() -> None:
    gram = torch.eye(2).double().repeat(3, 1, 1)
    gram[1, 0, 0] = torch.nan
    values = log_singular_values(gram)
    assert torch.isnan(values[1]).all()
    assert torch.isfinite(values[[0, 2]]).all()


def test_gram_is_float64_because_a_float32_one_is_wrong() -> None:
    """The trap: squaring in float32 loses the small singular values."""
    left, right = (torch.linalg.qr(torch.randn(n, n)).Q for n in (2, 6))
    weight = left @ torch.diag(torch.tensor([1.0, 1e-4])) @ right[:2]
    x = torch.randn(5, 6)

    def encode(inputs: Tensor) -> Tensor:
        return inputs @ weight.T

    exact = torch.full((5,), math.log(1e-4)).double()
    torch.testing.assert_close(jepa_score(encode, x), exact, rtol=0.0, atol=2e-2)
    single = jacobian_gram(encode, x, gram_dtype=torch.float32)
    assert float((log_volume(single.double()) - exact).abs().max()) > 0.1
