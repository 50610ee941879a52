"""Images of curved shapes whose content has a known density, which pixels do not show.

Content y in R^F is drawn from a mixture of isotropic Gaussians; nuisance n (place, contrast, background) is uniform;
an image is R(y, n) plus white noise. Two log densities are known of each sample, though not as functions of its pixels:

    content:  log p(y)
    manifold: log p(y) - 1/2 log det J_c^T P J_c, with the renderer's Jacobian J_c by content, and P the projection onto
              the complement of its Jacobian by nuisance

The second is what a change of variables from an embedding that knows the content alone arrives at: its volume is with
respect to pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Generator, Tensor

from jepa_train.data.base import DrawnDataModule, ImageTensors
from jepa_train.data.blobs import MAX_CONTENT, NUISANCES, log_content_volume, render_blobs
from jepa_train.data.latents import LatentMixture, random_mixture
from jepa_train.data.resumable import MadeInBatches
from jepa_train.errors import ConfigurationError, check_at_least


class Shapes:
    """A distribution over images of shapes.

    Args:
        image_size: S, height and width in pixels.
        latents: distribution of the content (N, F).
        shift: largest distance of a shape from the middle along x and y, as a share of the image side.
        contrast: largest deviation of the log contrast from 0.
        background: largest deviation of the background's level, and of its rise from side to side, from 0.
        noise: standard deviation of the pixel noise.

    Raises:
        ConfigurationError: for a number that cannot work.
    """

    def __init__(
        self,
        image_size: int,
        latents: LatentMixture,
        *,
        shift: float,
        contrast: float,
        background: float,
        noise: float,
    ) -> None:
        check_at_least(0, shift=shift, contrast=contrast, background=background, noise=noise)
        self.image_size = image_size
        self.latents = latents
        self.limits = torch.tensor([shift, shift, contrast, background, background, background], dtype=torch.float64)
        self.noise = noise

    def draw_nuisance(self, count: int, generator: Generator | None = None) -> Tensor:
        """Draw what a view changes, (count, 6) in float64; without a generator by torch's global one."""
        uniform = torch.rand(count, NUISANCES, generator=generator, dtype=torch.float64)
        return (2.0 * uniform - 1.0) * self.limits

    def draw_noise(self, count: int, generator: Generator | None = None) -> Tensor:
        """Draw pixel noise, (count, 1, S, S) in float32; without a generator by torch's global one."""
        shape = (count, 1, self.image_size, self.image_size)
        return self.noise * torch.randn(shape, generator=generator, dtype=torch.float32)

    def render(self, content: Tensor, nuisance: Tensor, noise: Tensor) -> Tensor:
        """Render (N, F) and (N, 6) with pixel noise, (N, 1, S, S) in float32; bit for bit the same in any company."""
        return render_blobs(content.float(), nuisance.float(), image_size=self.image_size) + noise

    def manifold_log_density(self, content: Tensor, nuisance: Tensor) -> Tensor:
        """Log density of content (N, F) per unit of volume of the images without noise, (N,) nats.

        Only nuisance that is drawn is projected out.
        """
        drawn = torch.eye(NUISANCES, dtype=torch.float64)[self.limits > 0.0]

        def render(content: Tensor, nuisance: Tensor) -> Tensor:
            return render_blobs(content, nuisance @ drawn, image_size=self.image_size)

        return self.latents.log_density(content) - log_content_volume(render, content, nuisance @ drawn.T)


class ShapesDataset(ImageTensors):
    """Images drawn once from :class:`Shapes`, with the mixture's component as label.

    Args:
        shapes: what they are drawn from.
        count: N, number of images.
        seed: seed of the draws.

    Attributes:
        content: (N, F).
        nuisance: (N, 6).
    """

    def __init__(self, shapes: Shapes, count: int, *, seed: int) -> None:
        generator = Generator().manual_seed(seed)
        self.shapes = shapes
        self.content, component = shapes.latents.sample(count, generator)
        self.nuisance = shapes.draw_nuisance(count, generator)
        noise = shapes.draw_noise(count, generator)
        super().__init__(shapes.render(self.content, self.nuisance, noise), component)

    @cached_property
    def log_densities(self) -> dict[str, Tensor]:
        """The truths of :class:`jepa_monitor.JEPAScoreMonitor`, (N,) each, the headline first."""
        return {
            "manifold": self.shapes.manifold_log_density(self.content, self.nuisance),
            "content": self.shapes.latents.log_density(self.content),
        }


class ShapeViews(MadeInBatches[dict[str, Tensor]]):
    """Two images of the content of each sample, which differ in all that is nuisance.

    Both, ``image`` and ``view_b``, are drawn by torch's global generator each time that they are asked for.

    Args:
        drawn: the samples.
    """

    def __init__(self, drawn: ShapesDataset) -> None:
        self.drawn = drawn

    def __len__(self) -> int:
        return len(self.drawn)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Draw the nuisance (2, 6) and the pixel noise (2, 1, S, S) of a sample's views."""
        shapes = self.drawn.shapes
        return shapes.draw_nuisance(2), shapes.draw_noise(2)

    def make(self, indices: Sequence[int], draws: Sequence[tuple[Tensor, Tensor]]) -> list[dict[str, Tensor]]:
        """Render the views of all samples at once."""
        nuisance, noise = (torch.cat(parts) for parts in zip(*draws, strict=True))
        content = self.drawn.content[list(indices)].repeat_interleave(2, dim=0)
        images = self.drawn.shapes.render(content, nuisance, noise)
        labels = self.drawn.labels[list(indices)]
        return [
            {"image": image, "view_b": view_b, "label": label}
            for image, view_b, label in zip(images[0::2], images[1::2], labels, strict=True)
        ]


class ShapesDataModule(DrawnDataModule[ShapesDataset]):
    """Images of curved shapes of known density, made in memory; each epoch shows two new views of each content.

    Args:
        image_size: height and width, in pixels.
        latent_size: number of content factors, from 1 to 4: log width, log aspect, angle, bend.
        num_components: components of the mixture of the content, equally likely.
        separation: distance of the components' means from the origin.
        narrowest: standard deviation of the narrowest component; that of the widest is 1.
        shift: largest distance of a shape from the middle along x and y, as a share of the image side; a nuisance.
        contrast: largest deviation of the log contrast from 0; a nuisance.
        background: largest deviation of the background's level, and of its rise from side to side, from 0; a nuisance.
        noise: standard deviation of the pixel noise.
        num_train: training contents.
        num_probe: images that are measured.
        batch_size: contents per process.
        num_workers: worker processes of each loader, which render.
        seed: seed of the mixture and of all that is drawn.
    """

    def __init__(
        self,
        image_size: int = 24,
        latent_size: int = 4,
        num_components: int = 6,
        separation: float = 2.5,
        narrowest: float = 0.4,
        shift: float = 0.1,
        contrast: float = 0.1,
        background: float = 0.2,
        noise: float = 0.07,
        num_train: int = 20_000,
        num_probe: int = 1_024,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            image_size,
            1,
            num_train=num_train,
            num_probe=num_probe,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
        )
        if latent_size > MAX_CONTENT:
            raise ConfigurationError(f"shapes have up to {MAX_CONTENT} content factors, not {latent_size}.")
        latents = random_mixture(
            latent_size, num_components=num_components, separation=separation, narrowest=narrowest, seed=seed
        )
        self.shapes = Shapes(image_size, latents, shift=shift, contrast=contrast, background=background, noise=noise)

    def draw(self, count: int, *, seed: int) -> ShapesDataset:
        """Draw one image of each content."""
        return ShapesDataset(self.shapes, count, seed=seed)

    def make_augmented(self) -> ShapeViews:
        """The training contents, as training sees them."""
        drawn = self.reference_dataset()
        assert isinstance(drawn, ShapesDataset)
        return ShapeViews(drawn)
