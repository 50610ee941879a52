"""The module's loss and step against the paper written down a second time (``benchmarks/step_contenders.py``)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from jepa_train.module import JEPA

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
BATCH = 8


@pytest.fixture(scope="module")
def contenders() -> ModuleType:
    spec = importlib.util.spec_from_file_location("step_contenders", FOLDER / "step_contenders.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Recorder(pl.Callback):
    """Masks, loss and gradients of a fit's only step."""

    def __init__(self, module: JEPA) -> None:
        self.draw = module.masks
        module.masks = self  # type: ignore[assignment]  # called in the same way

    def __call__(self, batch_size: int, generator: Generator) -> tuple[Tensor, Tensor]:
        self.masks = self.draw(batch_size, generator)
        return self.masks

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        named = pl_module.named_parameters()
        self.gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.loss = outputs["loss"].detach()


def make_module(**settings: Any) -> JEPA:
    """Plain I-JEPA whose target has moved away from the encoder, as after some steps."""
    torch.manual_seed(0)
    module = JEPA(
        image_size=24,
        patch_size=4,
        encoder_overrides={"embed_dim": 32, "depth": 3, "num_heads": 2},
        predictor_width=16,
        predictor_depth=3,
        predictor_heads=2,
        embedding_weight=0.0,
        anticollapse="none",
        anticollapse_weight=0.0,
        **settings,
    )
    for name, parameter in module.named_parameters():
        if not name.endswith("pos_embed"):
            parameter.data += 0.05 * torch.randn(parameter.shape)
    return module


def one_step(module: JEPA, images: Tensor, folder: Path, **settings: Any) -> Recorder:
    recorder = Recorder(module)
    trainer = pl.Trainer(
        max_steps=1,
        accelerator="cpu",
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        log_every_n_steps=1,
        default_root_dir=folder,
        **settings,
    )
    loader = DataLoader([{"image": image} for image in images], batch_size=BATCH)
    trainer.fit(module, loader, loader)
    return recorder


@pytest.mark.parametrize(
    "settings", [{}, {"num_targets": 1}, {"num_targets": 2, "target_scale": (0.05, 0.05)}], ids=str
)
def test_loss_and_gradients_are_those_of_the_paper(
    settings: dict[str, Any], contenders: ModuleType, tmp_path: Path
) -> None:
    module = make_module(**settings).double()
    plain = contenders.Transcription(module, device="cpu", half=False)  # copies the weights before they move
    images = torch.randn(BATCH, 3, 24, 24, dtype=torch.float64)
    ours = one_step(module, images, tmp_path, precision="64-true")
    context, targets = ours.masks
    patches = 36
    loss = plain.loss(
        images,
        torch.zeros(BATCH, patches).scatter_(1, context, 1.0),
        torch.zeros(*targets.shape[:2], patches).scatter_(2, targets, 1.0),
    )
    loss.backward()
    torch.testing.assert_close(ours.loss, loss.detach(), atol=0.0, rtol=1e-13)
    theirs = {f"online.encoder.vit.{name}": p.grad for name, p in plain.encoder.named_parameters()}
    renamed = {"embed": "input", "project": "token_head", "mask_token": "mask_query"}
    for name, parameter in plain.predictor.named_parameters():
        first, *rest = name.split(".")
        theirs[".".join(["predictor", renamed.get(first, first), *rest])] = parameter.grad
    assert set(ours.gradients) == {name for name, gradient in theirs.items() if gradient is not None}
    for name, gradient in ours.gradients.items():
        torch.testing.assert_close(
            gradient, theirs[name], atol=1e-14, rtol=1e-10, msg=lambda text, name=name: name + text
        )


def test_a_step_of_the_transcription_moves_weights_and_ema(contenders: ModuleType) -> None:
    module = make_module()
    plain = contenders.Transcription(module, device="cpu", half=False)
    slow = [p.clone() for p in plain.ema_encoder.parameters()]
    first = plain.step(torch.randn(BATCH, 3, 24, 24), *module.masks(BATCH, Generator().manual_seed(0)))
    assert torch.isfinite(first)
    for before, after, fast in zip(slow, plain.ema_encoder.parameters(), plain.encoder.parameters(), strict=True):
        torch.testing.assert_close(after, contenders.MOMENTUM * before + (1 - contenders.MOMENTUM) * fast)


def test_the_package_lightly_has_the_same_loss(contenders: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("lightly", reason="needs the extra: benchmarks")
    module = make_module()
    peer = contenders.Lightly(module, device="cpu", half=False)
    peer.target_encoder.vit.load_state_dict(module.target.encoder.vit.state_dict())
    images = torch.randn(BATCH, 3, 24, 24)
    ours = one_step(module, images, tmp_path)
    torch.testing.assert_close(peer.step(images, *ours.masks), ours.loss, atol=1e-6, rtol=1e-5)
