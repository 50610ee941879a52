"""Predictions of any module become a ranking: embeddings, scores, and volumes where K is small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from jepa_monitor import EmbeddingReference, encoder_volume
from jepa_train.errors import ConfigurationError
from jepa_train.ranking.table import read_table
from jepa_train.ranking.writer import RankingWriter, embeddings_of, images_of
from tests.monitor.helpers import trainer_on
from tests.processes import run_on
from tests.train.ranking.tiny import QUIET, layers, values

X = torch.randn(90, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ODD = TensorDataset(torch.cat([X, X[:1] + 1.0]))  # of which two processes cannot have equally many


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


def predict(module: pl.LightningModule, writer: RankingWriter, loader: Any = None) -> None:
    trainer = pl.Trainer(**QUIET, logger=False, enable_checkpointing=False, callbacks=[writer])
    trainer.predict(module, loader or DataLoader(TensorDataset(X), batch_size=20), return_predictions=False)


def test_embeddings_are_scored_and_measured(tmp_path: Path) -> None:
    module = Project()
    predict(module, RankingWriter(str(tmp_path / "ranked")))
    table = read_table(tmp_path / "ranked" / "ranking.parquet")
    assert table["filename"].to_pylist() == [str(number) for number in range(90)]
    assert not {"compressed_size", "doubt", "nearest_difference"} & set(table.column_names)  # of files alone
    assert {name for name in table.column_names if table[name].null_count} == {"reason"}
    reference = EmbeddingReference.fit(module(X).detach())
    np.testing.assert_allclose(values(table, "embedding_log_density"), reference.leave_one_out(), atol=1e-4)
    expected = encoder_volume(module, X, rank=reference.rank)
    np.testing.assert_allclose(values(table, "log_volume"), expected, atol=1e-4)
    summary = json.loads((tmp_path / "ranked" / "summary.json").read_text())
    assert summary["encoder"]["name"] == "Project"
    assert not (tmp_path / "ranked" / "parts" / "predicted").exists()


@pytest.mark.filterwarnings("default:predict_step gives other embeddings than forward")
@pytest.mark.parametrize(
    ("module", "volumes", "reason"),
    [
        (Scaled(), 64, "no volume: predict_step gives other embeddings than forward"),
        (Project(), 4, "no volume: K = 5 is above RankingWriter's volumes=4"),
        (Project(), 0, "no volume: K = 5 is above RankingWriter's volumes=0"),
    ],
)
def test_without_volumes_there_are_the_other_scores(module: Project, volumes: int, reason: str, tmp_path: Path) -> None:
    predict(module, RankingWriter(str(tmp_path / "ranked"), volumes=volumes))
    table = read_table(tmp_path / "ranked" / "ranking.parquet")
    assert set(table["reason"].to_pylist()) == {reason}
    warnings = json.loads((tmp_path / "ranked" / "summary.json").read_text())["warnings"]
    assert "Volumes of 0 of 90 images were measured: reason says why not of the others." in warnings
    assert not any("udget" in warning or "could not be read" in warning for warning in warnings)
    assert table["log_density"].null_count == 90
    assert table["mahalanobis"].null_count == table["nearest_distance"].null_count == 0


def test_samples_that_a_sampler_repeats_are_one_row_each(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(X), batch_size=20, sampler=[*range(90), 0, 1])
    predict(Project(), RankingWriter(str(tmp_path / "ranked")), loader)
    table = read_table(tmp_path / "ranked" / "ranking.parquet")
    assert table["filename"].to_pylist() == [str(number) for number in range(90)]


def test_many_parts_in_any_order_are_the_table_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict(Project(), RankingWriter(str(tmp_path / "one")))
    monkeypatch.setattr("jepa_train.ranking.writer.ROWS", 16)
    order = np.random.default_rng(0).permutation(90).tolist()
    predict(Project(), RankingWriter(str(tmp_path / "many")), DataLoader(TensorDataset(X), batch_size=7, sampler=order))
    one, many = (read_table(tmp_path / name / "ranking.parquet") for name in ("one", "many"))
    for name in ("log_density", "log_volume", "jepa_score", "mahalanobis", "nearest_distance"):
        np.testing.assert_allclose(values(many, name), values(one, name), atol=1e-4)
    assert many["filename"].equals(one["filename"])


def predict_together(global_rank: int, world_size: int, folder: str) -> None:
    """Predict 91 samples on some processes, with Lightning's sampler, and with one that repeats a sample."""
    padded = DistributedSampler(ODD, world_size, global_rank, shuffle=False)
    for sampler in (None, padded):
        writer = RankingWriter(f"{folder}/{'lightning' if sampler is None else 'padded'}")
        trainer = trainer_on(global_rank, world_size, writer, use_distributed_sampler=sampler is None)
        trainer.predict(Project(), DataLoader(ODD, batch_size=7, sampler=sampler), return_predictions=False)


@pytest.mark.slow
def test_two_processes_write_the_table_of_one(tmp_path: Path) -> None:
    run_on(2, predict_together, str(tmp_path / "two"))
    predict(Project(), RankingWriter(str(tmp_path / "one")), DataLoader(ODD, batch_size=20))
    one = read_table(tmp_path / "one" / "ranking.parquet")
    for sampler in ("lightning", "padded"):
        two = read_table(tmp_path / "two" / sampler / "ranking.parquet")
        assert two.column_names == one.column_names
        for name in one.column_names:
            if pa.types.is_floating(one.schema.field(name).type):
                np.testing.assert_allclose(values(two, name), values(one, name), atol=1e-4)
            else:
                assert two[name].equals(one[name])


def test_folders_are_numbered_and_never_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        predict(Project(), RankingWriter())
    assert {path.name for path in Path("predictions").iterdir()} == {"version_0", "version_1"}
    with pytest.raises(ConfigurationError, match="is not empty"):
        predict(Project(), RankingWriter("predictions/version_0"))


class Tokens(Project):
    """Predicts tokens, which are no embeddings."""

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """Embed, in a list of tokens."""
        return self(batch[0])[:, None]


def test_what_cannot_be_ranked_leaves_the_place_free(tmp_path: Path) -> None:
    for module, loader in ((Tokens(), None), (Project(), DataLoader(TensorDataset(X[:1])))):
        with pytest.raises(ConfigurationError):
            predict(module, RankingWriter(str(tmp_path / "ranked")), loader)
        assert not (tmp_path / "ranked").exists()
    predict(Project(), RankingWriter(str(tmp_path / "ranked")))


def test_what_are_embeddings_and_images() -> None:
    z, x = torch.randn(4, 3), torch.randn(4, 1, 2, 2)
    assert all(embeddings_of(found) is z for found in (z, (z, 1), {"embedding": z}))
    assert all(images_of(batch) is x for batch in (x, [x, 1], {"image": x, "label": 1}))
    assert images_of({"text": "a"}) is None
    for wrong in (None, {}, [], x, z.long(), "text"):
        with pytest.raises(ConfigurationError, match="must return embeddings"):
            embeddings_of(wrong)
