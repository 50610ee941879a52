"""Volumes by a subspace, exact ones, and those of the lowest density of the embedding first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor, nn

from jepa_monitor import EmbeddingReference, encoder_volume
from jepa_train.errors import ConfigurationError
from jepa_train.ranking.batches import DataSettings
from jepa_train.ranking.references import RankingReference, fit_reference
from jepa_train.ranking.shards import Shard
from jepa_train.ranking.volumes import chooses_exact, volume_order
from jepa_train.ranking.workspace import SCORES, Workspace
from tests.train.ranking.tiny import SIZE, encoder_of, pictures, rank_quietly, values


class Wide(nn.Module):
    """Many numbers that depend on three of the picture above all."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.few = nn.Sequential(nn.Linear(3 * SIZE * SIZE, 3), nn.Tanh(), nn.Linear(3, 30))
        self.rest = nn.Linear(3 * SIZE * SIZE, 30)

    def forward(self, x: Tensor) -> Tensor:
        """Embed."""
        return self.few(x.flatten(1)) + 0.03 * self.rest(x.flatten(1)).tanh()


def fitted(z: Tensor) -> RankingReference:
    """The reference of embeddings (M, K)."""
    return fit_reference(z.numpy(), np.arange(len(z)), images="a", encoder="e", source="s")


def test_volumes_are_exact_where_that_costs_little() -> None:
    small, large = fitted(torch.randn(200, 6)), fitted(torch.randn(200, 40))
    flat = torch.randn(300, 2) @ torch.randn(2, 40)
    thin = fitted(flat)
    assert chooses_exact("auto", small)
    assert not chooses_exact("auto", thin)
    assert chooses_exact("exact", thin)
    assert not chooses_exact("subspace", small)
    assert chooses_exact("auto", replace(large, z=large.z[:10]))
    with pytest.raises(ConfigurationError, match="needs more than the 5 reference embeddings"):
        chooses_exact("subspace", replace(large, z=large.z[:5]))


def test_a_subspace_ranks_as_exact_volumes_do(tmp_path: Path) -> None:
    images, encoder = pictures(tmp_path / "photos", 150), encoder_of(Wide().eval())
    table = rank_quietly(images, tmp_path / "ranked", encoder=encoder)
    assert table["jepa_score"].null_count == 150  # it needs all singular values
    x = torch.stack([encoder.prepare(Image.open(images / name)) for name in table["filename"].to_pylist()])
    exact = encoder_volume(encoder.module, x, rank=EmbeddingReference.fit(encoder.module(x).detach()).rank)
    assert spearmanr(values(table, "log_volume"), exact).statistic > 0.999
    both = rank_quietly(images, tmp_path / "exact", encoder=encoder, scores="log_volume,jepa_score")
    np.testing.assert_allclose(values(both, "log_volume"), exact.numpy(), atol=1e-4)
    assert both["jepa_score"].null_count == 0
    assert both.column_names == ["filename", "jepa_score", "log_volume", "reason"]


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_batch_size_does_not_matter(tmp_path: Path, batch_size: int) -> None:
    images, encoder = pictures(tmp_path / "photos", 50), encoder_of(Wide().eval())
    one, other = (
        rank_quietly(images, tmp_path / f"{size}", encoder=encoder, data=DataSettings(batch_size=size, num_workers=0))
        for size in (16, batch_size)
    )
    for name in ("log_density", "log_volume", "embedding_log_density", "mahalanobis"):
        np.testing.assert_allclose(values(one, name), values(other, name), atol=1e-4)


def test_the_lowest_density_of_the_embedding_comes_first(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.write(SCORES, 0, pa.table({"index": [0, 1, 2], "embedding_log_density": [1.0, None, -3.0]}))
    workspace.write(SCORES, 2, pa.table({"index": [6, 7], "embedding_log_density": [0.0, 5.0]}))
    assert volume_order(workspace, [0, 2], 3, lowest_first=True, shard=Shard()).indices.tolist() == [2, 6, 0, 7]
    assert volume_order(workspace, [0, 2], 3, lowest_first=False, shard=Shard()).indices.tolist() == [0, 2, 6, 7]


def test_a_budget_measures_some_and_says_so(tmp_path: Path) -> None:
    images = pictures(tmp_path / "photos", 150)
    none = rank_quietly(images, tmp_path / "none", budget="0s")
    reason = "no volume within the budget, which goes to the lowest embedding_log_density first"
    assert set(none["reason"].to_pylist()) == {reason}
    assert none["log_density"].null_count == 150
    assert none["embedding_log_density"].null_count == 0
    # the same ranking goes on with more time, and then as in one go
    rest = rank_quietly(images, tmp_path / "none")
    assert rest["reason"].null_count == 150
    at_once = rank_quietly(images, tmp_path / "all")
    np.testing.assert_allclose(values(rest, "log_density"), values(at_once, "log_density"), atol=1e-4)
