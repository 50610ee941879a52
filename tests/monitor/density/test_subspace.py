"""The subspace's volumes against exact ones, its cost in backward passes, and its refusals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from jepa_monitor import EmbeddingReference, Subspace, encoder_volume, jacobian_gram, log_volume
from jepa_monitor.density import Encode
from jepa_monitor.density.subspace import subspace_rows

SIZE = 24


def make_encoder(size: int = SIZE, inputs: int = 32) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, size))


def make_inputs(count: int, seed: int, size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = 1.0 + 2.0 * torch.rand(count, 1, generator=generator)
    return scale * torch.randn(count, size, generator=generator)


def random_grams(count: int, size: int, seed: int) -> Tensor:
    jacobian = torch.randn(count, size, size + 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return jacobian @ jacobian.mT


def random_embeddings(count: int, size: int, seed: int) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact_volume(gram: Tensor, rank: int) -> Tensor:
    return log_volume(gram, convention="rank", rank=rank)


def estimated(subspace: Subspace, gram: Tensor, z: Tensor) -> Tensor:
    rows = subspace.rows(z)
    return subspace.estimate(rows @ gram @ rows.mT)


def spearman(a: Tensor, b: Tensor) -> float:
    return float(stats.spearmanr(a, b).statistic)


def curved_encoder(size: int = SIZE) -> Encode:
    """An encoder that bends two factors into 24 dimensions, with a little of six more."""
    generator = torch.Generator().manual_seed(0)
    lift = torch.randn(2, 12, generator=generator)
    mix, rest = torch.randn(12, size, generator=generator), 0.01 * torch.randn(8, size, generator=generator)
    return lambda x: torch.sin(x[:, :2] @ lift) @ mix + x @ rest


def curved_inputs(count: int, seed: int) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def curved() -> Encode:
    return curved_encoder()


def test_ranks_held_out_samples_and_knows_how_well(curved: Encode) -> None:
    reference, held_out = curved(curved_inputs(4000, 2)), curved_inputs(400, 1)
    exact = encoder_volume(curved, held_out, rank=2)
    subspace = Subspace.fit(curved, curved_inputs(16, 0), 2, reference=reference, directions=3)
    assert subspace.rows(reference[:3]).shape == (3, 3, SIZE)
    reached = spearman(subspace.log_volume(curved, held_out), exact)
    assert reached > 0.98
    assert subspace.held_out_spearman == pytest.approx(reached, abs=0.1)
    # rows that all samples share do not reach it, because the manifold turns
    gram = jacobian_gram(curved, held_out)
    _, axes = torch.linalg.eigh(gram.mean(0))
    shared = axes[:, -3:].T
    assert spearman(subspace.estimate(shared @ gram @ shared.T), exact) < reached - 0.04


def test_more_directions_are_closer_from_below(curved: Encode) -> None:
    x = curved_inputs(60, 0)
    gram, z, reference = jacobian_gram(curved, x), curved(x), curved(curved_inputs(1000, 2))
    exact, errors = exact_volume(gram, 4), []
    for directions in (4, 8, 12, SIZE):
        subspace = Subspace.calibrate(gram[:16], z[:16], 4, reference=reference, directions=directions)
        missed = exact - estimated(subspace, gram, z)
        assert float(missed.min()) > -1e-9
        errors.append(float(missed.mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-9


def test_a_linear_encoder_needs_r_rows() -> None:
    encode, x = nn.Linear(6, 12).double(), torch.randn(20, 6, dtype=torch.float64)
    subspace = Subspace.fit(encode, x[:8], 6, reference=encode(x), directions=6)
    torch.testing.assert_close(subspace.log_volume(encode, x), encoder_volume(encode, x, rank=6))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), size=st.integers(1, 9), data=st.data())
def test_all_directions_are_exact(seed: int, size: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, size))
    gram, z = random_grams(12, size, seed), random_embeddings(12, size, seed)
    subspace = Subspace.calibrate(gram, z, rank, reference=random_embeddings(20, size, 1), directions=size)
    torch.testing.assert_close(estimated(subspace, gram, z), exact_volume(gram, rank))
    assert subspace.held_out_spearman > 0.999


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), size=st.integers(2, 9), data=st.data())
def test_rows_are_orthonormal_and_turn_with_the_embedding(seed: int, size: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, size))
    directions = data.draw(st.integers(rank, size))
    gram, z, reference = random_grams(20, size, seed), random_embeddings(20, size, seed), random_embeddings(99, size, 1)
    turn = torch.linalg.qr(random_grams(1, size, seed + 100)[0]).Q
    subspace = Subspace.calibrate(gram[:12], z[:12], rank, reference=reference, directions=directions)
    rows = subspace.rows(z)
    assert rows.shape == (20, directions, size)
    torch.testing.assert_close(rows @ rows.mT, torch.eye(directions, dtype=torch.float64).expand(20, -1, -1))
    turned = Subspace.calibrate(
        turn @ gram[:12] @ turn.T, z[:12] @ turn.T, rank, reference=reference @ turn.T, directions=directions
    )
    of_turned = turned.rows(z @ turn.T)
    torch.testing.assert_close(turn @ rows.mT @ rows @ turn.T, of_turned.mT @ of_turned)
    torch.testing.assert_close(turned.held_out_spearman, subspace.held_out_spearman)


def test_embeddings_whose_neighbours_are_all_equal_have_rows() -> None:
    gram, z = random_grams(12, 5, 0), torch.zeros(12, 5, dtype=torch.float64)
    reference = torch.cat([z.expand(12, 5).repeat(5, 1), torch.ones(1, 5)])
    rows = Subspace.calibrate(gram, z, 2, reference=reference).rows(z)
    torch.testing.assert_close(rows @ rows.mT, torch.eye(5, dtype=torch.float64).expand(12, -1, -1))


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_scale_moves_volumes_alone(curved: Encode, scale: float) -> None:
    x = curved_inputs(30, 0)
    gram, z, reference = jacobian_gram(curved, x), curved(x).double(), curved(curved_inputs(200, 2)).double()
    one = Subspace.calibrate(gram, z, 4, reference=reference)
    other = Subspace.calibrate(scale**2 * gram, scale * z, 4, reference=scale * reference)
    rows, scaled = one.rows(z), other.rows(scale * z)
    torch.testing.assert_close(scaled.mT @ scaled, rows.mT @ rows)
    assert other.held_out_spearman == pytest.approx(one.held_out_spearman)


def counted_rows(samples: int, calibration: int, *, rank: int = 3, estimator: str = "subspace") -> int:
    """Backward passes, one sample and one row each, that the volumes of some samples take."""
    encode, passes = make_encoder(), []

    def counting(x: Tensor) -> Tensor:
        z = encode(x)
        if z.requires_grad:
            z.register_hook(lambda gradient: passes.append(len(gradient)))
        return z

    encoder_volume(
        counting,
        make_inputs(samples, 0),
        rank=rank,
        estimator=estimator,  # type: ignore[arg-type]  # one of its names
        calibration_samples=calibration,
        strategy="loop",
        chunk=1,
    )
    return sum(passes)


def test_costs_some_rows_a_sample_and_all_for_calibration() -> None:
    # differences, because each call looks at the encoder with a few passes more
    assert counted_rows(40, 8, estimator="exact") - counted_rows(30, 8, estimator="exact") == 10 * SIZE
    assert counted_rows(40, 8, rank=4) - counted_rows(30, 8, rank=4) == 10 * 8
    assert counted_rows(40, 8, rank=20) - counted_rows(30, 8, rank=20) == 10 * SIZE
    assert counted_rows(30, 12, rank=4) - counted_rows(30, 8, rank=4) == 4 * (SIZE - 8)
    assert [subspace_rows(rank, 192) for rank in (1, 2, 8, 13, 128, 192)] == [5, 6, 12, 20, 192, 192]


def test_all_values_are_of_one_kind(curved: Encode) -> None:
    x = curved_inputs(40, 0)
    reference = curved(curved_inputs(100, 2))
    subspace = Subspace.fit(curved, x[:16], 4, reference=reference)
    volumes = encoder_volume(curved, x, rank=4, estimator="subspace", reference=reference)
    torch.testing.assert_close(volumes, subspace.log_volume(curved, x), rtol=1e-5, atol=1e-5)
    few = encoder_volume(curved, x[:16], rank=4, estimator="subspace", reference=reference)
    torch.testing.assert_close(few, volumes[:16])


def test_the_samples_are_their_own_reference(curved: Encode) -> None:
    x = curved_inputs(60, 0)
    own = encoder_volume(curved, x, rank=4, estimator="subspace")
    assert torch.equal(own, encoder_volume(curved, x, rank=4, estimator="subspace", reference=curved(x)))


def test_a_spoilt_sample_stays_alone() -> None:
    encode, x = make_encoder(), make_inputs(40, 0)
    reference = encode(make_inputs(100, 1)).detach()
    spoilt = x.clone()
    spoilt[[2, 30]] = math.nan
    reference[5] = math.inf
    subspace = Subspace.fit(encode, spoilt[:16], 3, reference=reference)
    clean = Subspace.fit(encode, x[:16][torch.arange(16) != 2], 3, reference=reference[torch.arange(100) != 5])
    torch.testing.assert_close(subspace.shared, clean.shared)
    volumes = encoder_volume(encode, spoilt, rank=3, estimator="subspace", reference=reference)
    assert torch.isnan(volumes).nonzero().flatten().tolist() == [2, 30]
    torch.testing.assert_close(volumes[31:], clean.log_volume(encode, x[31:]))
    assert torch.isnan(subspace.rows(encode(spoilt))).flatten(1).all(1).nonzero().flatten().tolist() == [2, 30]


def test_equal_volumes_have_no_ranking() -> None:
    gram, z = torch.eye(5, dtype=torch.float64).expand(12, 5, 5), random_embeddings(12, 5, 0)
    assert math.isnan(Subspace.calibrate(gram, z, 2, reference=z).held_out_spearman)


def test_an_encoder_is_known_by_samples_that_are_finite() -> None:
    encode, x = make_encoder(), make_inputs(16, 0)
    reference = encode(x).detach()
    x[:2] = torch.nan
    subspace = Subspace.fit(encode, x, 4, reference=reference)
    with pytest.raises(ValueError, match="fit it again"):
        subspace.log_volume(make_encoder(), make_inputs(3, 1))


def test_refuses_an_encoder_that_was_trained_on() -> None:
    encode, x = make_encoder(), make_inputs(16, 0)
    reference = encode(x).detach()
    subspace = Subspace.fit(encode, x, 4, reference=reference)
    subspace.log_volume(encode, make_inputs(3, 1))
    optimizer = torch.optim.SGD(encode.parameters(), lr=1e-3)
    encode(make_inputs(8, 2)).square().mean().backward()
    optimizer.step()
    for other in (encode, make_encoder(5)):
        with pytest.raises(ValueError, match="fit it again"):
            subspace.log_volume(other, make_inputs(3, 1))
    bare = Subspace.calibrate(random_grams(16, SIZE, 0), reference, 4, reference=reference)
    with pytest.raises(ValueError, match="use rows and estimate"):
        bare.log_volume(encode, make_inputs(3, 1))


def test_refuses_what_cannot_be_fitted() -> None:
    encode, x = make_encoder(), make_inputs(20, 0)
    z = encode(x).detach()
    for rank in (0, SIZE + 1, 2.5):
        with pytest.raises(ValueError, match="rank must be a whole number from 1 to 24"):
            Subspace.fit(encode, x, rank, reference=z)  # type: ignore[arg-type]  # what is tried
    for directions in (3, SIZE + 1):
        with pytest.raises(ValueError, match="directions must be a whole number from 4 to 24"):
            Subspace.fit(encode, x, 4, reference=z, directions=directions)
    with pytest.raises(ValueError, match="8 directions need more than 8 finite reference embeddings, got 6"):
        Subspace.fit(encode, x, 4, reference=z[:6])
    with pytest.raises(ValueError, match="at least 8 calibration samples with a finite Jacobian, got 7 of 7"):
        Subspace.fit(encode, x[:7], 4, reference=z)
    for wrong, kind in ((z[:, :3], ValueError), (z.numpy(), TypeError), (EmbeddingReference.fit(z), TypeError)):
        with pytest.raises(kind, match=r"^reference embeddings (must be|are of type).*\(N, 24\)"):
            Subspace.fit(encode, x, 4, reference=wrong)
        with pytest.raises(kind, match=r"^reference embeddings (must be|are of type).*\(N, 24\)"):
            encoder_volume(encode, x, rank=4, estimator="subspace", reference=wrong)
    with pytest.raises(ValueError, match="all reference embeddings are equal"):
        Subspace.fit(encode, x, 4, reference=torch.ones(90, SIZE))
    with pytest.raises(TypeError, match="inputs are of type ndarray"):
        encoder_volume(encode, x.numpy(), rank=4)
    with pytest.raises(ValueError, match="rank must be a whole number from 1 to 32, got 33"):
        encoder_volume(encode, x, rank=33)
    x[2:15] = math.nan
    with pytest.raises(ValueError, match="got 7 of 20"):
        Subspace.fit(encode, x, 4, reference=z)
    for count in (3, -1, 9.5):
        with pytest.raises(ValueError, match=f"calibration_samples must be a whole number of at least 8, got {count}"):
            encoder_volume(encode, x, rank=2, estimator="subspace", calibration_samples=count)  # type: ignore[arg-type]  # as above
    with pytest.raises(ValueError, match="exact or subspace, got 'sketch'"):
        encoder_volume(encode, x, rank=2, estimator="sketch")  # type: ignore[arg-type]  # no longer one


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_same_where_gradients_are_off_and_draws_nothing(context: type) -> None:
    encode, x = make_encoder(), make_inputs(20, 0)
    reference = encode(x).detach()
    expected = Subspace.fit(encode, x, 3, reference=reference).log_volume(encode, x)
    before = torch.get_rng_state()
    with context():
        volumes = Subspace.fit(encode, x, 3, reference=reference).log_volume(encode, x)
    assert torch.equal(volumes, expected)
    assert torch.equal(torch.get_rng_state(), before)
