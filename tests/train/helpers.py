"""Small trainings by the command line and by the module, and the one sentence that a mistake ends in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from jepa_train.checkpoints.files import read_checkpoint
from jepa_train.cli import main
from jepa_train.module import JEPA

MISTAKE, FAILED = 2, 1  # exit codes of the command line
BATCHES = 5  # an epoch
TINY_MODEL = [
    *("--model.encoder_overrides={embed_dim: 32, depth: 1, num_heads: 2}", "--model.predictor_width=16"),
    *("--model.predictor_depth=1", "--model.projector_hidden=16", "--model.sigreg_slices=8"),
]
# the smallest training that ``train.py`` can run: five steps an epoch
TINY = [
    *(f"--data.num_train={8 * BATCHES}", "--data.batch_size=8", "--data.num_probe=8"),
    *(
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--trainer.log_every_n_steps=1",
    ),
    *TINY_MODEL,
    # schedules that do not depend on the length of the run
    *("--model.learning_rate_start=1e-3", "--model.learning_rate=1e-3", "--model.learning_rate_end=1e-3"),
    *("--model.ema_start=0.9", "--model.ema_end=0.9", "--model.weight_decay=0.04", "--model.weight_decay_end=0.04"),
    "--monitor=null",
    *("--trainer.callbacks=lightning.pytorch.callbacks.ModelCheckpoint", "--trainer.callbacks.save_last=true"),
]


def last_checkpoint(folder: Path) -> Path:
    """``last.ckpt`` of the first run in a folder."""
    return folder / "mixture" / "version_0" / "checkpoints" / "last.ckpt"


def fit(folder: Path, *arguments: str) -> dict[str, Any]:
    """Train by the command line, in this process, and return the last checkpoint."""
    main(["fit", *TINY, f"--trainer.logger.save_dir={folder}", *arguments])
    return read_checkpoint(last_checkpoint(folder))


def saved_by(module: pl.LightningModule, path: Path) -> None:
    """Write a checkpoint of a module that was never trained."""
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path)


def run_export(trained: Path, *arguments: str) -> None:
    """Export the encoder of a checkpoint to ``encoder.safetensors``."""
    main(["export", f"--ckpt_path={trained}", "--output=encoder.safetensors", *arguments])


def reference(trained: Path, which: str, images: Tensor) -> Tensor:
    """Mean tokens, from the module as Lightning itself rebuilds it."""
    module = JEPA.load_from_checkpoint(trained).eval()
    branch = module.target if which == "target" else module.online
    with torch.no_grad():
        return branch.encoder(images).mean(dim=1)


TINIEST: dict[str, Any] = {
    "image_size": 16,
    "channels": 1,
    "encoder_overrides": {"embed_dim": 16, "depth": 1, "num_heads": 2},
    "patch_size": 4,
    "embedding_size": 3,
    "projector_hidden": 8,
    "predictor_width": 16,
    "predictor_depth": 1,
    "num_targets": 2,
    "sigreg_slices": 16,
}
SMALL: dict[str, Any] = {
    "image_size": 16,
    "channels": 1,
    "encoder_overrides": {"embed_dim": 32, "depth": 2, "num_heads": 2},
    "patch_size": 4,
    "embedding_size": 4,
    "projector_hidden": 16,
    "predictor_width": 16,
    "predictor_depth": 1,
    "predictor_heads": 2,
    "num_targets": 2,
    "sigreg_slices": 16,
}


def one_sentence(function: Callable[[], Any], capsys: pytest.CaptureFixture[str], *, code: int = MISTAKE) -> str:
    """The one line ``error: ...`` that a function ends with on stderr, with this exit code and without a traceback."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        function()
    assert ended.value.code == code
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err + shown.out
    *_, message = shown.err.rstrip("\n").split("\n")
    assert message.startswith("error: ")
    assert shown.err.count("error: ") == 1
    return message


class Images(torch.utils.data.Dataset[dict[str, Tensor]]):
    """64 images of noise, the same each time."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(index))}


def make_trainer(tmp_path: Path, *, steps: int = 4, **settings: Any) -> pl.Trainer:
    """Make a Trainer of a few steps, which keeps nothing."""
    return pl.Trainer(
        max_steps=steps,
        **{"accelerator": "cpu"} | settings,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        default_root_dir=tmp_path,
    )


def train(module: JEPA, tmp_path: Path, **settings: Any) -> pl.Trainer:
    """Train on noise."""
    trainer = make_trainer(tmp_path, **settings)
    trainer.fit(module, DataLoader(Images(), batch_size=16), DataLoader(Images(), batch_size=16))
    return trainer
