"""The walk through a good first change, as CONTRIBUTING.md has it, carried out on a copy."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.processes import run_python

ROOT = Path(__file__).resolve().parents[1]
SEEN = """
import json, torch
from jepa_monitor import gaussianity_statistics
from jepa_monitor.description import explanation, layout

z = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
values = gaussianity_statistics(z)
logged = [f"gaussianity/{name}" for name in values]
print(json.dumps({"values": values, "page": explanation(logged), "layout": layout(logged)}))
"""


def apply(diff: str, root: Path) -> str:
    """Carry out a unified diff, whose context has to stand in the file once; the name of the file."""
    name = re.findall(r"^\+\+\+ b/(.*)$", diff, re.MULTILINE)[0]
    text = (root / name).read_text()
    for hunk in re.split(r"^@@.*\n", diff, flags=re.MULTILINE)[1:]:
        lines = [line if line.strip() else " \n" for line in hunk.splitlines(keepends=True)]
        before, after = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
        assert text.count(before) == 1, f"{name} has changed where CONTRIBUTING.md changes it"
        text = text.replace(before, after)
    (root / name).write_text(text)
    return name


@pytest.mark.slow
def test_a_statistic_needs_a_formula_and_a_record(tmp_path: Path) -> None:
    package = "callbacks/jepa_monitor"
    shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    changes = re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    changed = [apply(change, tmp_path) for change in changes]
    assert changed == [f"{package}/gaussianity/dimension.py", f"{package}/gaussianity/dashboard.py"]
    (tmp_path / "callbacks" / "seen.py").write_text(SEEN)
    done = run_python(tmp_path / "callbacks" / "seen.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout)
    assert abs(seen["values"]["participation_ratio"] - 1.0) < 0.01
    assert re.search(
        r"^- \*\*`gaussianity/participation_ratio`\*\*: participation ratio of .*$", seen["page"], re.MULTILINE
    )
    _, lines = seen["layout"]["JEPA-SCORE"]["Gaussianity ratios (1 = Gaussian)"]
    assert "^gaussianity/participation_ratio$" in lines
