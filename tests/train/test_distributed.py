"""Several processes are one process: losses, weights and everything that is logged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.processes import run_python


def run(world_size: int, case: str, folder: Path) -> list[dict[str, Any]]:
    finished = run_python(Path(__file__).with_name("ddp_run.py"), str(world_size), case, folder, folder=folder)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return [json.loads((folder / f"{case}_{world_size}_{rank}.json").read_text()) for rank in range(world_size)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "world_size"),
    [("sigreg", 3), ("barlow", 2), ("vicreg", 2), ("sharded", 2), ("lejepa", 2), ("resnet", 2), ("sharded_resnet", 2)],
)
def test_several_processes_equal_one(case: str, world_size: int, tmp_path: Path) -> None:
    (one,) = run(1, case, tmp_path)
    first, *others = run(world_size, case, tmp_path)
    assert len(one["losses"]) == 20
    np.testing.assert_allclose(first["losses"], one["losses"], rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(first["weights"], one["weights"], rtol=0.0, atol=1e-7)
    for other in others:
        assert other["losses"] == first["losses"]
        assert other["weights"] == first["weights"]
        assert other["best"] == first["best"] != ""
    if case.startswith("sharded"):  # FSDP lets training run before the first measurement
        return

    compared = [name for name in one["metrics"] if name.startswith(("density/", "gaussianity/", "jacobian/"))]
    assert "density/ood_auroc/shifted" in compared
    assert len(compared) > 25
    for name in compared:
        assert all(first["metrics"][name] == other["metrics"][name] for other in others), name
        by_ranks = any(word in name for word in ("spearman", "kendall", "auroc", "stability", "rank"))
        tolerance = {"rtol": 0.0, "atol": 1e-6} if by_ranks else {"rtol": 1e-5, "atol": 1e-6}
        np.testing.assert_allclose(first["metrics"][name], one["metrics"][name], **tolerance, err_msg=name)
