"""Claims that hold for every anti-collapse term."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jepa_train.errors import ConfigurationError
from jepa_train.objectives import ANTICOLLAPSE_NAMES, Anticollapse, AnticollapseName, build_anticollapse
from tests.train.objectives.helpers import rotation, two_views

NAMES = [name for name in ANTICOLLAPSE_NAMES if name != "none"]
every_term = pytest.mark.parametrize("name", NAMES)


def term(name: AnticollapseName) -> Anticollapse:
    built = build_anticollapse(name, num_slices=16)
    assert built is not None
    return built


def gradients(name: AnticollapseName, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    first, second = first.clone().requires_grad_(), second.clone().requires_grad_()
    of_first, of_second = torch.autograd.grad(term(name)(first, second, 5), (first, second))
    return of_first, of_second


@every_term
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(5, 30), size=st.integers(1, 4))
def test_order_of_samples_and_of_views_does_not_count(name: AnticollapseName, seed: int, count: int, size: int) -> None:
    first, second = two_views(count, size, seed)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    expected = term(name)(first, second, 5)
    torch.testing.assert_close(term(name)(first[order], second[order], 5), expected)
    torch.testing.assert_close(term(name)(second, first, 5), expected)


@pytest.mark.parametrize(("name", "pairs_rows"), [(name, term(name).paired) for name in NAMES])
def test_terms_of_two_views_pair_their_rows(name: AnticollapseName, pairs_rows: bool) -> None:
    first, second = two_views(20, 3)
    apart = term(name)(first, second.flip(0), 5) - term(name)(first, second, 5)
    assert bool(apart.abs() > 0.1) == pairs_rows


@every_term
def test_a_narrow_cloud_is_worse_than_a_round_one(name: AnticollapseName) -> None:
    """Two live directions of eight, the rest noise that the views do not share, against eight that they do."""
    shared, noise = torch.randn(400, 8).double(), 1e-2 * torch.randn(2, 400, 8).double()
    narrow = shared.clone()
    narrow[:, 2:] = 0.0
    turn = rotation(8, 0)
    losses = [float(term(name)((z + noise[0]) @ turn, (z + noise[1]) @ turn, 5)) for z in (narrow, shared)]
    assert losses[0] > 1.3 * losses[1] if losses[1] > 0 else losses[0] > losses[1] + 0.5


@every_term
@pytest.mark.parametrize("row", [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.1, -70.3, 3e-4]])
def test_gradients_are_finite_where_all_rows_are_equal(name: AnticollapseName, row: list[float]) -> None:
    z = torch.tensor(row).expand(9, 3)
    assert torch.isfinite(term(name)(z, z, 5))
    for gradient in gradients(name, z, z):
        assert torch.isfinite(gradient).all()


@every_term
def test_gradients_agree_with_finite_differences(name: AnticollapseName) -> None:
    first, second = two_views(7, 3)
    inputs = (0.3 * first).requires_grad_(), (0.4 * second).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: term(name)(a, b, 5), inputs)


@every_term
def test_terms_stay_in_float32_under_autocast(name: AnticollapseName) -> None:
    first, second = (view.float() for view in two_views(64, 4))
    plain = term(name)(first, second, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(term(name)(first, second, 5), plain)
    halves = first.bfloat16(), second.bfloat16()
    assert torch.equal(term(name)(*halves, 5), term(name)(halves[0].float(), halves[1].float(), 5))
    torch.testing.assert_close(plain.double(), term(name)(first.double(), second.double(), 5), rtol=1e-5, atol=1e-5)


@every_term
def test_one_sample_is_too_few(name: AnticollapseName) -> None:
    with pytest.raises(ConfigurationError, match=r"at least 2 samples .* got 1 .* raise the batch size"):
        term(name)(torch.ones(1, 1), torch.ones(1, 1), 5)
    assert torch.isfinite(term(name)(*two_views(2, 1), 5))


@every_term
def test_terms_have_no_state(name: AnticollapseName) -> None:
    assert term(name).state_dict() == {}


@every_term
def test_more_views_are_a_mean_over_pairs_in_their_order(name: AnticollapseName) -> None:
    views = [view for seed in range(2) for view in two_views(20, 3, seed)]
    built = term(name)
    expected = torch.stack([built(views[0], views[1], 5), built(views[2], views[3], 5)]).mean()
    torch.testing.assert_close(built.over_views(views, 5), expected)
    torch.testing.assert_close(built.over_views(views[:2], 5), built(views[0], views[1], 5))


@every_term
def test_of_an_odd_number_no_view_is_left_out(name: AnticollapseName) -> None:
    views = [*two_views(20, 3), two_views(20, 3, 1)[0]]
    built = term(name)
    if name == "sigreg":
        expected = torch.stack([built(view, view, 5) for view in views]).mean()
    else:
        expected = torch.stack([built(views[0], views[1], 5), built(views[2], views[0], 5)]).mean()
    torch.testing.assert_close(built.over_views(views, 5), expected)
