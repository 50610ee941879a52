"""A normalising flow, fitted by zuko: slow, and here so that the other densities can be compared with it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import require_whole
from .densities import EmbeddingDensity, GaussianDensity

if TYPE_CHECKING:
    from typing_extensions import Self

HELD_OUT = 10  # one in so many embeddings
LOOK = 50  # steps between two looks at them
BATCH, LEARNING_RATE = 256, 2e-3
CHUNK_ROWS = 4096


@dataclass(frozen=True, repr=False)
class FlowDensity(EmbeddingDensity):
    """A neural spline flow (Durkan et al. 2019) of whitened embeddings: log p(z) = log p_flow(W (z - mean)) + log |W|.

    Attributes:
        gaussian: mean and whitener W; where they leave directions out, the density is that on the flat.
        flow: zuko's flow, in float32.
    """

    gaussian: GaussianDensity
    flow: nn.Module

    @classmethod
    def fit(
        cls, z: Tensor, *, transforms: int = 3, hidden: int = 64, max_steps: int = 2_000, seed: int = 0
    ) -> FlowDensity:
        """Fit by maximum likelihood to the finite of (N, K) embeddings, on their device.

        Adam with batches of 256; of the states after every 50 steps that is kept which gives a random tenth of the
        embeddings, not used for training, the highest mean log density. On a CPU 2,000 steps are about a minute.

        Args:
            z: (N, K) embeddings, more than K of them, at least 20.
            transforms: number of spline transforms.
            hidden: width of the two hidden layers of each.
            max_steps: number of optimizer steps, at least 1.
            seed: seed of weights, batches and the tenth; the global generator is left as it was.

        Raises:
            ImportError: where zuko is not installed.
            TypeError: for what is not a tensor.
            ValueError: for a shape other than (N, K), too few embeddings, when all are equal, for complex ones, or for
                settings that are no whole numbers.
        """
        require_whole(1, transforms=transforms, hidden=hidden, max_steps=max_steps)
        require_whole(0, seed=seed)
        try:
            from zuko.flows import NSF
        except ImportError:
            raise ImportError("FlowDensity needs zuko: pip install zuko.") from None
        gaussian = GaussianDensity.fit(z)
        white = gaussian.whiten(z[torch.isfinite(z).all(1)]).float()
        if len(white) < 2 * HELD_OUT:
            raise ValueError(f"a flow needs at least {2 * HELD_OUT} finite embeddings, got {len(white)}.")
        # the state of the CPU alone is drawn from
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(seed)
            flow: nn.Module = NSF(white.shape[1], transforms=transforms, hidden_features=(hidden, hidden))
            _train(flow.to(white.device), white.clone(), max_steps)
        return cls(gaussian, flow.requires_grad_(False))

    @property
    def size(self) -> int:
        """K, number of coordinates."""
        return self.gaussian.size

    @property
    def volume_rank(self) -> int:
        """Number of directions that the whitener leaves in."""
        return self.gaussian.volume_rank

    def evaluate(self, z: Tensor) -> Tensor:
        """Log density of finite float64 embeddings, (N, K) -> (N,) nats."""
        white = self.gaussian.whiten(z)
        with torch.no_grad():
            of_flow = torch.cat([self.flow().log_prob(rows.float()).double() for rows in white.split(CHUNK_ROWS)])
        return of_flow + self.gaussian.log_determinant

    def to(self, device: torch.device | str) -> Self:
        """Copy to another device."""
        return replace(self, gaussian=self.gaussian.to(device), flow=copy.deepcopy(self.flow).to(device))


def _train(flow: nn.Module, white: Tensor, max_steps: int) -> None:
    """Train the flow in place; draws from the global generator."""
    order = torch.randperm(len(white)).to(white.device)
    held_out, rows = white[order[: len(white) // HELD_OUT]], white[order[len(white) // HELD_OUT :]]
    optimizer = torch.optim.Adam(flow.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max_steps)
    best: tuple[float, dict[str, Any]] = (-torch.inf, {})
    for step in range(1, max_steps + 1):
        batch = rows[torch.randint(len(rows), (BATCH,)).to(rows.device)]
        optimizer.zero_grad()
        loss = -flow().log_prob(batch).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % LOOK == 0 or step == max_steps:
            with torch.no_grad():
                value = float(flow().log_prob(held_out).mean())
            best = max(best, (value, copy.deepcopy(flow.state_dict())), key=lambda found: found[0])
    flow.load_state_dict(best[1])
