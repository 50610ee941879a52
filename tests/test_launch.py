"""``python train.py fit`` on two processes, as Lightning starts them itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_train.checkpoints.files import read_checkpoint
from jepa_train.cli import CONFIGS
from jepa_train.export import export
from tests.processes import TRAIN, run_python

ON_TWO_PROCESSES = {
    "ddp": [],
    "fsdp": ["--trainer.strategy.init_args.data_parallel_size=2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("overlay", list(ON_TWO_PROCESSES))
def test_the_overlay_trains_saves_and_goes_on(overlay: str, tmp_path: Path) -> None:
    options = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.max_steps=4", "--trainer.max_epochs=-1"]
    quiet = ["--trainer.enable_progress_bar=false", "--data.num_train=256", "--data.num_probe=64"]
    command = [TRAIN, "fit", "-c", CONFIGS / f"{overlay}.yaml", *options, *quiet, *ON_TWO_PROCESSES[overlay]]
    for more in ([], ["--ckpt_path=last", "--trainer.max_steps=6"]):
        run = run_python(*command, *more, folder=tmp_path)
        assert run.returncode == 0, run.stderr[-3000:]
        assert "view tensor" not in run.stderr  # FSDP2's warning, for each step anew
    (folder,) = (tmp_path / "runs" / "mixture" / Path(overlay).stem).iterdir()
    # one process writes the record, and the resume's beside it
    assert {path.name for path in folder.glob("config*")} == {"config.yaml", "config_fit_1.yaml"}
    checkpoints = folder / "checkpoints"
    # one file, also of a model that is sharded, and export reads it
    assert read_checkpoint(checkpoints / "last.ckpt")["global_step"] == 6
    assert export(checkpoints / "last.ckpt", tmp_path / "exported" / "encoder.safetensors")
