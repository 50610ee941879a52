"""Images of known density, against torch.distributions in the space of all pixels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from jepa_train.data import MixtureDataModule
from jepa_train.data.mixture import ImageMixture, cosine_patterns, image_mixture
from jepa_train.errors import ConfigurationError


def mixture_of(channels: int = 2, **settings: float) -> ImageMixture:
    return image_mixture(
        image_size=4,
        channels=channels,
        latent_size=3,
        num_components=3,
        contrast=0.7,
        seed=5,
        **{"noise": 0.2} | settings,
    )


def normal_mixture(mixture: ImageMixture, basis: Tensor) -> MixtureSameFamily:
    """The distribution of basis @ x, by its means and covariances: x = a Phi y0 + s e."""
    seen = basis @ mixture.patterns.flatten(1).T * mixture.amplitude  # of the latent, in the basis
    covariances = [
        width**2 * seen @ seen.T + mixture.noise**2 * torch.eye(len(basis), dtype=torch.float64)
        for width in mixture.latents.widths.tolist()
    ]
    components = MultivariateNormal(mixture.latents.means @ seen.T, torch.stack(covariances))
    return MixtureSameFamily(Categorical(mixture.latents.weights), components)


@pytest.mark.parametrize("channels", [1, 2])
def test_both_densities_are_those_of_a_mixture_of_normals(channels: int) -> None:
    mixture = mixture_of(channels)
    images, _ = mixture.sample(200, seed=1)
    pixels = images.double().flatten(1)
    factors = normal_mixture(mixture, mixture.patterns.flatten(1)).log_prob(mixture.coordinates(images))
    torch.testing.assert_close(mixture.log_density_of_factors(images), factors, rtol=0.0, atol=1e-9)
    every_pixel = torch.eye(pixels.shape[1], dtype=torch.float64)
    with_noise = normal_mixture(mixture, every_pixel).log_prob(pixels)
    torch.testing.assert_close(mixture.log_density_with_noise(images), with_noise, rtol=0.0, atol=1e-9)


def test_samples_are_drawn_from_that_density() -> None:
    """Samples lie where they are dense: the mean of log p is -entropy, but for a few standard errors."""
    mixture = mixture_of(channels=1)
    drawn, component = mixture.sample(20_000, seed=2)
    oracle = normal_mixture(mixture, mixture.patterns.flatten(1))
    torch.manual_seed(0)
    expected = oracle.log_prob(oracle.sample((20_000,)))
    found = mixture.log_density_of_factors(drawn)
    standard_error = math.sqrt((float(expected.var()) + float(found.var())) / 20_000)
    assert abs(float(expected.mean() - found.mean())) < 4.0 * standard_error
    shares = torch.bincount(component, minlength=3) / 20_000
    torch.testing.assert_close(shares.double(), mixture.latents.weights, atol=0.015, rtol=0.0)
    assert torch.equal(drawn, mixture.sample(20_000, seed=2)[0])
    assert not torch.equal(drawn, mixture.sample(20_000, seed=3)[0])


def test_patterns_are_orthonormal_smooth_and_without_a_mean() -> None:
    patterns = cosine_patterns(15, image_size=4, channels=3).flatten(1)
    torch.testing.assert_close(patterns @ patterns.T, torch.eye(15, dtype=torch.float64), atol=1e-12, rtol=0.0)
    torch.testing.assert_close(patterns.sum(1), torch.zeros(15, dtype=torch.float64), atol=1e-12, rtol=0.0)


def test_contrast_is_the_deviation_of_a_pixel_for_a_latent_of_unit_variance() -> None:
    mixture = image_mixture(
        image_size=8, latent_size=4, num_components=1, separation=0.0, narrowest=1.0, contrast=0.5, noise=0.0
    )
    images, _ = mixture.sample(4_000, seed=0)
    assert float(images.square().mean().sqrt()) == pytest.approx(0.5, rel=0.02)


def test_what_cannot_be_is_said() -> None:
    images, _ = mixture_of(noise=0.0).sample(2, seed=0)
    with pytest.raises(ConfigurationError, match="set noise above 0"):
        mixture_of(noise=0.0).log_density_with_noise(images)
    with pytest.raises(ConfigurationError, match="lower latent_size"):
        image_mixture(image_size=2, latent_size=4)


def test_probe_and_training_images_are_drawn_apart_and_carry_their_truths() -> None:
    data = MixtureDataModule(num_train=50, num_probe=40)
    train, probe = data.make_train(), data.make_probe()
    assert (len(train), len(probe)) == (50, 40)
    assert not torch.equal(train.images[:40], probe.images)
    assert list(probe.log_densities) == ["factors", "with_noise"]
    assert torch.equal(probe.log_densities["factors"](probe.images), data.mixture.log_density_of_factors(probe.images))
    assert list(MixtureDataModule(noise=0.0, num_train=4, num_probe=4).make_probe().log_densities) == ["factors"]
