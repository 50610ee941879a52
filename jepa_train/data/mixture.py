"""Images whose probability density is known in closed form.

A latent y0 in R^r is drawn from a mixture of isotropic Gaussians and rendered through r smooth orthonormal patterns
(2-d cosines), then white noise is added to every pixel: x = a Phi y0 + s e. With y = Phi^T x (orthonormal coordinates):

    of factors: log p(y) = log sum_m w_m N(y; a mu_m, (a^2 sigma_m^2 + s^2) I_r)
    with noise: log p(x) = log p(y) + log N(x - Phi y; 0, s^2 I_{D - r})
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_monitor.runtime.concise import Concise
from jepa_train.data.base import DrawnDataModule, ImageTensors
from jepa_train.data.latents import LatentMixture, random_mixture
from jepa_train.errors import ConfigurationError, check_above_0, check_at_least


@dataclass(frozen=True, repr=False)
class ImageMixture(Concise):
    """Distribution over images with its two log densities.

    Attributes:
        patterns: (r, C, H, W), orthonormal.
        latents: distribution of the latent y0.
        amplitude: a, pixel units per latent unit.
        noise: s, standard deviation of the pixel noise.
    """

    patterns: Tensor
    latents: LatentMixture
    amplitude: float
    noise: float

    def sample(self, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """Draw ``count`` images (count, C, H, W) in float32 and the components (count,) they came from."""
        generator = torch.Generator().manual_seed(seed)
        latent, component = self.latents.sample(count, generator)
        images = torch.tensordot(self.amplitude * latent.float(), self.patterns.float(), dims=1)
        return images + self.noise * torch.randn(images.shape, generator=generator, dtype=torch.float32), component

    def coordinates(self, images: Tensor) -> Tensor:
        """y = Phi^T x: (N, C, H, W) -> (N, r) in float64."""
        return images.double().flatten(1) @ self.patterns.flatten(1).T

    def log_density_of_factors(self, images: Tensor) -> Tensor:
        """log p(y) in nats, (N,): the density of what the patterns show."""
        drawn = self.latents
        widths = ((self.amplitude * drawn.widths).square() + self.noise**2).sqrt()
        seen = LatentMixture(self.amplitude * drawn.means, widths, drawn.weights)
        return seen.log_density(self.coordinates(images))

    def log_density_with_noise(self, images: Tensor) -> Tensor:
        """log p(x) in nats, (N,): the density of all pixels, noise included.

        Raises:
            ConfigurationError: without pixel noise there is no density in pixel space.
        """
        if self.noise == 0.0:
            raise ConfigurationError("images without pixel noise have no density of all pixels: set noise above 0.")
        y = self.coordinates(images)
        residual = images.double().flatten(1).square().sum(1) - y.square().sum(1)
        dimensions = self.patterns[0].numel() - y.shape[1]
        log_noise = -0.5 * (residual / self.noise**2 + dimensions * math.log(2.0 * math.pi * self.noise**2))
        return self.log_density_of_factors(images) + log_noise


def image_mixture(
    *,
    image_size: int,
    channels: int = 1,
    latent_size: int = 2,
    num_components: int = 4,
    separation: float = 1.0,
    narrowest: float = 0.3,
    contrast: float = 1.0,
    noise: float = 0.3,
    seed: int = 0,
) -> ImageMixture:
    """Images of a latent from :func:`random_mixture`, through as many smooth patterns as it has coordinates.

    Args:
        image_size: H = W, in pixels.
        channels: C; all channels show the same pattern.
        latent_size: r.
        num_components, separation, narrowest: see :func:`random_mixture`.
        contrast: standard deviation per pixel of the patterns for a latent of unit variance.
        noise: standard deviation of the pixel noise.
        seed: seed of the means.

    Raises:
        ConfigurationError: for a number that cannot work, or if the images have too few pixels for the patterns.
    """
    check_at_least(1, image_size=image_size, channels=channels)
    check_at_least(0, noise=noise)
    check_above_0(contrast=contrast)
    latents = random_mixture(
        latent_size, num_components=num_components, separation=separation, narrowest=narrowest, seed=seed
    )
    if latent_size > image_size**2 - 1:
        raise ConfigurationError(
            f"{latent_size} patterns do not fit into {image_size} x {image_size} pixels: lower latent_size."
        )
    return ImageMixture(
        patterns=cosine_patterns(latent_size, image_size=image_size, channels=channels),
        latents=latents,
        amplitude=contrast * math.sqrt(channels * image_size**2 / latent_size),
        noise=noise,
    )


def cosine_patterns(count: int, *, image_size: int, channels: int = 1) -> Tensor:
    """The ``count`` smoothest 2-d cosines (DCT-II) but the constant one, (count, C, H, W), orthonormal, float64."""
    position = (torch.arange(image_size, dtype=torch.float64) + 0.5) / image_size
    waves = torch.cos(math.pi * torch.arange(image_size, dtype=torch.float64).unsqueeze(1) * position)
    waves = waves / waves.norm(dim=1, keepdim=True)
    frequencies = sorted(
        ((u, v) for u in range(image_size) for v in range(image_size) if u + v > 0),
        key=lambda uv: (uv[0] ** 2 + uv[1] ** 2, uv),
    )[:count]
    patterns = torch.stack([torch.outer(waves[u], waves[v]) for u, v in frequencies])
    return patterns.unsqueeze(1).expand(-1, channels, -1, -1) / math.sqrt(channels)


class MixtureDataset(ImageTensors):
    """Images drawn once from an :class:`ImageMixture`, with the component as label.

    ``log_densities`` is what :class:`jepa_monitor.JEPAScoreMonitor` ranks against: the first is the headline.
    ``coordinates`` are those of the plane that it draws.
    """

    def __init__(self, mixture: ImageMixture, count: int, *, seed: int) -> None:
        super().__init__(*mixture.sample(count, seed=seed))
        self.log_densities: dict[str, Callable[[Tensor], Tensor]] = {"factors": mixture.log_density_of_factors}
        if mixture.noise > 0.0:
            self.log_densities["with_noise"] = mixture.log_density_with_noise
        self.coordinates = mixture.coordinates


class MixtureDataModule(DrawnDataModule[MixtureDataset]):
    """Images of known density, made in memory.

    Args:
        image_size: height and width, in pixels.
        channels: image channels.
        latent_size: r, number of factors that an image depends on.
        num_components: components of the mixture, equally likely.
        separation: distance of the components' means from the origin.
        narrowest: standard deviation of the narrowest component; that of the widest is 1.
        contrast: standard deviation per pixel of the patterns for a latent of unit variance.
        noise: standard deviation of the pixel noise.
        num_train: training images.
        num_probe: images that are measured.
        batch_size: images per process.
        num_workers: worker processes of each loader; the images are in memory, so 0 is fastest.
        seed: seed of the mixture and of what is drawn from it.
    """

    def __init__(
        self,
        image_size: int = 16,
        channels: int = 1,
        latent_size: int = 2,
        num_components: int = 4,
        separation: float = 1.0,
        narrowest: float = 0.3,
        contrast: float = 0.1,
        noise: float = 0.1,
        num_train: int = 20_000,
        num_probe: int = 1_024,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            image_size,
            channels,
            num_train=num_train,
            num_probe=num_probe,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        self.mixture = image_mixture(
            image_size=image_size,
            channels=channels,
            latent_size=latent_size,
            num_components=num_components,
            separation=separation,
            narrowest=narrowest,
            contrast=contrast,
            noise=noise,
            seed=seed,
        )

    def draw(self, count: int, *, seed: int) -> MixtureDataset:
        """Draw images with their components."""
        return MixtureDataset(self.mixture, count, seed=seed)
