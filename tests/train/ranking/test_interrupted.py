"""A ranking that is killed goes on and ends with the same bytes; so does one on two processes."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pyarrow as pa
import pytest

from jepa_train.ranking.workspace import Workspace
from tests.processes import TRAIN, run_python
from tests.train.ranking.tiny import pictures, rank_quietly

SCRIPT = Path(__file__).with_name("interrupted_rank.py")
TABLE = "ranking.parquet"


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The table of a ranking that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "ranked"
    rank_quietly(photos, folder)
    return (folder / TABLE).read_bytes()


@pytest.mark.parametrize("parts", [0, 1, 4, 5, 8, 11, 14])
def test_it_goes_on_after_any_part(
    photos: Path, tmp_path: Path, whole: bytes, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, write = [], Workspace.write

    def interrupted(workspace: Workspace, kind: str, number: int, rows: pa.Table) -> None:
        if len(written) == parts:
            raise KeyboardInterrupt
        write(workspace, kind, number, rows)
        written.append((kind, number))

    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "write", interrupted)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            rank_quietly(photos, tmp_path / "ranked")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "ranked").rglob("*.arrow")}
    assert len(times) == parts
    rank_quietly(photos, tmp_path / "ranked")
    assert (tmp_path / "ranked" / TABLE).read_bytes() == whole
    assert times.items() <= {path: path.stat().st_mtime_ns for path in (tmp_path / "ranked").rglob("*.arrow")}.items()


def test_it_goes_on_with_damaged_parts(photos: Path, tmp_path: Path, whole: bytes) -> None:
    folder = tmp_path / "ranked"
    rank_quietly(photos, folder, page=False)
    (folder / TABLE).unlink()
    parts = sorted(folder.rglob("*.arrow"))
    by_kind = {path.parent: path for path in parts}
    for path in by_kind.values():
        os.truncate(path, path.stat().st_size // 2)
    (folder / "reference.pt").write_bytes((folder / "reference.pt").read_bytes()[:-100])
    good = {path: path.stat().st_mtime_ns for path in parts if path not in by_kind.values()}
    with pytest.warns(UserWarning, match="Damaged files in .* are computed again: .* and 2 more") as warned:
        rank_quietly(photos, folder, page=False)
    assert sum(str(warning.message).startswith("Damaged") for warning in warned) == 1
    assert (folder / TABLE).read_bytes() == whole
    assert good == {path: path.stat().st_mtime_ns for path in good}


def test_what_a_kill_left_half_written_is_removed_by_the_next_call(photos: Path, tmp_path: Path) -> None:
    folder, table_file = tmp_path / "ranked", tmp_path / "ranked.csv"
    rank_quietly(photos, table_file, scores="mahalanobis")
    mine = tmp_path / ".other.csv.0123.partial"  # of another ranking, which may be at work
    left = [tmp_path / ".ranked.csv.0123.partial"]
    for place in ("", "parts/embeddings", "parts/volumes", "page"):
        (folder / place).mkdir(exist_ok=True)
        left.append(folder / place / ".some.0123.partial")
    for path in (*left, mine):
        path.write_bytes(b"half")
    rank_quietly(photos, table_file, scores="mahalanobis")
    assert list(tmp_path.rglob("*.partial")) == [mine]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "number"), [("before", 1), ("after", 3), ("before", 7), ("before", 11), ("after", 14)]
)
def test_it_goes_on_after_a_kill(photos: Path, tmp_path: Path, whole: bytes, moment: str, number: int) -> None:
    folder = tmp_path / "ranked"
    killed = run_python(SCRIPT, photos, folder, moment, number, folder=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert moment == "after" or list(folder.rglob("*.partial"))
    rank_quietly(photos, folder)
    assert not list(folder.rglob("*.partial"))
    assert (folder / TABLE).read_bytes() == whole


@pytest.mark.slow
@pytest.mark.parametrize("room", [300, 6_000, 9_000])
def test_a_full_disk_is_one_sentence_and_what_is_there_stays(
    photos: Path, tmp_path: Path, whole: bytes, room: int
) -> None:
    folder = tmp_path / "ranked"
    full = run_python(SCRIPT, photos, folder, "full", room, folder=tmp_path)
    assert full.returncode != 0
    assert re.search(r"^error: \S+: File too large: make room there, or choose another folder\.$", full.stderr, re.M), (
        full.stderr[-3000:]
    )
    assert not list(folder.rglob("*.partial"))
    rank_quietly(photos, folder)
    assert (folder / TABLE).read_bytes() == whole


@pytest.mark.slow
def test_two_processes_give_the_same_table(measured: Path, tmp_path: Path) -> None:
    images = pictures(tmp_path / "photos", 50)
    (images / "broken.png").write_bytes(b"")
    options = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--data.num_workers=0"]
    sizes = ["--data.part_size=16", "--data.batch_size=5"]
    for devices in (1, 2):
        command = ["rank", images, f"--encoder={measured}", f"--output={devices}", f"--trainer.devices={devices}"]
        run = run_python(TRAIN, *command, *options, *sizes, folder=tmp_path)
        assert run.returncode == 0, run.stderr[-3000:]
    assert (tmp_path / "1" / TABLE).read_bytes() == (tmp_path / "2" / TABLE).read_bytes()
