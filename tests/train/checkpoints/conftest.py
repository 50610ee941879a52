"""A checkpoint that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.checkpoints.helpers import run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("fit")
    return folder / "runs" / "mixture" / "version_0" / "checkpoints" / "last.ckpt"
