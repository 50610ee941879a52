"""Predictions of any module become a ranking: embeddings, scores, and volumes where K is small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from jepa_monitor import EmbeddingReference, encoder_volume
from jepa_train.errors import ConfigurationError
from jepa_train.ranking.table import read_table
from jepa_train.ranking.writer import RankingWriter, embeddings_of, images_of
from tests.train.ranking.tiny import QUIET, layers, values

X = torch.randn(90, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Project(pl.LightningModule):
    """A module of somebody else."""

    def __init__(self, size: int = 5) -> None:
        super().__init__()
        self.encoder = layers(size)

    def forward(self, x: Tensor) -> Tensor:
        """Embed."""
        return self.encoder(x)

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """Embed a batch of a TensorDataset."""
        return self(batch[0])


class Scaled(Project):
    """Predicts something else than its forward."""

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """Embed, twice as large."""
        return {"embedding": 2.0 * self(batch[0])}


def predict(module: pl.LightningModule, writer: RankingWriter) -> None:
    trainer = pl.Trainer(**QUIET, logger=False, enable_checkpointing=False, callbacks=[writer])
    trainer.predict(module, DataLoader(TensorDataset(X), batch_size=20), return_predictions=False)


def test_embeddings_are_scored_and_measured(tmp_path: Path) -> None:
    module = Project()
    predict(module, RankingWriter(str(tmp_path / "ranked")))
    table = read_table(tmp_path / "ranked" / "ranking.parquet")
    assert table["filename"].to_pylist() == [str(number) for number in range(90)]
    reference = EmbeddingReference.fit(module(X).detach())
    np.testing.assert_allclose(values(table, "embedding_log_density"), reference.leave_one_out(), atol=1e-4)
    expected = encoder_volume(module, X, rank=reference.rank)
    np.testing.assert_allclose(values(table, "log_volume"), expected, atol=1e-4)
    summary = json.loads((tmp_path / "ranked" / "summary.json").read_text())
    assert summary["encoder"]["name"] == "Project"
    assert not (tmp_path / "ranked" / "parts" / "predicted").exists()


@pytest.mark.filterwarnings("default:predict_step gives other embeddings than forward")
@pytest.mark.parametrize(("module", "volumes"), [(Scaled(), 64), (Project(), 4), (Project(), 0)])
def test_without_volumes_there_are_the_other_scores(module: Project, volumes: int, tmp_path: Path) -> None:
    predict(module, RankingWriter(str(tmp_path / "ranked"), volumes=volumes))
    table = read_table(tmp_path / "ranked" / "ranking.parquet")
    assert table["log_density"].null_count == 90
    assert table["mahalanobis"].null_count == table["nearest_distance"].null_count == 0


def test_folders_are_numbered_and_never_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        predict(Project(), RankingWriter())
    assert {path.name for path in Path("predictions").iterdir()} == {"version_0", "version_1"}
    with pytest.raises(ConfigurationError, match="is not empty"):
        predict(Project(), RankingWriter("predictions/version_0"))


def test_what_are_embeddings_and_images() -> None:
    z, x = torch.randn(4, 3), torch.randn(4, 1, 2, 2)
    assert all(embeddings_of(found) is z for found in (z, (z, 1), {"embedding": z}))
    assert all(images_of(batch) is x for batch in (x, [x, 1], {"image": x, "label": 1}))
    assert images_of({"text": "a"}) is None
    for wrong in (None, {}, [], x, z.long(), "text"):
        with pytest.raises(ConfigurationError, match="must return embeddings"):
            embeddings_of(wrong)
