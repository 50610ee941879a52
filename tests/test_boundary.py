"""jepa_monitor stands alone: without jepa_train, timm and torchvision, and under any folder name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.processes import run_python

ROOT = Path(__file__).resolve().parents[1]
BLOCKED = """
import sys
import lightning.pytorch, torchmetrics.utilities.distributed  # these use torchvision themselves where it is installed

blocked = {"jepa_train", "timm", "torchvision", "jepa_monitor"} - {"%(name)s"}
for module in [name for name in sys.modules if name.split(".")[0] in blocked]:
    del sys.modules[module]

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"blocked: {name}")

sys.meta_path.insert(0, Blocker())
import pkgutil, importlib, %(name)s
for module in pkgutil.walk_packages(%(name)s.__path__, "%(name)s."):
    importlib.import_module(module.name)
print(%(name)s.JEPAScoreMonitor())
"""


@pytest.mark.parametrize("name", ["jepa_monitor", "copied_monitor"])
def test_imports_without_the_rest(name: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "callbacks" / "jepa_monitor", tmp_path / name)
    (tmp_path / "script.py").write_text(BLOCKED % {"name": name})
    finished = run_python(tmp_path / "script.py", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr[-2000:]


def test_train_py_is_only_the_door() -> None:
    lines = [line for line in (ROOT / "train.py").read_text().splitlines() if line and not line.startswith('"""')]
    assert lines == ["from jepa_train.cli import main", 'if __name__ == "__main__":', "    main()"]
