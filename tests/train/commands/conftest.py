"""A run that the tests of this folder share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jepa_train.cli import CONFIGS
from tests.train.commands.helpers import MIXTURE, make_run


@pytest.fixture(scope="session")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds ``runs`` with one run of a data set whose sizes are not the default's."""
    folder = tmp_path_factory.mktemp("mixture")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_run("-c", str(CONFIGS / "mixture.yaml"), *MIXTURE, "--data.image_size=24", "--data.contrast=0.3")
    return folder


@pytest.fixture
def run(mixture: Path, own_folder: Path) -> Path:
    """A copy of the run, ``runs/mixture/version_0``, to do anything with."""
    shutil.copytree(mixture / "runs", own_folder / "runs")
    return Path("runs/mixture/version_0")
