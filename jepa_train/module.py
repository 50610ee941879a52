"""The Lightning module: an I-JEPA whose scored embedding is itself predicted and kept from collapsing.

Shape letters: B images, V context patches, M target blocks, T patches of a block, D width, K embedding.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.precision import DoublePrecision, MixedPrecision
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from jepa_train.checkpoints.finite import check_finite, check_loss
from jepa_train.checkpoints.resume import between_batches, count_epoch_begun
from jepa_train.errors import ConfigurationError
from jepa_train.inputs.draws import BatchDraws, Purpose
from jepa_train.inputs.masks import MaskMode, MultiBlockMasks, check_image_size
from jepa_train.inputs.views import check_views_differ
from jepa_train.models.batch_norm import reestimates_statistics
from jepa_train.models.encoder import PositionKind, ViTEncoder, attention_kernel
from jepa_train.models.predictor import Predictor, PredictorMode
from jepa_train.models.stem import Stem
from jepa_train.objectives import AnticollapseName, AnticollapseOn, TokenLoss
from jepa_train.optimization import Schedules, adamw, regroup, steps_of_run, update_ema
from jepa_train.parallel import check_strategy, shard
from jepa_train.parts import (
    LOCAL,
    build_encoder,
    build_masks,
    build_objective,
    build_predictor,
    build_views,
    check_numbers,
    check_pairs,
    has_average,
    what_does_nothing,
    without_part,
)
from jepa_train.pictures import explanation, log_masks, log_text, log_views
from jepa_train.step import Masks, Step


class JEPA(pl.LightningModule):
    """Joint-embedding predictive architecture over image patches.

    Per step, with view A and view B of an image (of a batch's ``image``, and of its ``view_b`` if it has one): the
    context encoder sees some patches of A, the EMA target encoder all of A, and the predictor goes from the first to
    the second, block by block (I-JEPA, arXiv 2301.08243). One more query of the predictor is for the embedding
    z = projector(mean token) of all of B, with gradient to both sides, and an anti-collapse term acts on z of the
    context and of B, on their tokens, or on both. Or several whole views, global and local ones, are each drawn to the
    centre of the global ones' z, and the anti-collapse term acts on z of all views (LeJEPA, arXiv 2511.08544):

        loss = token_weight * tokens + embedding_weight * embedding + centre_weight * centre
             + anticollapse_weight * anticollapse + spectral_weight * spectral

    With all but the first weight at 0 this is I-JEPA; it has no projector then, and its embedding is the mean token.
    With the first two at 0 nothing is hidden: there are no masks and no predictor. With both halves view A and view B
    are the first two global views.
    Every argument is a plain type, so a checkpoint rebuilds exactly what was trained.

    A value that cannot work is refused, also where the objective leaves its part out. What is not its default and does
    nothing is listed in ``without_part``. Since a config may be laid over another that sets more, training itself warns
    of settings of local views alone, where there are none; the command line warns also of what was given along with, or
    after, what leaves it out.

    Random numbers are a function of (seed, training batch, process): masks, views and SIGReg directions are those of
    the global batch, of which each process takes its share, so that with the same global batch size n processes train
    exactly like one; pixel noise and dropped paths are each process's own.

    Args:
        image_size: height and width of the images, in pixels.
        channels: image channels.
        encoder: name of a timm Vision Transformer, or of any timm model if the objective hides no patches.
        encoder_overrides: further arguments of ``timm.create_model``, e.g. ``embed_dim``, ``depth``, ``num_heads``,
            ``class_token``, ``reg_tokens``, ``drop_path_rate`` (the target drops nothing).
        patch_size: height and width of a Vision Transformer's patch, in pixels; it must divide ``image_size``.
        pretrained: start from timm's published weights.
        positions: positions of a Vision Transformer, ``fixed`` sin-cos or ``learned``; pretrained weights have learned
            ones.
        stem: first layer of a Vision Transformer: ``linear`` patches, or a ``convolutional`` stem of 3 x 3
            convolutions, which sees hidden patches as zeros. The latter needs an even ``patch_size``, or one to whose
            grid halving leads.
        stem_channels: channels of the convolutional stem before its last layer, such as [32, 64], which costs less;
            ``None`` doubles the channels from layer to layer up to the width.
        gradient_checkpointing: save memory at the cost of one more forward pass of the encoder.
        compile: compile the blocks of encoders and predictor in ``fit``; this pays off in long runs.
        embedding_size: K, size of the scored embedding z.
        projector_hidden: width of the projector's hidden layers; 0 makes it linear.
        projector_batch_norm: batch norm in the projector's hidden layers.
        predictor_width: width of the predictor's tokens.
        predictor_depth: number of the predictor's blocks.
        predictor_heads: number of attention heads of the predictor; it must divide ``predictor_width``.
        predictor_mode: ``joint`` or ``per_block``, equal up to rounding; see ``Predictor``.
        num_targets: number of target blocks in an image; the predictor predicts their tokens.
        target_scale: smallest and largest share of the patches in a target block.
        target_aspect: smallest and largest ratio of height to width of a target block.
        context_scale: smallest and largest share of the patches in the context block, before targets are cut out.
        min_context: fewest patches that a context may keep.
        context_group: number of images whose contexts are cut to one common length, see ``MultiBlockMasks``.
        mask_mode: ``corrected``, or ``paper`` with the two faults of the published masks, see ``MultiBlockMasks``.
        token_weight: weight of the prediction of the target blocks' tokens; 0 for none.
        embedding_weight: weight of the prediction of the embedding; 0 for none.
        centre_weight: weight of the distance between the embedding of each view and the mean embedding of the global
            views (the centre); 0 for none.
        anticollapse_weight: weight of the anti-collapse term; a larger weight makes z more even and less predictable.
        token_loss: ``smooth_l1``, ``l2`` or ``cosine``.
        stop_gradient: let no gradient of the token loss into the target. If false, the target's tokens come from the
            online encoder itself, and ``ema_start`` and ``ema_end`` must be 0.
        anticollapse: ``sigreg``, ``vicreg``, ``barlow``, ``whitening_mse``, ``uniformity`` or ``none``.
        anticollapse_on: ``embedding``, ``tokens`` or ``both``.
        sigreg_slices: random directions of SIGReg per step.
        spectral_weight: weight of half the sum of squared spectral norms of the online encoder's linear layers, a
            control.
        global_views: number of views whose mean embedding is the centre; only for ``centre_weight`` above 0.
        local_views: number of further views: small crops, whose embeddings move to the centre too.
        local_scale: smallest and largest share of an image's area in a local view.
        local_size: height and width of local views, in pixels, which ``patch_size`` must divide; ``None`` is
            ``image_size``.
        crop_scale: smallest share of an image's area that a view keeps; 1 keeps all.
        shift: largest shift of a view, as a share of the image side.
        flip: mirror half of the views left and right.
        noise: standard deviation of white noise added to the pixels of a view.
        brightness: largest relative change of a view's distances from its own darkest value, from 0 to 1.
        contrast: largest relative change of a view's deviations from its own mean, from 0 to 1.
        crop_aspect: largest ratio of width to height of a crop, and of height to width; 1 keeps the image's.
        saturation: largest relative change of a view's distances from grey, from 0 to 1; of RGB images.
        hue: largest turn of a view's colors around grey, as a share of a whole turn, from 0 to 0.5; of RGB images.
        ema_start: momentum of the target encoder's moving average at the first step; it changes linearly. With both
            at 0 there is no average, and the target is the online encoder of the same step.
        ema_end: momentum of the target encoder's moving average at the last step.
        learning_rate_start: learning rate before the first step of the warm-up, which is linear.
        learning_rate: learning rate at its peak, after the warm-up.
        learning_rate_end: learning rate at the last step, where its cosine ends.
        warmup_fraction: share of the steps spent on warm-up, rounded to whole steps.
        weight_decay: weight decay at the first step, of matrices and the predictor's queries; see ``parameter_groups``.
        weight_decay_end: weight decay at the last step, where its cosine ends.
        seed: seed of all random numbers of training.

    Attributes:
        without_part: hyper-parameters that are not their defaults and do nothing, each with the names of those that
            leave it out.

    Raises:
        ConfigurationError: for a value that cannot work, by itself or with others.
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
        stem: Stem = "linear",
        stem_channels: list[int] | None = None,
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
        centre_weight: float = 0.0,
        anticollapse: AnticollapseName = "sigreg",
        anticollapse_on: AnticollapseOn = "embedding",
        anticollapse_weight: float = 0.05,
        sigreg_slices: int = 256,
        spectral_weight: float = 0.0,
        global_views: int = 2,
        local_views: int = 0,
        local_scale: tuple[float, float] = (0.05, 0.3),
        local_size: int | None = None,
        crop_scale: float = 1.0,
        shift: float = 0.0,
        flip: bool = False,
        noise: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        crop_aspect: float = 1.0,
        saturation: float = 0.0,
        hue: float = 0.0,
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
        # not self.hparams, where a subclass may have arguments of the same names
        settings = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self.save_hyperparameters()
        check_numbers(settings)
        self.views = build_views(settings)
        self.objective = build_objective(settings, views_move=self.views[0].moves)
        self.online = build_encoder(settings, self.objective)
        self.target = self.online.frozen_copy()
        self.predictor: Predictor | None = None
        self.masks: MultiBlockMasks | None = None
        if isinstance(self.online.encoder, ViTEncoder) and self.objective.hides_patches:
            self.predictor = build_predictor(settings, self.online.encoder)
            self.masks = build_masks(settings, self.online.encoder.grid_size)
        self.without_part = without_part(settings, inspect.signature(JEPA).parameters, self.objective)
        of_local_views = {name: reasons for name, reasons in self.without_part.items() if name in LOCAL}
        self._before_training = self.objective.what_collapses + what_does_nothing(of_local_views, settings)
        self._last_finite_step = 0

    def configure_model(self) -> None:
        """Shard the weights over processes where the strategy gives a device mesh (FSDP2).

        Online and target are sharded alike, so that each process averages its own shards. The predictor is one unit
        because its joint pass uses the projections of its first and last block by themselves.
        """
        if self.device_mesh is not None:
            predictor = [] if self.predictor is None else [self.predictor]
            shard([*predictor, *self.online.units(), *self.target.units()], self.device_mesh)

    def setup(self, stage: str) -> None:
        """Compile, if asked to; module by module and in place, so that a checkpoint's names stay the same.

        Before training it warns of what nothing keeps from collapsing, and of settings of local views without any.

        Raises:
            ConfigurationError: before training, where masks cannot be drawn.
        """
        check_strategy(self.trainer.strategy)
        self._last_finite_step = 0
        if stage == "fit":
            if isinstance(self.masks, MultiBlockMasks):
                self.masks.check()
            for sentence in self._before_training:
                rank_zero_warn(sentence)
        if stage == "fit" and self.hparams["compile"]:
            for network in (self.online.encoder, self.target.encoder, self.predictor):
                for unit in [] if network is None else network.compiled_units():
                    unit.compile(dynamic=True)  # context lengths differ from step to step

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
        """Compute the loss of one batch of the global batch, and log its terms."""
        images = batch["image"]
        images_b = batch.get("view_b", images)
        self._check_images(images, images_b)
        draws = self._draws()
        torch.manual_seed(draws.own_seed(Purpose.DROPPING))  # what dropped paths and dropout draw from
        views = draws.views(self.views, [images] if images_b is images else [images, images_b])
        masks = None if self.masks is None else draws.masks(self.masks, len(images), self.device)
        terms = self.terms(views, masks, slice_seed=draws.shared_seed(Purpose.SLICES))
        loss = self.objective.total(terms)
        check_loss(loss, self.trainer, batch_idx=batch_idx)
        logged = self._log_step(loss, terms, masks)
        if draws.step == 0:
            self._show(logged, views, masks)
        if reestimates_statistics(self.target):
            with torch.no_grad():
                # has no other forward pass, and must not take the statistics of other weights
                self.target(views[min(1, self.objective.global_views - 1)])
        return loss

    def _show(self, logged: set[str], views: list[Tensor], masks: Masks | None) -> None:
        """Log pictures of the first batch, and what they and the tags logged mean."""
        encoder = self.online.encoder
        if masks is not None and isinstance(encoder, ViTEncoder):
            log_masks(self.trainer, views[0], *masks, grid_size=encoder.grid_size)
            logged.add("train/masks")
        if self.objective.compares_views:
            log_views(self.trainer, views, num_global=self.objective.global_views)
            logged.add("train/views")
        log_text(self.trainer, "train/tags", explanation(logged))

    def _check_images(self, images: Tensor, images_b: Tensor) -> None:
        """See that a batch's images (B, C, H, W), and those of view B, are what the terms can compare.

        Raises:
            ConfigurationError: if not.
        """
        check_image_size(images, self.hparams["image_size"])
        if images_b is not images:
            check_image_size(images_b, self.hparams["image_size"])
            check_pairs(self.objective, self.hparams["anticollapse"], views_move=True)
        elif self.objective.compares_views:
            check_views_differ(self.views)

    def terms(self, views: Sequence[Tensor], masks: Masks | None, *, slice_seed: int) -> dict[str, Tensor]:
        """Compute the terms of the loss by name, unweighted, as :meth:`Step.terms`."""
        recomputes = self.hparams["gradient_checkpointing"]
        step = Step(self.online, self.target, self.predictor, self.objective, recomputes=recomputes)
        return step.terms(views, masks, slice_seed=slice_seed)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Compute nothing: callbacks measure the encoder at the end of validation."""

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Compute nothing, as in :meth:`validation_step`."""

    def _draws(self) -> BatchDraws:
        # not ``ready``, which stays one ahead after a checkpoint that was written in the middle of a batch
        batches_seen = cast("Any", self.trainer.fit_loop.epoch_loop.batch_progress.total).processed
        return BatchDraws(
            seed=int(self.hparams["seed"]),
            step=batches_seen,
            global_rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )

    def _log_step(self, loss: Tensor, terms: dict[str, Tensor], masks: Masks | None) -> set[str]:
        """Log the loss, its terms and the state of the schedules; return their tags."""
        optimizer = cast("torch.optim.Optimizer", self.optimizers())
        schedules, step = self._schedules, self.trainer.global_step
        # every process has the values of the joined batch already: nothing to reduce
        self.log("train/loss", loss, prog_bar=True)
        losses = {f"train/loss_{name}": term for name, term in terms.items()}
        self.log_dict(losses)
        numbers = {
            "train/ema_momentum": schedules.ema_momentum(step),
            "train/lr": optimizer.param_groups[0]["lr"],
            "train/weight_decay": schedules.next_weight_decay(step),
        }
        if masks is not None:
            context_BV, targets_BMT = masks
            numbers["train/context_tokens"] = context_BV.shape[1]
            numbers["train/target_tokens"] = targets_BMT[0].numel()
        # as tensors of the host: Lightning would copy plain numbers to the accelerator and wait for it
        self.log_dict({name: torch.tensor(float(number)) for name, number in numbers.items()})
        return {"train/loss", *losses, *numbers}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine learning rate per optimizer step; weight decay on matrices only."""
        if self.dtype in (torch.bfloat16, torch.float16) and has_average(self.hparams):
            raise ConfigurationError(
                "weights in half precision are too coarse for the small steps of the target's moving average: use "
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

    @property
    def _schedules(self) -> Schedules:
        # made at each step: Lightning's Tuner changes the learning rate among the hyper-parameters
        return Schedules.of(self.hparams, total_steps=steps_of_run(self.trainer))

    def _learning_rate_factor(self, steps_done: int) -> float:
        return self._schedules.learning_rate_factor(steps_done)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute gradients; blocks that are computed again for them have the attention of the forward pass."""
        with attention_kernel(self.device):
            super().backward(loss, *args, **kwargs)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """One optimizer step: set this step's weight decay, update the weights, then let the target follow."""
        optimizer = cast("torch.optim.Optimizer", self.optimizers())
        schedules, step = self._schedules, self.trainer.global_step
        optimizer.param_groups[0]["weight_decay"] = schedules.next_weight_decay(step)
        super().optimizer_step(*args, **kwargs)
        if not reestimates_statistics(self.target):
            update_ema(self.target, self.online, momentum=schedules.ema_momentum(step))
