"""The Lightning module: an I-JEPA whose scored embedding is itself predicted and kept from collapsing.

Shape letters: B images, N patches, V context patches, M target blocks, T patches of a block, D width, K embedding.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.precision import DoublePrecision, MixedPrecision
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Generator, Tensor, nn

from jepa_train import schedules
from jepa_train.checkpoints.finite import check_finite, run_failed
from jepa_train.checkpoints.resume import between_batches, count_epoch_begun
from jepa_train.errors import ConfigurationError
from jepa_train.inputs.draws import Purpose, seed_of
from jepa_train.inputs.masks import MaskMode, MultiBlockMasks
from jepa_train.inputs.views import RandomView
from jepa_train.models.batch_norm import reestimates_statistics
from jepa_train.models.encoder import EmbeddingEncoder, PositionKind, Projector, ViTEncoder, gather_tokens
from jepa_train.models.predictor import Predictor, PredictorMode
from jepa_train.objectives import (
    AnticollapseName,
    TokenLoss,
    build_anticollapse,
    embedding_prediction,
    spectral_penalty,
    token_prediction,
)
from jepa_train.optimization import adamw, regroup, update_ema
from jepa_train.parallel import check_strategy, shard
from jepa_train.pictures import log_masks
from jepa_train.precision import attention_kernel
from jepa_train.settings import AnticollapseOn, check_settings
from jepa_train.tags import explanation, log_text


class JEPA(pl.LightningModule):
    """Joint-embedding predictive architecture over image patches.

    Per step, with view A and view B of an image: the context encoder sees some patches of A, the EMA target encoder
    all of A, and the predictor goes from the first to the second, block by block (I-JEPA, arXiv 2301.08243). One more
    query of the predictor is for the embedding z = projector(mean token) of all of B, with gradient to both sides, and
    an anti-collapse term acts on z of the context and of B, on their tokens, or on both:

        loss = token_weight * tokens + embedding_weight * embedding + anticollapse_weight * anticollapse
             + spectral_weight * spectral

    With all but the first weight at 0 this is I-JEPA; it has no projector then, and its embedding is the mean token.
    Every argument is a plain type, so a checkpoint rebuilds exactly what was trained.

    Random numbers are a function of (seed, training batch, process): masks, views and SIGReg directions are those of
    the global batch, dealt to the processes, so that n processes with equal batches train as one; pixel noise and
    dropped paths are each process's own.

    Args:
        image_size: height and width of the images, in pixels.
        channels: image channels.
        encoder: name of a timm Vision Transformer.
        encoder_overrides: further arguments of ``timm.create_model``, e.g. ``embed_dim``, ``depth``, ``num_heads``,
            ``class_token``, ``reg_tokens``, ``drop_path_rate`` (the target drops nothing).
        patch_size: in pixels; it must divide ``image_size``.
        pretrained: start from timm's published weights.
        positions: ``fixed`` sin-cos or ``learned``; pretrained weights bring learned ones.
        gradient_checkpointing: less memory for one more forward pass of the encoder.
        compile: compile encoders and predictor in ``fit``; pays off in long runs.
        embedding_size: K, size of the scored embedding z.
        projector_hidden: width of the projector's hidden layers; 0 makes it linear.
        projector_batch_norm: batch norm in the projector's hidden layers.
        predictor_width, predictor_depth, predictor_heads: size of the predictor.
        predictor_mode: ``joint`` or ``per_block``, equal up to rounding; see ``Predictor``.
        num_targets, target_scale, target_aspect, context_scale, min_context, context_group, mask_mode: see
            ``MultiBlockMasks``.
        token_weight, embedding_weight, anticollapse_weight: weights of the three terms.
        token_loss: ``smooth_l1``, ``l2`` or ``cosine``.
        stop_gradient: let no gradient of the token loss into the target; false takes the target's tokens from the
            online encoder itself, and needs ``ema_start`` and ``ema_end`` at 0.
        anticollapse: ``sigreg``, ``vicreg``, ``barlow``, ``whitening_mse``, ``uniformity`` or ``none``.
        anticollapse_on: ``embedding``, ``tokens`` or ``both``.
        sigreg_slices: random directions of SIGReg per step.
        spectral_weight: of half the sum of the online encoder's squared spectral norms, a control.
        crop_scale, shift, flip, noise: random views, see ``RandomView``; at their defaults A and B are the image.
        ema_start, ema_end: momentum of the target encoder, linear per optimizer step; with both at 0 there is no
            average, and the target is the online encoder of the same step.
        learning_rate_start, learning_rate, learning_rate_end: warm-up from, peak, and end of the cosine.
        warmup_fraction: share of the steps spent on warm-up, rounded to whole steps.
        weight_decay, weight_decay_end: cosine from one to the other, on matrices and the predictor's queries; see
            ``parameter_groups``.
        seed: of all random numbers of training.
    """

    def __init__(
        self,
        image_size: int = 224,
        channels: int = 3,
        encoder: str = "vit_tiny_patch16_224",
        encoder_overrides: dict[str, Any] | None = None,
        patch_size: int = 16,
        pretrained: bool = False,
        positions: PositionKind = "fixed",
        gradient_checkpointing: bool = False,
        compile: bool = False,
        embedding_size: int = 64,
        projector_hidden: int = 256,
        projector_batch_norm: bool = True,
        predictor_width: int = 96,
        predictor_depth: int = 4,
        predictor_heads: int = 4,
        predictor_mode: PredictorMode = "joint",
        num_targets: int = 4,
        target_scale: tuple[float, float] = (0.15, 0.2),
        target_aspect: tuple[float, float] = (0.75, 1.5),
        context_scale: tuple[float, float] = (0.85, 1.0),
        min_context: int = 4,
        context_group: int = 128,
        mask_mode: MaskMode = "corrected",
        token_weight: float = 1.0,
        token_loss: TokenLoss = "smooth_l1",
        stop_gradient: bool = True,
        embedding_weight: float = 1.0,
        anticollapse: AnticollapseName = "sigreg",
        anticollapse_on: AnticollapseOn = "embedding",
        anticollapse_weight: float = 0.05,
        sigreg_slices: int = 256,
        spectral_weight: float = 0.0,
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
        check_settings(self.hparams)
        self.weights = {
            "tokens": token_weight,
            "embedding": embedding_weight,
            "anticollapse": anticollapse_weight,
            "spectral": spectral_weight,
        }
        self.view = RandomView(crop_scale=crop_scale, shift=shift, flip=flip, noise=noise)
        vit = ViTEncoder(
            encoder,
            image_size=image_size,
            patch_size=patch_size,
            channels=channels,
            overrides=encoder_overrides,
            pretrained=pretrained,
            positions=positions,
            gradient_checkpointing=gradient_checkpointing,
        )
        term = build_anticollapse(anticollapse, num_slices=sigreg_slices)
        self.anticollapse = term if anticollapse_weight else None
        self._guarded = ("embedding", "tokens") if anticollapse_on == "both" else (anticollapse_on,)
        if self.anticollapse is not None and self.anticollapse.paired and "tokens" in self._guarded and self.view.moves:
            raise ConfigurationError(
                f"{anticollapse} compares tokens at one place of two views, which show different things after crops, "
                "shifts or flips: set crop_scale to 1, shift to 0 and flip to false, or anticollapse_on to embedding."
            )
        embeds = bool(embedding_weight) or (self.anticollapse is not None and "embedding" in self._guarded)
        projector: nn.Module = nn.Identity()
        if embeds:
            projector = Projector(
                vit.width, hidden=projector_hidden, embedding_size=embedding_size, batch_norm=projector_batch_norm
            )
        self.online = EmbeddingEncoder(vit, projector)
        self.target = self.online.frozen_copy()
        self.predictor = Predictor(
            token_width=vit.width,
            grid_size=vit.grid_size,
            width=predictor_width,
            depth=predictor_depth,
            heads=predictor_heads,
            embedding_size=embedding_size if embedding_weight else None,
            mode=predictor_mode,
        )
        self.masks = MultiBlockMasks(
            grid_size=vit.grid_size,
            num_targets=num_targets,
            target_scale=target_scale,
            target_aspect=target_aspect,
            context_scale=context_scale,
            min_context=min_context,
            context_group=context_group,
            mode=mask_mode,
        )
        self._last_finite_step = 0
        # what has no part in the loss must not wait for a gradient: DDP would
        self.predictor.token_head.requires_grad_(bool(token_weight))

    def configure_model(self) -> None:
        """Spread the weights over processes where the strategy gives a device mesh (FSDP2).

        Online and target are cut alike, so that each process averages its own pieces. The predictor is one unit because
        its joint pass uses the projections of its first and last block by themselves.
        """
        if self.device_mesh is not None:
            shard([self.predictor, *self.online.units(), *self.target.units()], self.device_mesh)

    def setup(self, stage: str) -> None:
        """Compile, if asked to; module by module and in place, so that a checkpoint's names stay the same."""
        check_strategy(self.trainer.strategy)
        self._last_finite_step = 0
        if stage == "fit" and self.hparams["compile"]:
            for module in (self.online.encoder, self.target.encoder, self.predictor):
                module.compile(dynamic=True)  # context lengths differ from step to step

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See that what is about to be written is finite, on every way to a file: no good one gives way to a bad one.

        Raises:
            RunFailed: on all processes.
        """
        step = checkpoint["global_step"]
        check_finite(checkpoint, self._trainer, step=step, last_finite=self._last_finite_step)
        self._last_finite_step = step

    def on_train_end(self) -> None:
        """See that what was trained is finite, for a run that writes no checkpoint in its end."""
        weights, step = {"state_dict": self.state_dict()}, self.trainer.global_step
        check_finite(weights, self.trainer, step=step, last_finite=self._last_finite_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let Lightning read an epoch's last checkpoint as that of its last batch, and an older optimizer's state."""
        self._last_finite_step = checkpoint.get("global_step", 0)
        if self._trainer is not None and isinstance(self._trainer.precision_plugin, DoublePrecision):
            self.double()  # Lightning converts the module behind the load, which would round its weights
        if "loops" in checkpoint:  # not in one of weights alone
            between_batches(checkpoint["loops"]["fit_loop"])
        for state in checkpoint.get("optimizer_states", ()):
            regroup(state, self)

    def on_train_start(self) -> None:
        """Put Lightning's count of epochs right after a resume."""
        count_epoch_begun(self.trainer.fit_loop)

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
        """Loss of one batch of the global batch; logs its terms."""
        images = batch["image"]
        size = self.hparams["image_size"]
        if images.shape[-2:] != (size, size):
            raise ConfigurationError(
                f"training images have {images.shape[-2]} x {images.shape[-1]} pixels, and masks are made for {size} x "
                f"{size}: set image_size, or resize the images. (dynamic_img_size is for evaluation.)"
            )
        torch.manual_seed(self._seed_of(Purpose.DROPPING, own=True))  # what dropped paths and dropout draw from
        view_a, view_b = self._views(images)
        context_BV, targets_BMT = self._draw_masks(len(images))
        if self._batches_seen() == 0:
            log_text(self.trainer, "train/tags", explanation())
            log_masks(self.trainer, view_a, context_BV, targets_BMT, grid_size=self.online.encoder.grid_size)

        terms = self.terms(view_a, view_b, context_BV, targets_BMT, slice_seed=self._seed_of(Purpose.SLICES))
        loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        self._notice_early(loss, batch_idx)
        self._log_step(loss, terms, context_BV, targets_BMT)
        if reestimates_statistics(self.target.projector):
            with torch.no_grad():
                self.target(view_b)  # has no other forward pass, and must not take the statistics of other weights
        return loss

    def _notice_early(self, loss: Tensor, batch_idx: int) -> None:
        """End a run whose loss is not finite, where the loss is logged: looking at it makes an accelerator wait.

        A gradient scaler leaves such steps out, and training goes on.
        """
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set on the Trainer by its logger connector
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if every and batch_idx % every == 0 and not scaled and not torch.isfinite(loss):
            what = f"the training loss is {float(loss.detach())} at step {self.global_step}"
            raise run_failed(what, self.trainer)

    def terms(
        self, view_a: Tensor, view_b: Tensor, context_BV: Tensor, targets_BMT: Tensor, *, slice_seed: int
    ) -> dict[str, Tensor]:
        """The terms of the loss by name, unweighted, each of the batch joined over all processes.

        Args:
            view_a, view_b: (B, C, H, W).
            context_BV, targets_BMT: patch indices.
            slice_seed: of SIGReg's directions.
        """
        looks_at_all = self.weights["embedding"] or self.anticollapse is not None
        with self._attention():
            context_BVD = self.online.encoder(view_a, context_BV)
            predicted_BMTD, predicted_BMK = self.predictor(context_BVD, context_BV, targets_BMT)
            full_BND = self.online.encoder(view_b) if looks_at_all else None
        terms = {}
        if self.weights["tokens"]:
            target_BMTD = self._target_tokens(view_a, targets_BMT)
            terms["tokens"] = token_prediction(
                predicted_BMTD,
                target_BMTD,
                loss=self.hparams["token_loss"],
                stop_gradient=self.hparams["stop_gradient"],
            )
        if full_BND is not None:
            z_context, z_full = self._embed(context_BVD, full_BND)
            if predicted_BMK is not None:
                terms["embedding"] = embedding_prediction(predicted_BMK, z_full)
            if self.anticollapse is not None:
                guarded = {"embedding": (z_context, z_full)}
                if "tokens" in self._guarded:
                    at_context = gather_tokens(full_BND, context_BV)
                    guarded["tokens"] = (context_BVD.flatten(0, 1), at_context.flatten(0, 1))
                guards = [self.anticollapse(*guarded[name], slice_seed) for name in self._guarded]
                terms["anticollapse"] = torch.stack(guards).mean()
        if self.weights["spectral"]:
            terms["spectral"] = spectral_penalty(self.online.encoder)
        return terms

    def _attention(self) -> AbstractContextManager[object]:
        # what is computed again in the backward pass, outside, must be what was computed first
        return nullcontext() if self.hparams["gradient_checkpointing"] else attention_kernel(self.device)

    def _embed(self, context_BVD: Tensor, full_BND: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, K) of the context and of the full image.

        In one pass, so that batch norm treats the full image in training as it will in evaluation.
        """
        z_context, z_full = self.online.projector(torch.cat([context_BVD.mean(1), full_BND.mean(1)])).chunk(2)
        return z_context, z_full

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Nothing to compute per batch: callbacks measure the encoder at the end of validation."""

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """As :meth:`validation_step`."""

    def _batches_seen(self) -> int:
        """Training batches before this one, over all epochs; restored by a resume."""
        # not ``ready``, which stays one ahead after a checkpoint that was written in the middle of a batch
        return cast("int", cast("Any", self.trainer.fit_loop.epoch_loop.batch_progress.total).processed)

    def _seed_of(self, purpose: Purpose, *, own: bool = False) -> int:
        """This batch's seed, this process's ``own`` or one that all share."""
        rank = self.trainer.global_rank if own else 0
        return seed_of(purpose, seed=int(self.hparams["seed"]), step=self._batches_seen(), rank=rank)

    def _views(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if self.view.is_identity:
            return images, images
        # the geometry is drawn for the global batch, so that it does not depend on the number of processes;
        # pixel noise is too large for that and is drawn by each process for itself
        generator = Generator().manual_seed(self._seed_of(Purpose.VIEWS))
        draws = torch.rand(2, len(images) * self.trainer.world_size, 4, generator=generator, dtype=torch.float32)
        draws = draws[:, self.trainer.global_rank :: self.trainer.world_size]
        noise_generator = Generator(images.device).manual_seed(self._seed_of(Purpose.PIXEL_NOISE, own=True))
        view_a, view_b = (self.view(images, draws=draw, noise_generator=noise_generator) for draw in draws)
        return view_a, view_b

    def _draw_masks(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """This process's share of the global batch's masks, dealt like a DistributedSampler deals samples."""
        generator = Generator().manual_seed(self._seed_of(Purpose.MASKS))
        context, targets = self.masks(batch_size * self.trainer.world_size, generator)
        mine = slice(self.trainer.global_rank, None, self.trainer.world_size)
        return _send(context[mine], self.device), _send(targets[mine], self.device)

    def _target_tokens(self, images: Tensor, targets_BMT: Tensor) -> Tensor:
        """(B, M, T, D) tokens of the target encoder on the full image."""
        if self.hparams["stop_gradient"]:
            with torch.no_grad():
                tokens = self.target.encoder(images)
        else:
            with self._attention():
                tokens = self.online.encoder(images)
        return cast("Tensor", gather_tokens(tokens, targets_BMT.flatten(1)).unflatten(1, targets_BMT.shape[1:]))

    def _log_step(self, loss: Tensor, terms: dict[str, Tensor], context_BV: Tensor, targets_BMT: Tensor) -> None:
        optimizer = cast("torch.optim.Optimizer", self.optimizers())
        # every process has the values of the joined batch already: nothing to reduce
        self.log("train/loss", loss, prog_bar=True)
        self.log_dict({f"train/loss_{name}": term for name, term in terms.items()})
        numbers = {
            "train/ema_momentum": self._ema_momentum(),
            "train/lr": optimizer.param_groups[0]["lr"],
            "train/weight_decay": self._weight_decay(),
            "train/context_tokens": context_BV.shape[1],
            "train/target_tokens": targets_BMT[0].numel(),
        }
        # as tensors of the host: Lightning would copy plain numbers to the accelerator and wait for it
        self.log_dict({name: torch.tensor(float(number)) for name, number in numbers.items()})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine learning rate per optimizer step; weight decay on matrices only."""
        if self.dtype in (torch.bfloat16, torch.float16) and self.hparams["ema_start"]:
            raise ConfigurationError(
                "weights in half precision cannot follow an EMA, whose steps are smaller than their digits: use "
                "--trainer.precision bf16-mixed."
            )
        # Lightning refuses to clip what a fused optimizer might have scaled
        clips_mixed = self.trainer.gradient_clip_val and isinstance(self.trainer.precision_plugin, MixedPrecision)
        optimizer = adamw(
            self,
            learning_rate=self.hparams["learning_rate"],
            weight_decay=self.hparams["weight_decay"],
            fused=not clips_mixed,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._learning_rate_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _total_steps(self) -> int:
        """Optimizer steps of the whole run.

        Raises:
            ConfigurationError: where that is unknown, or 0.
        """
        steps = self.trainer.estimated_stepping_batches
        if 0 in (steps, self.trainer.max_epochs, self.trainer.limit_train_batches):
            raise ConfigurationError(
                "nothing would be trained: give --trainer.max_epochs, --trainer.max_steps and "
                "--trainer.limit_train_batches values other than 0."
            )
        if not 0 < steps < math.inf:
            raise ConfigurationError(
                "the schedules need the length of the run: give --trainer.max_steps, or --trainer.max_epochs and data "
                "whose length is known."
            )
        return int(steps)

    def _learning_rate_factor(self, steps_done: int) -> float:
        total_steps = self._total_steps()
        learning_rate = schedules.warmup_cosine(
            steps_done + 1,
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

    def _weight_decay(self) -> float:
        return schedules.cosine(
            self.trainer.global_step + 1,
            start=self.hparams["weight_decay"],
            end=self.hparams["weight_decay_end"],
            total_steps=self._total_steps(),
        )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """One optimizer step: set this step's weight decay, update the weights, then let the target follow."""
        optimizer = cast("torch.optim.Optimizer", self.optimizers())
        optimizer.param_groups[0]["weight_decay"] = self._weight_decay()
        momentum = self._ema_momentum()
        super().optimizer_step(*args, **kwargs)
        if not reestimates_statistics(self.target.projector):
            update_ema(self.target, self.online, momentum=momentum)


def _send(indices: Tensor, device: torch.device) -> Tensor:
    """To the device, without waiting for the work that is queued there."""
    if device.type == "cuda":
        return indices.pin_memory().to(device, non_blocking=True)
    return indices.to(device)
