"""The nearest other image is that of a search over all, in however many blocks it is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.spatial.distance import cdist

from jepa_train.ranking import duplicates
from jepa_train.ranking.duplicates import write_nearest
from jepa_train.ranking.workspace import EMBEDDINGS, NEAREST, Workspace, vector_column


@pytest.mark.parametrize("block", [1, 2, 16])
def test_it_is_that_of_an_exhaustive_search(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", block)
    workspace, z = Workspace(tmp_path), torch.randn(50, 6).numpy()
    z[30], z[7] = z[3], np.nan
    for number in range(5):
        rows = slice(10 * number, 10 * number + 10)
        workspace.write(
            EMBEDDINGS, number, pa.table({"index": np.arange(50)[rows], "embedding": vector_column(z[rows])})
        )
    write_nearest(workspace, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], torch.device("cpu"))
    found = pa.concat_tables(workspace.read(NEAREST, number) for number in range(5)).to_pandas()
    distances = cdist(z.astype(float), z.astype(float))
    np.fill_diagonal(distances, np.inf)
    distances[np.isnan(distances)] = np.inf
    finite = np.arange(50) != 7
    np.testing.assert_allclose(found["nearest_distance"][finite], distances.min(1)[finite], atol=1e-7)
    assert (found["nearest_index"][finite].astype(int) == distances.argmin(1)[finite]).all()
    assert found["nearest_distance"][[3, 30]].tolist() == [0.0, 0.0]
    assert found["nearest_index"].isna().tolist() == (~finite).tolist()


def test_one_image_alone_has_none(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.write(EMBEDDINGS, 0, pa.table({"index": [0], "embedding": vector_column(np.ones((1, 2), np.float32))}))
    write_nearest(workspace, [0], [0], torch.device("cpu"))
    assert workspace.read(NEAREST, 0)["nearest_index"].null_count == 1
