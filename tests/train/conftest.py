"""Fixtures of the tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_train.cli import main


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which the test is: runs, and what Lightning writes beside them, stay out of the repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


FIT = [
    "fit",
    "--trainer.logger.save_dir=runs",
    "--trainer.max_epochs=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.log_every_n_steps=1",
    "--data.num_train=256",
    "--data.num_probe=64",
    "--data.batch_size=64",
    "--model.encoder_overrides={embed_dim: 16, depth: 2, num_heads: 2, drop_path_rate: 0.3, reg_tokens: 2}",
    "--model.projector_hidden=16",
    "--model.ema_start=0.5",
    "--model.pretrained=false",
]


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a run of four steps that the monitor measured."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(FIT)
    return folder / "runs" / "mixture" / "version_0" / "checkpoints" / "last.ckpt"
