"""Other ways to take a training step of I-JEPA, from the weights of a ``JEPA``: see ``train_step.py``.

This is the only place that knows how the modules of ``jepa_train`` are put together.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Protocol

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from jepa_train.global_batch import at_least_float32
from jepa_train.models.predictor import Predictor
from jepa_train.module import JEPA

MOMENTUM = 0.996


class Contender(Protocol):
    """Takes training steps, ``half`` under bfloat16 autocast; ``parameter_count`` is of encoder and predictor."""

    parameter_count: int

    def __init__(self, module: JEPA, *, device: str, half: bool) -> None: ...

    def step(self, images: Tensor, context_BV: Tensor, targets_BMT: Tensor) -> Tensor:
        """One step on images of the device and masks of the host; the loss before it."""
        ...


def parameter_count(*modules: nn.Module) -> int:
    """Elements of the parameters that are trained."""
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


class PlainPredictor(nn.Module):
    """Answers for one target block, with the weights of ours."""

    def __init__(self, ours: Predictor) -> None:
        super().__init__()
        width, heads = ours.input.out_features, ours.blocks[0].attn.num_heads
        self.embed = nn.Linear(ours.input.in_features, width)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in ours.blocks))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.project = nn.Linear(width, ours.token_head.out_features)
        self.mask_token = nn.Parameter(ours.mask_query.detach().clone())
        self.register_buffer("positions", ours.positions.clone())
        self.embed.load_state_dict(ours.input.state_dict())
        self.blocks.load_state_dict(ours.blocks.state_dict())
        self.norm.load_state_dict(ours.norm.state_dict())
        self.project.load_state_dict(ours.token_head.state_dict())

    def forward(self, context: Tensor, seen: Tensor, hidden: Tensor) -> Tensor:
        """(B, V, D) context at patches (B, V) -> (B, T, D) at patches (B, T)."""
        known = self.embed(context) + self.positions[seen]
        asked = self.mask_token + self.positions[hidden]
        tokens = self.blocks(torch.cat([known, asked.to(known.dtype)], dim=1))
        return self.project(self.norm(tokens)[:, seen.shape[1] :])


def pick(tokens: Tensor, index: Tensor) -> Tensor:
    """(B, N, D) tokens at (B, V) patches -> (B, V, D)."""
    return torch.take_along_dim(tokens, index.unsqueeze(-1), dim=1)


class Transcription:
    """I-JEPA as section 3 of the paper (arXiv 2301.08243) says it, sentence by sentence; nothing is clever.

    A context block of patches is encoded by a Vision Transformer that sees nothing else. For each target block the
    predictor gets the context's output and a mask token with a position for each patch of the block. The target is the
    output of the EMA encoder on the whole image, layer-normed, at these patches; loss is smooth L1.
    """

    def __init__(self, module: JEPA, *, device: str, half: bool) -> None:
        ours = module.predictor
        self.encoder = copy.deepcopy(module.online.encoder.vit)
        self.ema_encoder = copy.deepcopy(module.target.encoder.vit)
        self.predictor = PlainPredictor(ours)
        for part in (self.encoder, self.ema_encoder, self.predictor):
            part.to(device, ours.input.weight.dtype)
        self.optimizer = torch.optim.AdamW([*self.encoder.parameters(), *self.predictor.parameters()], lr=1e-4)
        self.parameter_count = parameter_count(self.encoder, self.predictor)
        self.device = device
        self.half = half

    def loss(self, images: Tensor, context_BN: Tensor, targets_BMN: Tensor) -> Tensor:
        """Loss of images with masks of 0 and 1 on the host."""
        encoder, target = self.encoder, self.ema_encoder
        seen = self._indices(context_BN)
        tokens = encoder.patch_embed(images) + encoder.pos_embed
        context = encoder.norm(encoder.blocks(pick(tokens, seen)))
        with torch.no_grad():
            tokens = target.patch_embed(images) + target.pos_embed
            everything = at_least_float32(target.norm(target.blocks(tokens)))
            everything = F.layer_norm(everything, everything.shape[-1:])
        losses = []
        for block_BN in targets_BMN.unbind(1):
            hidden = self._indices(block_BN)
            predicted = self.predictor(context, seen, hidden)
            losses.append(F.smooth_l1_loss(at_least_float32(predicted), pick(everything, hidden)))
        return torch.stack(losses).mean()

    def _indices(self, mask_BN: Tensor) -> Tensor:
        """(B, N) of 0 and 1, as many ones in each row -> (B, V) patches."""
        return mask_BN.nonzero()[:, 1].view(len(mask_BN), -1).to(self.device)

    def step(self, images: Tensor, context_BV: Tensor, targets_BMT: Tensor) -> Tensor:
        """One step; the masks come as indices and are first made 0 and 1."""
        patches = self.encoder.patch_embed.num_patches
        context = torch.zeros(len(context_BV), patches).scatter_(1, context_BV.cpu(), 1.0)
        targets = torch.zeros(*targets_BMT.shape[:2], patches).scatter_(2, targets_BMT.cpu(), 1.0)
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.half):
            loss = self.loss(images, context, targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(self.ema_encoder.parameters(), self.encoder.parameters(), strict=True):
                slow.mul_(MOMENTUM).add_(fast, alpha=1.0 - MOMENTUM)
        return loss.detach()


class Lightly:
    """The I-JEPA of the package lightly: its timm encoder, its predictor, and the step of its example.

    It trains one tensor more: its encoder has a mask token, which I-JEPA does not use.
    """

    def __init__(self, module: JEPA, *, device: str, half: bool) -> None:
        from lightly.models.modules import IJEPAPredictorTIMM, MaskedVisionTransformerTIMM

        ours, vit = module.predictor, copy.deepcopy(module.online.encoder.vit)
        self.encoder = MaskedVisionTransformerTIMM(vit, weight_initialization="skip", pos_embed_initialization="skip")
        self.predictor = IJEPAPredictorTIMM(
            num_patches=len(ours.positions),
            depth=len(ours.blocks),
            mlp_dim=ours.token_head.out_features,
            predictor_embed_dim=ours.input.out_features,
            num_heads=ours.blocks[0].attn.num_heads,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
        self.predictor.predictor_embed.load_state_dict(ours.input.state_dict())
        self.predictor.predictor_proj.load_state_dict(ours.token_head.state_dict())
        self.predictor.decoder.blocks.load_state_dict(ours.blocks.state_dict())
        self.predictor.decoder.norm.load_state_dict(ours.norm.state_dict())
        with torch.no_grad():
            self.predictor.decoder.mask_token.copy_(ours.mask_query)
            self.predictor.decoder.pos_embed.copy_(ours.positions)
        self.encoder.to(device)
        self.predictor.to(device)
        self.target_encoder = copy.deepcopy(self.encoder)
        self.optimizer = torch.optim.AdamW([*self.encoder.parameters(), *self.predictor.parameters()], lr=1e-4)
        self.parameter_count = parameter_count(self.encoder, self.predictor)
        self.device = device
        self.half = half

    def step(self, images: Tensor, context_BV: Tensor, targets_BMT: Tensor) -> Tensor:
        """One step, with one tensor of indices per target block."""
        from lightly.models.utils import apply_masks

        context = context_BV.to(self.device)
        targets = [block.to(self.device) for block in targets_BMT.unbind(1)]
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.half):
            with torch.no_grad():
                tokens = self.target_encoder.encode(images)
                tokens = apply_masks(F.layer_norm(tokens, tokens.shape[-1:]), targets)
            predicted = self.predictor(self.encoder.encode(images, idx_keep=context), [context], targets)
            loss = F.smooth_l1_loss(predicted, tokens)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for fast, slow in zip(self.encoder.parameters(), self.target_encoder.parameters(), strict=True):
                slow.data.mul_(MOMENTUM).add_((1.0 - MOMENTUM) * fast.detach().data)
        return loss.detach()
