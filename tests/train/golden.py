"""Losses of twenty steps of each objective in double precision; run as a script it replaces golden_losses.txt.

    python -m tests.train.golden

A change of golden_losses.txt means that training has changed: say why in the commit that changes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from torch.utils.data import DataLoader

from jepa_train.cli import CONFIGS
from jepa_train.data.base import ImageTensors
from jepa_train.module import JEPA
from jepa_train.optimization import QUERIES

STEPS = 20
FILE = Path(__file__).with_name("golden_losses.txt")
OVERLAYS = (
    ("sigreg",),
    ("vicreg",),
    ("barlow",),
    ("whitening_mse",),
    ("uniformity",),
    ("none",),
    ("none", "ema_off"),
    ("weight_decay",),
    ("spectral_norm",),
    ("i_jepa",),
    ("sigreg", "on_tokens"),
    ("sigreg", "on_both"),
    ("sigreg", "tokens_l2"),
    ("sigreg", "tokens_cosine"),
    ("lejepa",),
)


class _Losses(pl.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.values.append(float(outputs["loss"]))


def losses(overlays: tuple[str, ...], folder: Path) -> list[float]:
    """The loss of each step, of a small model on random images."""
    settings: dict[str, Any] = {}
    for name in overlays:
        settings |= yaml.safe_load((CONFIGS / "objective" / f"{name}.yaml").read_text())["model"]
    torch.manual_seed(0)
    images = torch.randn(STEPS * 16, 1, 16, 16, dtype=torch.float64)
    module = JEPA(
        image_size=16,
        channels=1,
        encoder_overrides={"embed_dim": 16, "depth": 2, "num_heads": 2},
        patch_size=4,
        embedding_size=4,
        projector_hidden=16,
        predictor_width=16,
        predictor_depth=2,
        num_targets=2,
        sigreg_slices=16,
        **{"crop_scale": 0.5, **settings},
    )
    _draw_weights(module)
    recorded = _Losses()
    trainer = pl.Trainer(
        max_steps=STEPS,
        limit_val_batches=0,
        precision="64-true",
        accelerator="cpu",
        callbacks=[recorded],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    loader = DataLoader(ImageTensors(images, torch.zeros(len(images))), batch_size=16)
    trainer.fit(module, loader, loader)
    return recorded.values


@torch.no_grad()
def _draw_weights(module: JEPA) -> None:
    """Draw weights by ``torch.randn``: every version of torch gives its numbers, but not those of ``trunc_normal_``."""
    torch.manual_seed(0)
    for part in filter(None, (module.online, module.predictor)):
        for name, parameter in part.named_parameters():
            if parameter.requires_grad and (parameter.ndim > 1 or name in QUERIES):
                parameter.copy_(0.02 * torch.randn_like(parameter))
    module.target.load_state_dict(module.online.state_dict())


def stored() -> dict[str, list[float]]:
    """Read golden_losses.txt."""
    lines = (line.split() for line in FILE.read_text().splitlines())
    return {name: [float(value) for value in values] for name, *values in lines}


def main() -> None:
    """Write the file."""
    rows = ((name, losses(name, FILE.parent)) for name in OVERLAYS)
    FILE.write_text("".join(f"{'+'.join(name)} {' '.join(f'{v:.12g}' for v in values)}\n" for name, values in rows))


if __name__ == "__main__":
    main()
