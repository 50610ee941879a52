"""A sealed file is an Arrow file, the same for the same rows, in which every bit counts."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from jepa_train.ranking.checksums import BLANK, is_whole, sealed

ROWS = pa.table({"index": [1, 2, None], "filename": ["a", BLANK.decode(), "b"]})


def test_others_read_it(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    path.write_bytes(sealed(ROWS))
    assert is_whole(path)
    assert pa.ipc.open_file(path).read_all().equals(ROWS)
    assert sealed(ROWS) == sealed(ROWS.slice(0))


def test_any_bit_that_differs_and_any_end_is_noticed(tmp_path: Path) -> None:
    path, content = tmp_path / "a.arrow", sealed(ROWS)
    for place in range(0, len(content), 3):
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        assert not is_whole(path), place
        content[place] ^= 1 << place % 8
    for end in (0, 1, 100, len(content) - 1):
        path.write_bytes(content[:end])
        assert not is_whole(path), end
    path.write_bytes(content)
    assert is_whole(path)
