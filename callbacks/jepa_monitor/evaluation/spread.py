"""Callbacks for how frozen features spread; they need no labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from ..callback import Found
from ..errors import require_whole
from ..probe.pixels import has_pixels, pixels
from ..probe.shards import compute_everywhere
from ..runtime.distributed import fail_together
from .features import feature_statistics, lidar, lidar_bound, recovery, why_unfit
from .images import crop_and_flip
from .online import OnlineEvaluation

RECOVERY = "features/recovery"
View = Callable[[Tensor, torch.Generator], Tensor]


class LiDAR(OnlineEvaluation):
    """LiDAR (arXiv 2312.04474): the number of directions in which images differ by more than their views do.

    ``features/lidar``: from 1 to min(K, n - 1); ``features/lidar_ratio``: over that bound. No labels are needed. Both
    are NaN with one warning where all features are equal or some are not finite. Noise that has nothing to do with the
    image spreads alike between images and between views, and comes near the bound: read it beside an accuracy.

    Args:
        num_samples: n, number of probe images, chosen at random, the same at each measurement. LiDAR cannot exceed n -
            1.
        views: q, number of views of each image.
        view: function ``(inputs, generator) -> inputs`` that makes the views. It gets q copies of one image on the
            encoder's device, and a CPU generator that the image's number seeds. Default: random crops, mirrored or not.
        delta: ridge on the covariance within images, as a share of the mean variance.
        settings: as :class:`OnlineEvaluation` takes them: ``every_n_epochs``, ``encoder``, ``pool``, ``probe``,
            ``images``, ``on_error`` and ``name``.
    """

    usual_tags = ("features/lidar", "features/lidar_ratio")

    def __init__(
        self,
        num_samples: int = 512,
        views: int = 8,
        view: View | None = None,
        delta: float = 1e-4,
        **settings: Any,  # no Unpack[TypedDict], by which jsonargparse loses defaults and help texts
    ) -> None:
        require_whole(2, views=views)
        if not delta > 0.0:
            raise ValueError(f"delta must be positive, got {delta}.")
        super().__init__(num_samples=num_samples, **settings)
        self.views = views
        self.view = view or crop_and_flip
        self.delta = delta

    def gather(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Callable[[], Found]:
        """Gather features of all views of all images."""
        with fail_together(pl_module.device):
            encode = next(iter(self.encoders(pl_module).values()))

        def embed_views(inputs: Tensor, indices: Tensor) -> Tensor:
            # drawn for each image by itself: the views are the same whichever process makes them
            views = [
                self.view(torch.stack([one] * self.views), torch.Generator().manual_seed(int(i)))
                for one, i in zip(inputs.to(pl_module.device), indices, strict=True)
            ]
            features = encode(torch.cat(views), indices)
            return features.reshape(len(inputs), self.views, -1)

        shard = self.open_probe(trainer, pl_module)
        z_NQK = compute_everywhere(shard, {"z": embed_views}, device=pl_module.device)["z"]
        return lambda: self._compute(z_NQK)

    def _compute(self, z_NQK: Tensor) -> Found:
        why = why_unfit(z_NQK)
        if why is not None:
            return Found(dict.fromkeys(self.usual_tags, math.nan), [f"LiDAR of the features says nothing: {why}."])
        value = lidar(z_NQK, delta=self.delta)
        bound = lidar_bound(len(z_NQK), z_NQK.shape[2])
        return Found({"features/lidar": value, "features/lidar_ratio": value / bound})


class FeatureStatistics(OnlineEvaluation):
    """Spread of features, and the number of their directions.

    ``features/std_mean``, ``features/std_min``, ``features/std_l2_normalised_ratio`` and ``features/rank_ratio``, see
    :func:`feature_statistics`; no labels are needed. After a collapse to a point the first three are 0, which is what
    they mean, and the rank is NaN, with one warning. ``features/recovery``, where inputs are images or few numbers: the
    share of their principal components that a linear map finds in the features, see :func:`recovery`.

    Args:
        num_samples: number of probe samples, chosen at random, the same at each measurement. Give at least 2 K.
        settings: as :class:`OnlineEvaluation` takes them: ``every_n_epochs``, ``encoder``, ``pool``, ``probe``,
            ``images``, ``on_error`` and ``name``.
    """

    usual_tags = (
        "features/std_mean",
        "features/std_min",
        "features/std_l2_normalised_ratio",
        "features/rank_ratio",
    )

    def __init__(
        self,
        num_samples: int = 2_048,
        **settings: Any,  # no Unpack[TypedDict], by which jsonargparse loses defaults and help texts
    ) -> None:
        super().__init__(num_samples=num_samples, **settings)

    @property
    def _tag_prefixes(self) -> tuple[str, ...]:
        return (*self.usual_tags, RECOVERY)

    def gather(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Callable[[], Found]:
        """Gather features of the probe."""
        with fail_together(pl_module.device):
            encode = next(iter(self.encoders(pl_module).values()))
        shard = self.open_probe(trainer, pl_module)
        functions = {"z": encode}
        if has_pixels(shard.peek()):
            functions["inputs"] = lambda inputs, _: pixels(inputs)
        gathered = compute_everywhere(shard, functions, device=pl_module.device)
        return lambda: self._compute(gathered["z"], gathered.get("inputs"))

    def _compute(self, z: Tensor, inputs: Tensor | None) -> Found:
        unfit = why_unfit(z)
        nothing = {} if inputs is None else {RECOVERY: math.nan}
        is_collapsed = unfit is not None and len(z) > 1 and bool(torch.isfinite(z).all())
        if unfit is not None and not is_collapsed:
            lost = dict.fromkeys(self.usual_tags, math.nan) | nothing
            return Found(lost, [f"the features have no statistics: {unfit}."])
        values = {f"features/{name}": value for name, value in feature_statistics(z).items()} | nothing
        if is_collapsed:
            return Found(values, [f"the features have no rank: {unfit}."])
        if inputs is None:
            return Found(values)
        values[RECOVERY] = recovery(z, inputs)
        unknown = math.isnan(values[RECOVERY])
        return Found(values, [f"{RECOVERY} is NaN: the inputs do not vary, or are few."] if unknown else [])
