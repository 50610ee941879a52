"""The Lightning module: an I-JEPA whose scored embedding is itself predicted and kept from collapsing."""

from __future__ import annotations

import copy
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from jepa_train import schedules
from jepa_train.encoder import EmbeddingEncoder, Projector, ViTEncoder, gather_tokens
from jepa_train.errors import ConfigurationError
from jepa_train.masking import MaskMode, MultiBlockMasks
from jepa_train.objectives import build_anticollapse, embedding_prediction, token_prediction
from jepa_train.objectives.anticollapse import AnticollapseName
from jepa_train.predictor import Predictor
from jepa_train.views import RandomView


class JEPA(pl.LightningModule):
    """Joint-embedding predictive architecture over image patches.

    Per step, with view A and view B of an image: the context encoder sees some patches of A, the EMA target encoder
    all of A, and the predictor goes from the first to the second, block by block (I-JEPA, arXiv 2301.08243). One more
    query of the predictor is for the embedding z = projector(mean token) of all of B, with gradient to both sides, and
    an anti-collapse term acts on z of the context and of B:

        loss = token_weight * tokens + embedding_weight * embedding + anticollapse_weight * anticollapse

    With the last two weights at 0 this is I-JEPA. Every argument is a plain type, so a checkpoint rebuilds exactly what
    was trained.

    Args:
        image_size: height and width of the images, in pixels.
        channels: image channels.
        encoder: name of a timm Vision Transformer.
        encoder_overrides: further arguments of ``timm.create_model``, e.g. ``embed_dim``, ``depth``, ``num_heads``.
        patch_size: in pixels; it must divide ``image_size``.
        pretrained: start from timm's published weights.
        embedding_size: K, size of the scored embedding z.
        projector_hidden: width of the projector's hidden layers; 0 makes it linear.
        projector_batch_norm: batch norm in the projector's hidden layers.
        predictor_width, predictor_depth, predictor_heads: size of the predictor.
        num_targets, target_scale, target_aspect, context_scale, min_context, mask_mode: see ``MultiBlockMasks``.
        token_weight, embedding_weight, anticollapse_weight: weights of the three terms.
        anticollapse: ``sigreg``, ``vicreg`` or ``none``.
        sigreg_slices: random directions of SIGReg per step.
        crop_scale, shift, flip, noise: random views, see ``RandomView``; at their defaults A and B are the image.
        ema_start, ema_end: momentum of the target encoder, linear per optimizer step.
        learning_rate_start, learning_rate, learning_rate_end: warm-up from, peak, and end of the cosine.
        warmup_fraction: share of the steps spent on warm-up.
        weight_decay, weight_decay_end: cosine from one to the other; biases and other 1-d parameters have none.
        seed: of masks, views and SIGReg directions, which are functions of (seed, batch number).
    """

    def __init__(
        self,
        image_size: int = 224,
        channels: int = 3,
        encoder: str = "vit_tiny_patch16_224",
        encoder_overrides: dict[str, Any] | None = None,
        patch_size: int = 16,
        pretrained: bool = False,
        embedding_size: int = 64,
        projector_hidden: int = 256,
        projector_batch_norm: bool = True,
        predictor_width: int = 96,
        predictor_depth: int = 4,
        predictor_heads: int = 4,
        num_targets: int = 4,
        target_scale: tuple[float, float] = (0.15, 0.2),
        target_aspect: tuple[float, float] = (0.75, 1.5),
        context_scale: tuple[float, float] = (0.85, 1.0),
        min_context: int = 4,
        mask_mode: MaskMode = "corrected",
        token_weight: float = 1.0,
        embedding_weight: float = 1.0,
        anticollapse: AnticollapseName = "sigreg",
        anticollapse_weight: float = 0.05,
        sigreg_slices: int = 256,
        crop_scale: float = 1.0,
        shift: float = 0.0,
        flip: bool = False,
        noise: float = 0.0,
        ema_start: float = 0.996,
        ema_end: float = 1.0,
        learning_rate_start: float = 2e-4,
        learning_rate: float = 1e-3,
        learning_rate_end: float = 1e-6,
        warmup_fraction: float = 0.1,
        weight_decay: float = 0.04,
        weight_decay_end: float = 0.4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        vit = ViTEncoder(
            encoder,
            image_size=image_size,
            patch_size=patch_size,
            channels=channels,
            overrides=encoder_overrides,
            pretrained=pretrained,
        )
        projector = Projector(
            vit.width, hidden=projector_hidden, embedding_size=embedding_size, batch_norm=projector_batch_norm
        )
        self.online = EmbeddingEncoder(vit, projector)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.predictor = Predictor(
            token_width=vit.width,
            grid_size=vit.grid_size,
            width=predictor_width,
            depth=predictor_depth,
            heads=predictor_heads,
            embedding_size=embedding_size if embedding_weight else None,
        )
        self.anticollapse = build_anticollapse(anticollapse, num_slices=sigreg_slices) if anticollapse_weight else None
        self.masks = MultiBlockMasks(
            grid_size=vit.grid_size,
            num_targets=num_targets,
            target_scale=target_scale,
            target_aspect=target_aspect,
            context_scale=context_scale,
            min_context=min_context,
            mode=mask_mode,
        )
        self.weights = {"tokens": token_weight, "embedding": embedding_weight, "anticollapse": anticollapse_weight}
        self.view = RandomView(crop_scale=crop_scale, shift=shift, flip=flip, noise=noise)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings of the target encoder, (B, C, H, W) -> (B, K): what is scored and what is used downstream."""
        return cast("Tensor", self.target(images))

    def features(self, images: Tensor) -> Tensor:
        """Mean token of the target encoder, (B, C, H, W) -> (B, D): the representation before the projector."""
        return cast("Tensor", self.target.encoder(images).mean(dim=1))

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Embeddings (B, K) of a batch."""
        return cast("Tensor", self(batch["image"]))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch; logs its three terms."""
        images = batch["image"]
        step_seed = int(self.hparams["seed"]) * 1_000_003 + self._batches_seen()
        view_a, view_b = self._views(images, step_seed)
        context_BV, targets_BMT = self._draw_masks(len(images), step_seed)

        context_BVD = self.online.encoder(view_a, context_BV)
        predicted_BMTD, predicted_BMK = self.predictor(context_BVD, context_BV, targets_BMT)
        terms = {"tokens": token_prediction(predicted_BMTD, self._target_tokens(view_a, targets_BMT))}
        if self._embeds:
            features = torch.cat([context_BVD.mean(dim=1), self.online.encoder(view_b).mean(dim=1)])
            # in one pass, so that batch norm treats the full image in training as it will in evaluation
            z_context, z_full = self.online.projector(features).chunk(2)
            if predicted_BMK is not None:
                terms["embedding"] = embedding_prediction(predicted_BMK, z_full)
            if self.anticollapse is not None:
                terms["anticollapse"] = 0.5 * (
                    self.anticollapse(z_context, step_seed) + self.anticollapse(z_full, step_seed)
                )
        loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        # only now and then: looking at a value makes an accelerator wait
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set on the Trainer by its logger connector
        if batch_idx % every == 0 and not torch.isfinite(loss):
            raise ConfigurationError(
                f"the training loss is {float(loss.detach())} at step {self.global_step}: look for images that are not "
                "finite, or lower the learning rate."
            )
        self._log_step(loss, terms, context_BV, targets_BMT)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Nothing to compute per batch: callbacks measure the encoder at the end of validation."""

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """As :meth:`validation_step`."""

    @property
    def _embeds(self) -> bool:
        return bool(self.weights["embedding"]) or self.anticollapse is not None

    def _batches_seen(self) -> int:
        """Training batches before this one, over all epochs; restored by a resume."""
        return int(self.trainer.fit_loop.epoch_loop.total_batch_idx)

    def _views(self, images: Tensor, step_seed: int) -> tuple[Tensor, Tensor]:
        if self.view.is_identity:
            return images, images
        # the geometry is drawn for the global batch, so that it does not depend on the number of processes;
        # pixel noise is too large for that and is drawn by each process for itself
        generator = torch.Generator().manual_seed(step_seed)
        draws = torch.rand(2, len(images) * self.trainer.world_size, 4, generator=generator)
        draws = draws[:, self.trainer.global_rank :: self.trainer.world_size]
        noise_generator = torch.Generator(images.device).manual_seed(step_seed * 4099 + self.trainer.global_rank)
        view_a, view_b = (self.view(images, draws=draw, noise_generator=noise_generator) for draw in draws)
        return view_a, view_b

    def _draw_masks(self, batch_size: int, step_seed: int) -> tuple[Tensor, Tensor]:
        """This process's share of the global batch's masks, dealt like a DistributedSampler deals samples."""
        generator = torch.Generator().manual_seed(step_seed)
        context, targets = self.masks(batch_size * self.trainer.world_size, generator)
        mine = slice(self.trainer.global_rank, None, self.trainer.world_size)
        return context[mine].to(self.device), targets[mine].to(self.device)

    @torch.no_grad()
    def _target_tokens(self, images: Tensor, targets_BMT: Tensor) -> Tensor:
        """(B, M, T, D) tokens of the EMA encoder on the full image."""
        tokens = self.target.encoder(images)
        return cast("Tensor", gather_tokens(tokens, targets_BMT.flatten(1)).unflatten(1, targets_BMT.shape[1:]))

    def _log_step(self, loss: Tensor, terms: dict[str, Tensor], context_BV: Tensor, targets_BMT: Tensor) -> None:
        optimizer = cast("torch.optim.Optimizer", self.optimizers())
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        self.log_dict({f"train/loss_{name}": term for name, term in terms.items()}, sync_dist=True)
        self.log_dict(
            {
                "train/ema_momentum": self._ema_momentum(),
                "train/lr": optimizer.param_groups[0]["lr"],
                "train/weight_decay": optimizer.param_groups[0]["weight_decay"],
                "train/context_tokens": float(context_BV.shape[1]),
                "train/target_tokens": float(targets_BMT[0].numel()),
            }
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine learning rate per optimizer step; weight decay on matrices only."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.hparams["weight_decay"]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.hparams["learning_rate"])
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _total_steps(self) -> int:
        return int(self.trainer.estimated_stepping_batches)

    def _learning_rate_factor(self, step: int) -> float:
        total_steps = self._total_steps()
        learning_rate = schedules.warmup_cosine(
            step,
            start=self.hparams["learning_rate_start"],
            peak=self.hparams["learning_rate"],
            end=self.hparams["learning_rate_end"],
            warmup_steps=round(self.hparams["warmup_fraction"] * total_steps),
            total_steps=total_steps,
        )
        return learning_rate / float(self.hparams["learning_rate"])

    def _ema_momentum(self) -> float:
        return schedules.linear(
            self.trainer.global_step,
            start=self.hparams["ema_start"],
            end=self.hparams["ema_end"],
            total_steps=self._total_steps(),
        )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """One optimizer step: set this step's weight decay, update the weights, then let the target follow."""
        optimizer = cast("torch.optim.Optimizer", self.optimizers())
        optimizer.param_groups[0]["weight_decay"] = schedules.cosine(
            self.trainer.global_step,
            start=self.hparams["weight_decay"],
            end=self.hparams["weight_decay_end"],
            total_steps=self._total_steps(),
        )
        momentum = self._ema_momentum()
        super().optimizer_step(*args, **kwargs)
        update_ema(self.target, self.online, momentum=momentum)


@torch.no_grad()
def update_ema(target: nn.Module, online: nn.Module, *, momentum: float) -> None:
    """target <- momentum * target + (1 - momentum) * online, batch-norm statistics included; counters are copied.

    Statistics that were copied instead would belong to other weights than the target's.
    """
    for followed, leading in ((target.parameters(), online.parameters()), (target.buffers(), online.buffers())):
        for ours, theirs in zip(followed, leading, strict=True):
            if ours.is_floating_point():
                ours.lerp_(theirs, 1.0 - momentum)
            else:
                ours.copy_(theirs)
