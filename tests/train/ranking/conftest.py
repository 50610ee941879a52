"""Folders of pictures that several tests rank."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.ranking.tiny import pictures


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 pictures in two folders, and one file that is none."""
    root = tmp_path_factory.mktemp("photos")
    pictures(root / "cats", 40, seed=1)
    pictures(root / "dogs", 30, seed=2)
    (root / "dogs" / "broken.png").write_bytes(b"not a picture")
    return root
