"""Tables that a ranking wrote are replaced; those that somebody else wrote or edited are not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.replacing import check_replaceable, replace_table
from jepa_train.ranking.table import read_table
from jepa_train.ranking.workspace import open_workspace
from tests.train.ranking.tiny import pictures, rank_quietly

FIRST = pa.table({"filename": ["a", "b"], "log_density": [1.0, 2.0], "doubt": [0.5, 0.0]})
SECOND = FIRST.select(["filename"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a ranking."""
    open_workspace(tmp_path / "ranked", {"format": 1})
    return tmp_path / "ranked"


@pytest.mark.parametrize("name", ["ranking.parquet", "../ranked.csv"])
def test_what_was_written_is_replaced(folder: Path, name: str) -> None:
    for table in (FIRST, SECOND, FIRST):
        check_replaceable(folder / name, folder)
        replace_table(folder / name, folder, table)
    assert read_table(folder / name).equals(FIRST)


def test_what_was_changed_is_refused_until_it_is_moved(folder: Path) -> None:
    table_file = folder.with_suffix(".csv")
    replace_table(table_file, folder, FIRST)
    table_file.write_text(table_file.read_text() + '"mine",0.0,0.0\n')
    with pytest.raises(ConfigurationError, match="was edited since the ranking wrote it: to keep it, move it"):
        check_replaceable(table_file, folder)
    table_file.rename(folder.with_name("mine.csv"))
    check_replaceable(table_file, folder)


def test_what_nobody_here_wrote_is_refused(folder: Path) -> None:
    replace_table(folder / "ranking.parquet", folder, FIRST)
    folder.with_suffix(".csv").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"exists already, and no ranking in .*ranked wrote it"):
        check_replaceable(folder.with_suffix(".csv"), folder)


def test_a_kill_just_before_or_after_the_table_gets_its_name_does_no_harm(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table_file, replace = folder / "ranking.parquet", os.replace
    replace_table(table_file, folder, FIRST)
    for before in (True, False):

        def interrupted(source: Path, target: Path, before: bool = before) -> None:
            if target != table_file or not before:
                replace(source, target)
            if target == table_file:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", interrupted)
            with pytest.raises(KeyboardInterrupt):
                replace_table(table_file, folder, SECOND)
        check_replaceable(table_file, folder)


def test_a_ranking_that_was_moved_knows_its_tables(folder: Path, tmp_path: Path) -> None:
    replace_table(folder / "ranking.parquet", folder, FIRST)
    moved = shutil.move(folder, tmp_path / "elsewhere")
    check_replaceable(moved / "ranking.parquet", moved)


def test_columns_that_are_left_out_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("jepa_train.ranking.replacing.rank_zero_info", said.append)
    for table in (SECOND, FIRST, FIRST):
        replace_table(folder / "ranking.parquet", folder, table)
    assert not said
    replace_table(folder / "ranking.parquet", folder, SECOND)
    assert "ranking.parquet also had log_density, doubt, which --scores leaves out now" in said[0]


def test_no_page_stands_beside_another_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    photos, output = pictures(tmp_path / "photos", 20), tmp_path / "ranked"
    rank_quietly(photos, output, scores="mahalanobis", page=True)
    (output / "page" / "mine.txt").write_text("mine")
    rank_quietly(photos, output, scores="mahalanobis")
    assert (output / "index.html").is_file()  # of the same table
    replace = os.replace

    def interrupted(source: Path, target: Path) -> None:
        replace(source, target)
        if target == output / "ranking.parquet":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            rank_quietly(photos, output, scores="knn_distance", page=True)
    assert not (output / "index.html").exists()
    rank_quietly(photos, output, scores="knn_distance", page=True)
    assert "knn_distance" in (output / "page" / "data.js").read_text()
    assert "Removed the page" not in caplog.text
    rank_quietly(photos, output, scores="mahalanobis")
    assert "index.html, because it showed another table" in caplog.text
    assert not (output / "index.html").exists()
    assert [path.name for path in (output / "page").iterdir()] == ["mine.txt"]


def test_an_index_of_somebody_else_is_not_taken_for_a_page(folder: Path) -> None:
    (folder / "index.html").write_text("mine")
    replace_table(folder / "ranking.parquet", folder, FIRST)
    assert (folder / "index.html").read_text() == "mine"


def test_a_table_that_was_edited_is_kept_by_another_call(tmp_path: Path) -> None:
    photos, table_file = pictures(tmp_path / "photos", 20), tmp_path / "ranked.csv"
    rank_quietly(photos, table_file, scores="knn_distance")
    rank_quietly(photos, table_file, scores="knn_distance,compressed_size")
    rank_quietly(photos, tmp_path / "ranked", scores="knn_distance")
    edited = table_file.read_text().replace("000.png", "heel.png")
    table_file.write_text(edited)
    for scores in ("knn_distance", "compressed_size"):
        with pytest.raises(ConfigurationError, match="was edited since the ranking wrote it"):
            rank_quietly(photos, table_file, scores=scores)
    assert table_file.read_text() == edited
    rank_quietly(photos, table_file, scores="compressed_size", overwrite=True)
    assert "heel" not in table_file.read_text()
