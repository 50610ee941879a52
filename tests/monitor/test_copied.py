"""The callback's folder copied under another name into a project that has none of our other dependencies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import jepa_monitor

NEEDED = ("torch", "lightning", "torchmetrics", "scipy", "matplotlib", "tensorboard")
ABSENT = ("timm", "torchvision", "jepa_train", "jepa_monitor", "sklearn", "mlxtend", "jsonargparse", "hypothesis")

SCRIPT = """
import importlib.util
import math
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, TensorDataset

from vendored_monitor import JEPAScoreMonitor

here = Path(__file__).parent
for name in ABSENT:
    assert importlib.util.find_spec(name) is None, name


class Regression(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 6), torch.nn.Tanh())
        self.head = torch.nn.Linear(6, 1)

    def training_step(self, batch, batch_idx):
        return self.head(self.backbone(batch[0])).square().mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


torch.manual_seed(0)
train, val = (DataLoader(TensorDataset(torch.randn(48, 1, 4, 4)), batch_size=16) for _ in range(2))
logger = TensorBoardLogger(here / "runs")
trainer = pl.Trainer(
    accelerator="cpu",
    max_epochs=1,
    logger=logger,
    callbacks=[JEPAScoreMonitor(ood={"noise": 3.0 * torch.randn(20, 1, 4, 4)})],
    enable_checkpointing=False,
    enable_progress_bar=False,
    log_every_n_steps=1,
)
trainer.fit(Regression(), train, val)
events = EventAccumulator(logger.log_dir).Reload()
for tag in ("scores/log_density_median", "gaussianity/sliced_ep_ratio", "jacobian/rank"):
    assert [event.step for event in events.Scalars(tag)] == [0, 3], tag
    assert all(math.isfinite(event.value) for event in events.Scalars(tag)), tag
assert {"pictures/histogram", "pictures/gallery", "pictures/spectrum"} <= set(events.Tags()["images"])
print("imported from", sys.modules["vendored_monitor"].__file__)
"""


def closure(names: tuple[str, ...]) -> list[Distribution]:
    """These distributions and all that they depend on here, without extras."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # what a marker that holds here asks for may be absent without harm
            continue
        wanted = map(Requirement, found[name].requires or ())
        waiting += [each.name for each in wanted if not each.marker or each.marker.evaluate({"extra": ""})]
    return list(found.values())


def owned(root: Path, file: Path) -> Path:
    """The outermost package or metadata folder around a file, else the file: nvidia/ and google/ have many owners."""
    for folder in reversed(file.parents[:-1]):
        if folder.suffix == ".dist-info" or (root / folder / "__init__.py").exists():
            return folder
    return file


def environment_with(distributions: list[Distribution], folder: Path) -> Path:
    """The interpreter of a new virtual environment into which these, installed here, are linked."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for each in distributions:
        root = Path(str(each.locate_file("")))
        inside = [Path(str(file)) for file in each.files or () if ".." not in file.parts]
        for relative in {owned(root, file) for file in inside}:
            (site / relative).parent.mkdir(parents=True, exist_ok=True)
            if not (site / relative).is_symlink():
                (site / relative).symlink_to(root / relative)
    return folder / "bin" / "python"


@pytest.mark.slow
def test_a_copy_runs_where_there_is_only_what_it_needs(tmp_path: Path) -> None:
    python = environment_with(closure(NEEDED), tmp_path / "environment")
    project = tmp_path / "project"
    folder = Path(jepa_monitor.__file__).parent
    shutil.copytree(folder, project / "vendored_monitor", ignore=shutil.ignore_patterns("__pycache__"))
    (project / "train.py").write_text(f"ABSENT = {ABSENT}\n{SCRIPT}")
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    variables = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [python, "train.py"], cwd=project, env=variables | {"MPLBACKEND": "agg"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"imported from {project / 'vendored_monitor'}" in done.stdout
