"""Scores against the paper's listing in float64, closed forms, and invariances."""

from __future__ import annotations

import math
from functools import partial

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from jepa_monitor import (
    EmbeddingReference,
    Subspace,
    aggregate_views,
    encoder_volume,
    jacobian_gram,
    jepa_score,
    log_density,
)
from jepa_monitor.density import DensityChoice, log_density_from_volume, log_singular_values, rounding_error
from jepa_monitor.density.densities import EmbeddingDensity, GaussianDensity
from jepa_monitor.ranking import spearman
from tests.monitor.density.helpers import ENCODERS


def listing_1(encode: nn.Module, x: Tensor, eps: float = 1e-6) -> Tensor:
    """Listing 1 of arXiv 2510.05949, evaluated in float64."""
    jacobian = torch.autograd.functional.jacobian(lambda batch: encode(batch).sum(0), x.double())
    return torch.linalg.svdvals(jacobian.flatten(2).permute(1, 0, 2)).clip(eps).log().sum(1)


@pytest.mark.parametrize("name", ENCODERS)
def test_jepa_score_is_listing_1(name: str) -> None:
    encode = ENCODERS[name]().double()
    x = torch.randn(8, 3 if name == "wide" else 10)
    torch.testing.assert_close(jepa_score(encode, x.double()), listing_1(encode, x), rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_float32_jacobian_is_close_enough(name: str) -> None:
    encode = ENCODERS[name]()
    x = torch.randn(8, 3 if name == "wide" else 10)
    assert_within_stated_error(encode, x)


def assert_within_stated_error(encode: nn.Module, x: Tensor) -> None:
    score = jepa_score(encode, x)
    stated = rounding_error(log_singular_values(jacobian_gram(encode, x), input_size=x[0].numel()), dtype=x.dtype)
    difference = (score - listing_1(encode.double(), x)).abs()
    assert (difference <= 1e-4 + 2.0 * stated).all(), (difference, stated)


@pytest.mark.parametrize("final_norm", [True, False])
def test_vision_transformers_in_float32(final_norm: bool) -> None:
    vit = timm.create_model("test_vit", img_size=32, num_classes=0, global_pool="avg", fc_norm=final_norm).eval()
    x = torch.randn(3, 3, 32, 32)
    assert_within_stated_error(vit, x)
    torch.testing.assert_close(jepa_score(vit.double(), x.double()), listing_1(vit, x), rtol=0.0, atol=1e-4)


def test_says_when_float32_does_not_resolve_the_clip() -> None:
    """A layer norm's null direction comes out at rounding size, which large Jacobians lift over the clip."""
    encode = nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.LayerNorm(8))
    x = torch.randn(8, 10)

    def enlarged(inputs: Tensor) -> Tensor:
        return 30.0 * encode(inputs)

    with pytest.warns(UserWarning, match="use a float64 encoder"):
        wrong = jepa_score(enlarged, x)
    encode.double()
    right = jepa_score(enlarged, x.double())  # warnings are errors: there is none
    torch.testing.assert_close(right, listing_1(enlarged, x), rtol=0.0, atol=1e-4)
    assert float((wrong - right).abs().max()) > 0.1


def jitter(sample: Tensor) -> Tensor:
    return sample + 0.1 * torch.randn(sample.shape).to(sample)


def test_views_are_drawn_scored_and_joined() -> None:
    encode, x = ENCODERS["tall"]().double(), torch.randn(4, 10).double()
    before = torch.get_rng_state()
    joined = jepa_score(encode, x, views=jitter, num_views=5, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    scores = torch.stack([jepa_score(encode, jitter(sample)[None]).squeeze() for sample in x for _ in range(5)])
    harmonic = -torch.log(torch.exp(-scores.view(4, 5)).mean(1))
    torch.testing.assert_close(joined, harmonic)
    assert not torch.allclose(joined, jepa_score(encode, x, views=jitter, num_views=5, seed=4))

    reference = EmbeddingReference.measure(encode, torch.randn(100, 10).double())
    one = log_density(encode, x, reference=reference, views=lambda sample: sample, num_views=3)
    torch.testing.assert_close(one, log_density(encode, x, reference=reference))
    with pytest.raises(ValueError, match="num_views"):
        jepa_score(encode, x, views=jitter, num_views=0)


def test_the_rank_is_the_references_and_not_the_batchs() -> None:
    """Two live directions and four whose size depends on where x is: a batch from there would choose another rank."""

    def encode(x: Tensor) -> Tensor:
        weak = 1e-3 + torch.relu(x[:, :1] - 2.0)
        return torch.cat([x[:, :2], weak * torch.tanh(x[:, 2:])], 1)

    reference = EmbeddingReference.measure(encode, torch.randn(2000, 6).double().clamp(-2.0, 2.0))
    assert reference.rank == 2
    far = torch.randn(5, 6).double()
    far[:, 0] = 3.0
    whole = log_density(encode, far, reference=reference)
    assert torch.equal(log_density(encode, far, reference=reference, rank=2), whole)
    halves = [log_density(encode, half, reference=reference) for half in far.split(3)]
    torch.testing.assert_close(torch.cat(halves), whole)


def test_another_density_or_rank_is_that_of_a_reference_fitted_so() -> None:
    encode, x, training = ENCODERS["tall"]().double(), torch.randn(9, 10).double(), torch.randn(200, 10).double()
    reference = EmbeddingReference.measure(encode, training)
    gaussian = EmbeddingReference.measure(encode, training, density="gaussian", rank=2)
    torch.testing.assert_close(
        log_density(encode, x, reference=reference, embedding_density="gaussian", rank=2),
        log_density(encode, x, reference=gaussian),
    )


def gaussianise(x: Tensor) -> Tensor:
    """The exact map from a product of two-component mixtures to N(0, I): Phi^{-1}(F(x)), coordinate by coordinate."""
    normal = torch.distributions.Normal(0.0, 1.0)
    below = 0.5 * (normal.cdf((x - 1.2) / 0.5) + normal.cdf((x + 1.2) / 0.5))
    return normal.icdf(below)


def mixture_log_density(x: Tensor) -> Tensor:
    left, right = (torch.distributions.Normal(mean, 0.5).log_prob(x) for mean in (-1.2, 1.2))
    return (torch.logaddexp(left, right) - math.log(2.0)).sum(1)


@pytest.mark.parametrize("dimensions", [1, 8, 64])
def test_log_density_of_an_exact_map_is_the_truth(dimensions: int) -> None:
    signs = torch.randint(2, (1000, dimensions)) * 2.0 - 1.0
    x = (1.2 * signs + 0.5 * torch.randn(1000, dimensions)).double()
    truth = mixture_log_density(x)
    # the population's own density, so that nothing but the formula is tested
    standard = GaussianDensity(torch.zeros(dimensions).double(), torch.eye(dimensions).double())
    density = log_density(gaussianise, x, reference=EmbeddingReference(standard, rank=dimensions))
    difference = density - truth
    assert float(difference.max() - difference.min()) < 1e-3
    assert spearman(density, truth) >= 0.999
    if dimensions > 1:  # Eq. 5 drops the Gaussian term and ranks worse
        assert spearman(jepa_score(gaussianise, x), truth) < 0.8


@pytest.mark.parametrize("name", ["gaussian", "neighbours"])
@settings(deadline=None, max_examples=20)
@given(scale=st.floats(0.01, 100.0), seed=st.integers(0, 1000))
def test_scaling_moves_eq5_and_not_log_density(name: DensityChoice, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, x = (0.4 * torch.randn(shape, generator=generator).double() for shape in ((3, 6), (40, 6)))

    def encode(inputs: Tensor) -> Tensor:
        return torch.tanh(inputs @ weight.T)

    def scaled(inputs: Tensor) -> Tensor:
        return scale * encode(inputs)

    torch.testing.assert_close(jepa_score(scaled, x), jepa_score(encode, x) + 3 * math.log(scale))
    references = [EmbeddingReference.fit(f(x[:30]), density=name, rank=3) for f in (encode, scaled)]
    plain, other = (log_density(f, x[30:], reference=r) for f, r in zip((encode, scaled), references, strict=True))
    torch.testing.assert_close(other, plain)


@pytest.mark.parametrize("name", ["gaussian", "neighbours"])
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_orthogonal_maps_change_nothing(name: DensityChoice, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, x = (0.4 * torch.randn(shape, generator=generator).double() for shape in ((3, 6), (40, 6)))
    before, after = (torch.linalg.qr(torch.randn(n, n, generator=generator).double()).Q for n in (6, 3))

    def encode(inputs: Tensor) -> Tensor:
        return torch.tanh(inputs @ weight.T)

    def rotated(inputs: Tensor) -> Tensor:
        return encode(inputs @ before.T) @ after.T

    turned = x @ before
    torch.testing.assert_close(jepa_score(rotated, turned), jepa_score(encode, x))
    reference = EmbeddingReference.fit(encode(x[:30]), density=name, rank=3)
    of_rotated = EmbeddingReference.fit(rotated(turned[:30]), density=name, rank=3)
    other = log_density(rotated, turned[30:], reference=of_rotated)
    torch.testing.assert_close(other, log_density(encode, x[30:], reference=reference))


@pytest.mark.parametrize("whiten", [None, False])
@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_a_density_in_all_coordinates_goes_with_all_directions(name: DensityChoice, whiten: bool | None) -> None:
    """A linear encoder of a Gaussian, in nats: 6 coordinates, some of which hardly vary."""
    extent = torch.tensor([2.0, 1.0, 1.0, 0.5, 0.1, 0.03]).double()
    x, held_out = (1.0 + extent * torch.randn(2050, 6).double()).split([2000, 50])
    weight = torch.linalg.qr(torch.randn(6, 6).double()).Q * torch.tensor([1.0, 2.0, 3.0, 1.0, 2.0, 3.0])
    reference = EmbeddingReference.fit(x @ weight.T, density=name, whiten=whiten)
    assert reference.rank == 6
    found = log_density(lambda inputs: inputs @ weight.T, held_out, reference=reference)
    truth = torch.distributions.MultivariateNormal(x.mean(0), torch.cov(x.T)).log_prob(held_out)
    torch.testing.assert_close(found, truth, rtol=0.0, atol=1e-8 if name == "gaussian" else 0.02)


def test_fewer_directions_than_the_density_has_rank_worse_and_are_taken_where_they_are_asked_for() -> None:
    signs = torch.randint(2, (1000, 6)) * 2.0 - 1.0
    x = (1.2 * signs + 0.5 * torch.randn(1000, 6)).double()
    reference = EmbeddingReference.fit(gaussianise(x))
    truth = mixture_log_density(x)
    assert spearman(log_density(gaussianise, x, reference=reference, embedding_density="gaussian"), truth) > 0.99
    fewer = log_density(gaussianise, x, reference=reference, embedding_density="gaussian", rank=2)
    assert spearman(fewer, truth) < 0.9
    given = EmbeddingReference.fit(gaussianise(x), density="gaussian", rank=2)
    torch.testing.assert_close(fewer, log_density(gaussianise, x, reference=given))


def test_linear_encoder_has_no_eq5_ranking_and_the_gaussian_log_density() -> None:
    weight, x = torch.randn(4, 4).double(), torch.randn(500, 4).double()
    score = jepa_score(lambda inputs: inputs @ weight.T, x)
    torch.testing.assert_close(score, torch.linalg.slogdet(weight).logabsdet.expand(500))
    z = x @ weight.T
    reference = EmbeddingReference.fit(z, density="gaussian", rank=4)
    density = log_density(lambda inputs: inputs @ weight.T, x, reference=reference)
    fitted = torch.distributions.MultivariateNormal(x.mean(0), torch.cov(x.T)).log_prob(x)
    difference = density - fitted
    torch.testing.assert_close(difference, difference[:1].expand(500))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-50.0, 50.0), min_size=1, max_size=6))
def test_aggregate_views_is_the_harmonic_mean_of_volumes(scores: list[float]) -> None:
    values = torch.tensor(scores, dtype=torch.float64)
    expected = -math.log(sum(math.exp(-(s - min(scores))) for s in scores) / len(scores)) + min(scores)
    assert float(aggregate_views(values, 0)) == pytest.approx(expected, abs=1e-9)


def test_change_of_variables_takes_any_density_of_the_embedding() -> None:
    """A map of the line to an exponential variable, z = -log(1 - cdf(x)), gives back the density of the line."""
    x = torch.randn(50, 1).double()
    normal = torch.distributions.Normal(0.0, 1.0)
    z = -torch.log1p(-normal.cdf(x))
    log_volume = (normal.log_prob(x) - torch.log1p(-normal.cdf(x))).squeeze(1)  # of dz / dx
    exponential = torch.distributions.Exponential(torch.tensor(1.0).double())
    density = log_density_from_volume(log_volume, z, lambda z: exponential.log_prob(z).sum(1))
    torch.testing.assert_close(density, normal.log_prob(x).squeeze(1))


class UniformOnSphere(EmbeddingDensity):
    """The density on the unit sphere of three dimensions, per unit of its area."""

    size = 3

    def evaluate(self, z: Tensor) -> Tensor:
        return torch.full((len(z),), -math.log(4.0 * math.pi), dtype=torch.float64)


def onto_sphere(x: Tensor) -> Tensor:
    """The map from N(0, I) in two dimensions to the uniform distribution on the sphere (Archimedes): (N, 3)."""
    height, angle = torch.distributions.Normal(0.0, 1.0).cdf(x).unbind(1)
    height, angle = 2.0 * height - 1.0, 2.0 * math.pi * angle
    radius = (1.0 - height.square()).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=1)


def test_log_density_with_fewer_directions_than_coordinates_is_the_truth() -> None:
    x = torch.randn(300, 2).double()
    truth = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)
    exact = EmbeddingReference(UniformOnSphere(), rank=2)
    torch.testing.assert_close(log_density(onto_sphere, x, reference=exact), truth)
    frame = torch.linalg.qr(torch.randn(6, 3).double()).Q

    def encode(inputs: Tensor) -> Tensor:
        return onto_sphere(inputs) @ frame.T

    reference = EmbeddingReference.measure(encode, torch.randn(10_000, 2).double())
    for name in ("manifold", "neighbours"):
        assert reference.refit(density=name).rank == 2
        fitted = log_density(encode, x, reference=reference, embedding_density=name)
        assert spearman(fitted, truth) > 0.95
        assert float((fitted - truth).median()) == pytest.approx(0.0, abs=0.1)  # of nats, not up to a constant


def test_no_more_directions_are_counted_than_the_input_has() -> None:
    x = torch.randn(300, 2).double()
    reference = EmbeddingReference.measure(onto_sphere, x, density="gaussian")
    assert reference.rank == 3
    two = log_density(onto_sphere, x, reference=EmbeddingReference.measure(onto_sphere, x, density="gaussian", rank=2))
    torch.testing.assert_close(log_density(onto_sphere, x, reference=reference), two)
    with pytest.raises(ValueError, match="rank must be a whole number from 1 to 2, got 3"):
        log_density(onto_sphere, x, reference=reference, rank=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_rank_above_the_real_one_is_said(dtype: torch.dtype) -> None:
    encode, x = ENCODERS["rank-deficient"]().to(dtype), torch.randn(100, 10, dtype=dtype)  # two of five directions
    reference = EmbeddingReference.measure(encode, x, rank=2)
    log_density(encode, x[:9], reference=reference)  # warnings are errors: there is none
    for call in (
        partial(log_density, reference=reference, rank=3),
        partial(encoder_volume, rank=3),
        partial(encoder_volume, rank=3, estimator="subspace"),
        Subspace.fit(encode, x[:9], 3, reference=encode(x).detach()).log_volume,
    ):
        with pytest.warns(UserWarning, match=r"of 9 samples count singular values that are rounding: .* rank = 3"):
            call(encode, x[:9])


def test_random_weights_rank_a_curved_manifold() -> None:
    """Change of variables holds for any encoder, with the density that its embeddings have."""
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    centres, bend, lift = 2.0 * draw(4, 3), draw(3, 24), draw(24, 24) / 24**0.5

    def render(latents: Tensor) -> Tensor:
        return torch.tanh(0.2 * latents @ bend) @ lift

    def of_latents(latents: Tensor) -> Tensor:
        return torch.logsumexp(-2.0 * (latents[:, None] - centres).square().sum(2), dim=1)

    latents = centres[torch.randint(4, (4400,), generator=generator)] + 0.5 * draw(4400, 3)
    x, held_out = render(latents[:4000]), latents[4000:]
    volume = log_singular_values(jacobian_gram(render, held_out), input_size=3).sum(1)
    truth = of_latents(held_out) - volume
    first, second = draw(24, 256) / 24**0.5, draw(256, 10) / 16.0

    def encode(inputs: Tensor) -> Tensor:
        return torch.tanh(inputs @ first) @ second

    reference = EmbeddingReference.measure(encode, x)
    assert reference.rank == 3
    assert spearman(log_density(encode, render(held_out), reference=reference), truth) > 0.93
    gaussian = log_density(encode, render(held_out), reference=reference, embedding_density="gaussian")
    assert spearman(gaussian, truth) < 0.8
