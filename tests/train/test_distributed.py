"""Two processes are one process: losses, weights and everything that is logged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(world_size: int, anticollapse: str, folder: Path) -> list[dict[str, Any]]:
    script = [sys.executable, str(Path(__file__).with_name("ddp_run.py")), str(world_size), anticollapse, str(folder)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'callbacks'}", "CUDA_VISIBLE_DEVICES": ""}
    finished = subprocess.run(script, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return [json.loads((folder / f"{anticollapse}_{world_size}_{rank}.json").read_text()) for rank in range(world_size)]


@pytest.mark.slow
@pytest.mark.parametrize("anticollapse", ["sigreg", "vicreg"])
def test_two_processes_equal_one(anticollapse: str, tmp_path: Path) -> None:
    (one,) = run(1, anticollapse, tmp_path)
    first, second = run(2, anticollapse, tmp_path)
    assert len(one["losses"]) == 20
    assert first["losses"] == second["losses"]
    np.testing.assert_allclose(first["losses"], one["losses"], rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(first["weights"], one["weights"], rtol=0.0, atol=1e-7)
    assert first["weights"] == second["weights"]
    assert first["best"] == second["best"] != ""

    compared = [name for name in one["metrics"] if name.startswith(("density/", "gaussianity/", "jacobian/"))]
    assert "density/ood_auroc/shifted" in compared
    assert len(compared) > 25
    for name in compared:
        assert first["metrics"][name] == second["metrics"][name], name
        by_ranks = any(word in name for word in ("spearman", "kendall", "auroc", "stability", "rank"))
        tolerance = {"rtol": 0.0, "atol": 1e-6} if by_ranks else {"rtol": 1e-5, "atol": 1e-6}
        np.testing.assert_allclose(first["metrics"][name], one["metrics"][name], **tolerance, err_msg=name)
