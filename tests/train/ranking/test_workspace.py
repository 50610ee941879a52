"""Parts are written whole and read back, and a manifest knows another ranking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jepa_train.errors import ConfigurationError, RunFailed
from jepa_train.ranking.workspace import (
    EMBEDDINGS,
    Workspace,
    abandoned_where_refused,
    difference_of,
    open_workspace,
    vector_column,
    vectors,
    write_json,
)

MANIFEST = {"format": 1, "encoder": "abc", "versions": {"torch": "1"}}


def part(count: int) -> pa.Table:
    z = np.arange(3 * count, dtype=np.float32).reshape(count, 3)
    return pa.table({"index": np.arange(count), "embedding": vector_column(z)})


def test_a_part_is_read_as_it_was_written(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.write(EMBEDDINGS, 7, part(5))
    assert workspace.numbers(EMBEDDINGS) == {7}
    assert workspace.read(EMBEDDINGS, 7).equals(part(5))
    np.testing.assert_array_equal(vectors(workspace.read(EMBEDDINGS, 7)["embedding"]), np.arange(15).reshape(5, 3))
    assert [path.name for path in (tmp_path / "parts" / EMBEDDINGS).iterdir()] == ["000000007.arrow"]


def test_parts_of_shards_are_read_too(tmp_path: Path) -> None:
    Workspace(tmp_path / "one").write(EMBEDDINGS, 0, part(2))
    Workspace(tmp_path / "two").write(EMBEDDINGS, 1, part(3))
    both = Workspace(tmp_path / "both", (tmp_path / "one", tmp_path / "two"))
    assert both.numbers(EMBEDDINGS) == {0, 1}
    assert len(both.read(EMBEDDINGS, 1)) == 3


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.write(EMBEDDINGS, 0, part(5))
    path = next(tmp_path.rglob("*.arrow"))
    path.write_bytes(path.read_bytes()[:100])
    for number in (0, 3):
        with pytest.raises(RunFailed, match="is missing or damaged"):
            workspace.read(EMBEDDINGS, number)


def test_damaged_files_alone_are_discarded(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for number in range(3):
        workspace.write(EMBEDDINGS, number, part(5))
    (tmp_path / "reference.pt").write_bytes(b"damaged")
    path = tmp_path / "parts" / EMBEDDINGS / "000000001.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="are computed again: parts/embeddings/000000001.arrow, reference.pt"):
        workspace.discard_damaged()
    assert workspace.numbers(EMBEDDINGS) == {0, 2}
    assert not (tmp_path / "reference.pt").exists()
    workspace.discard_damaged()


def test_a_folder_goes_on_with_its_own_ranking_alone(tmp_path: Path) -> None:
    open_workspace(tmp_path / "new", MANIFEST).write(EMBEDDINGS, 0, part(1))
    assert open_workspace(tmp_path / "new", MANIFEST).numbers(EMBEDDINGS) == {0}
    other = {**MANIFEST, "versions": {"torch": "2"}}
    with pytest.raises(ConfigurationError, match=r'another version \(torch: "1", not "2"\)'):
        open_workspace(tmp_path / "new", other)
    assert open_workspace(tmp_path / "new", MANIFEST).numbers(EMBEDDINGS) == {0}
    assert open_workspace(tmp_path / "new", other, overwrite=True).numbers(EMBEDDINGS) == set()


@pytest.mark.parametrize(
    ("error", "computed", "stays"),
    [(ConfigurationError, True, False), (TypeError, False, False), (TypeError, True, True), (SystemExit, False, True)],
)
def test_what_is_refused_leaves_nothing_behind(
    tmp_path: Path, error: type[BaseException], computed: bool, stays: bool
) -> None:
    workspace = open_workspace(tmp_path / "new", MANIFEST)
    if computed:
        workspace.write(EMBEDDINGS, 0, part(1))
    with pytest.raises(error), abandoned_where_refused(workspace):
        raise error
    assert workspace.folder.exists() is stays
    assert workspace.numbers(EMBEDDINGS) == ({0} if stays and computed else set())


@pytest.mark.parametrize("result", [{"tables": {"a.csv": {}}}, {}])
def test_results_stay_where_a_call_is_refused(tmp_path: Path, result: dict[str, Any]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    workspace = open_workspace(tmp_path, MANIFEST, overwrite=True)
    workspace.note(**result)
    workspace.write(EMBEDDINGS, 0, part(1))
    workspace.abandon()
    assert workspace.numbers(EMBEDDINGS) == ({0} if result else set())
    assert (tmp_path / "manifest.json").exists() is bool(result)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_folder_of_other_files_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="holds other files"):
        open_workspace(tmp_path, MANIFEST)
    open_workspace(tmp_path, MANIFEST, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_what_a_kill_leaves_does_not_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / ".manifest.json.0123.partial").write_text("{")
    assert open_workspace(tmp_path, MANIFEST).numbers(EMBEDDINGS) == set()


@pytest.mark.parametrize("content", ["", "[]", "{}", "nonsense"])
def test_another_manifest_is_not_taken_for_one(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ConfigurationError, match="is not the manifest of a ranking"):
        open_workspace(tmp_path, MANIFEST, overwrite=True)


def test_differences_are_named() -> None:
    assert difference_of(MANIFEST, dict(MANIFEST)) is None
    assert difference_of(MANIFEST, {**MANIFEST, "encoder": "x" * 64}) == 'encoder ("abc", not "xxxxxxxxxxxxxxx...")'


def test_json_has_null_for_what_is_not_finite(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": "text"}})
    assert "NaN" not in (tmp_path / "a.json").read_text()
