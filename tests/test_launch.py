"""``python train.py fit`` on two processes, as Lightning starts them itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jepa_train.checkpoints.files import read_checkpoint
from jepa_train.cli import CONFIGS
from jepa_train.export import export

ROOT = Path(__file__).resolve().parents[1]
ON_TWO_PROCESSES = {
    "ddp": [],
    "fsdp": ["--trainer.strategy.init_args.data_parallel_size=2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("overlay", list(ON_TWO_PROCESSES))
def test_the_overlay_trains_saves_and_goes_on(overlay: str, tmp_path: Path) -> None:
    options = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.max_steps=4", "--trainer.max_epochs=-1"]
    quiet = ["--trainer.enable_progress_bar=false", "--data.num_train=256", "--data.num_probe=64"]
    script = [sys.executable, str(ROOT / "train.py"), "fit", "-c", str(CONFIGS / f"{overlay}.yaml")]
    script += [*options, *quiet, *ON_TWO_PROCESSES[overlay]]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'callbacks'}",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    for more in ([], ["--ckpt_path=last", "--trainer.max_steps=6"]):
        run = subprocess.run(
            [*script, *more], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert run.returncode == 0, run.stderr[-3000:]
        assert "view tensor" not in run.stderr  # FSDP2's warning, for each step anew
    (folder,) = (tmp_path / "runs" / "mixture").iterdir()
    # one process writes the record, and the resume's beside it
    assert {path.name for path in folder.glob("config*")} == {"config.yaml", "config_fit_1.yaml"}
    checkpoints = folder / "checkpoints"
    # one file, also of a model that is sharded, and export reads it
    assert read_checkpoint(checkpoints / "last.ckpt")["global_step"] == 6
    assert export(checkpoints / "last.ckpt", tmp_path / "exported" / "encoder.safetensors")
