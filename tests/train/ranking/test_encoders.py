"""Encoders of images by name."""

from __future__ import annotations

from pathlib import Path

import torch

from jepa_train.checkpoints.files import read_checkpoint
from jepa_train.export import rebuilt
from jepa_train.module import JEPA
from jepa_train.ranking.encoders import load_encoder
from tests.train.helpers import TINIEST, saved_by


def test_a_checkpoint_and_its_export_give_z(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    saved_by(JEPA(**TINIEST), path)
    encoder = load_encoder(str(path))
    images = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        z = encoder.module(images)
        assert torch.equal(z, rebuilt(read_checkpoint(path), path)(images))
