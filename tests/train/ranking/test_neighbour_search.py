"""The nearest other image is that of a search over all, in however many blocks; an index finds nearly all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.spatial.distance import cdist

from jepa_train.ranking import neighbour_search
from jepa_train.ranking.columns import wanted_columns
from jepa_train.ranking.duplicates import write_nearest
from jepa_train.ranking.neighbour_search import ExactSearch, search_of
from jepa_train.ranking.results import searches
from jepa_train.ranking.workspace import EMBEDDINGS, NEAREST, Workspace
from tests.train.ranking.tiny import embedded

CPU = torch.device("cpu")


@pytest.mark.parametrize("block", [1, 2, 16])
def test_it_is_that_of_an_exhaustive_search(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbour_search, "BLOCK", block)
    workspace, z = Workspace(tmp_path), torch.randn(50, 6).numpy()
    z[30], z[7] = z[3], np.nan
    for number in range(5):
        rows = slice(10 * number, 10 * number + 10)
        workspace.write(EMBEDDINGS, number, embedded(np.arange(50)[rows], z[rows]))
    write_nearest(workspace, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], CPU)
    found = pa.concat_tables(workspace.read(NEAREST, number) for number in range(5)).to_pandas()
    distances = cdist(z.astype(float), z.astype(float))
    np.fill_diagonal(distances, np.inf)
    distances[np.isnan(distances)] = np.inf
    finite = np.arange(50) != 7
    np.testing.assert_allclose(found["nearest_distance"][finite], distances.min(1)[finite], atol=1e-7)
    assert (found["nearest_index"][finite].astype(int) == distances.argmin(1)[finite]).all()
    assert found["nearest_distance"][[3, 30]].tolist() == [0.0, 0.0]
    assert found["nearest_index"].isna().tolist() == (~finite).tolist()


def test_many_images_are_searched_with_an_index_alone_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for faiss in (True, False):
        monkeypatch.setattr("jepa_train.ranking.results.has_faiss", lambda found=faiss: found)
        assert searches(wanted_columns(None), 100_000)
        assert searches(wanted_columns(None), 100_001) is faiss
        assert searches(wanted_columns(["nearest_distance"]), 100_001)


def test_few_images_are_searched_exactly(tmp_path: Path) -> None:
    assert isinstance(search_of(Workspace(tmp_path), [], CPU, 100_000), ExactSearch)


def test_an_index_finds_nearly_all_and_every_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss", reason="needs the extra: faiss")
    monkeypatch.setattr(neighbour_search, "MOST_EXACT", 1000)
    workspace, parts = Workspace(tmp_path), list(range(4))
    z = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0)).numpy()
    z[3500], z[7] = z[3], np.nan
    for number in parts:
        rows = slice(1000 * number, 1000 * number + 1000)
        workspace.write(EMBEDDINGS, number, embedded(np.arange(4000)[rows], z[rows]))
    write_nearest(workspace, parts, parts, CPU)
    found = pa.concat_tables(workspace.read(NEAREST, number) for number in parts).to_pandas()
    assert found["nearest_index"].isna().to_numpy().nonzero()[0].tolist() == [7]
    assert found["nearest_index"][[3, 3500]].tolist() == [3500, 3]
    assert found["nearest_distance"][[3, 3500]].tolist() == [0.0, 0.0]
    finite = np.arange(4000) != 7
    distances = np.where(np.eye(3999, dtype=bool), np.inf, cdist(z[finite], z[finite]))
    close = np.isclose(found["nearest_distance"][finite], distances.min(1), rtol=1e-4)
    assert close.mean() > 0.98
