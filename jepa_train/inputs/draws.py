"""Random numbers of training as a pure function of their purpose and the batch: nothing to save, nothing to restore."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Generator, Tensor

from jepa_train.inputs.views import PLACES, RandomView


class Purpose(IntEnum):
    """Purpose of a draw. Equal numbers for two purposes would tie, say, crops to masks."""

    MASKS = 0
    VIEWS = 1
    PIXEL_NOISE = 2
    SLICES = 3
    DROPPING = 4


def seed_of(purpose: Purpose, *, seed: int, step: int, global_rank: int = 0) -> int:
    """Derive the seed of a generator.

    Args:
        purpose: purpose of its draws.
        seed: seed of the run, 0 or more.
        step: training batches before this one, over all epochs.
        global_rank: number of the process; leave it at 0 for what all processes must draw alike.

    Returns:
        a number in [0, 2^63), different for different arguments but for chance (64 mixed bits).
    """
    words = np.random.SeedSequence([seed, step, global_rank, purpose]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


@dataclass(frozen=True)
class BatchDraws:
    """Random numbers of one training batch, drawn for the global batch, of which each process takes its share.

    A process takes every ``world_size``-th sample, as from a DistributedSampler, so that the draws do not depend on the
    number of processes.

    Attributes:
        seed: seed of the run.
        step: training batches before this one, over all epochs.
        global_rank: number of this process.
        world_size: number of processes.
    """

    seed: int
    step: int
    global_rank: int
    world_size: int

    def shared_seed(self, purpose: Purpose) -> int:
        """Seed that all processes have."""
        return seed_of(purpose, seed=self.seed, step=self.step)

    def own_seed(self, purpose: Purpose) -> int:
        """Seed of this process alone."""
        return seed_of(purpose, seed=self.seed, step=self.step, global_rank=self.global_rank)

    def views(self, views: Sequence[RandomView], images: Sequence[Tensor]) -> list[Tensor]:
        """Make views of each of this process's images.

        Pixel noise is too large to be drawn for the global batch: each process draws its own.

        Args:
            views: augmentation of each view.
            images: one batch (B, C, H, W), or several that show the same samples, of which the views are made in turn.

        Returns:
            a batch (B, C, H, W) for each view.
        """
        sources = [images[number % len(images)] for number in range(len(views))]
        if all(view.is_identity for view in views):
            return sources
        batch_size, most = len(sources[0]), max(view.num_draws for view in views)
        generator = Generator().manual_seed(self.shared_seed(Purpose.VIEWS))
        draws = self._uniform(len(views), batch_size, PLACES, generator)
        if most > PLACES:  # after the others, which stay what they are without these
            draws = torch.cat([draws, self._uniform(len(views), batch_size, most - PLACES, generator)], dim=2)
        noise_generator = Generator(sources[0].device).manual_seed(self.own_seed(Purpose.PIXEL_NOISE))
        return [
            view(source, draws=draw, noise_generator=noise_generator)
            for view, source, draw in zip(views, sources, draws, strict=True)
        ]

    def masks(
        self, sampler: Callable[[int, Generator], tuple[Tensor, Tensor]], batch_size: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Draw context (B, V) and targets (B, M, T) of this process's ``batch_size`` images, on a device."""
        generator = Generator().manual_seed(self.shared_seed(Purpose.MASKS))
        context, targets = sampler(batch_size * self.world_size, generator)
        return _send(context[self._share], device), _send(targets[self._share], device)

    def _uniform(self, views: int, batch_size: int, numbers: int, generator: Generator) -> Tensor:
        """(views, batch_size, numbers): the share of this process in the numbers of the global batch."""
        shape = (views, batch_size * self.world_size, numbers)
        return torch.rand(shape, generator=generator, dtype=torch.float32)[:, self._share]

    @property
    def _share(self) -> slice:
        return slice(self.global_rank, None, self.world_size)


def _send(indices: Tensor, device: torch.device) -> Tensor:
    """Copy to a device without waiting for the work that is queued there."""
    if device.type == "cuda":
        return indices.pin_memory().to(device, non_blocking=True)
    return indices.to(device)
