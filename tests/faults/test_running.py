"""A fault in the middle of a run ends in one sentence or the run goes on; what was saved before is there and goes on.

Beside these: signals (tests/train/checkpoints/test_stopping.py), kill -9 and a resume bit for bit
(tests/train/test_restart.py), damaged, foreign and hostile checkpoints (tests/train/checkpoints/test_files.py), numbers
that are not finite (tests/train/checkpoints/test_finite.py), and folders and disks that fail at the start
(tests/train/commands/test_mistakes.py).
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jepa_train.checkpoints.files import read_checkpoint
from jepa_train.cli import main
from tests.processes import TRAIN, run_python
from tests.train.helpers import FAILED, TINY, fit, last_checkpoint, one_sentence

STEPS = ["--trainer.max_epochs=2", "--trainer.callbacks.every_n_train_steps=1"]

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")


def fault(name: str, step: int) -> list[str]:
    return [f"--trainer.callbacks+=tests.faults.injection.{name}", f"--trainer.callbacks.step={step}"]


def saved_in(folder: Path) -> list[str]:
    return [f"--trainer.logger.save_dir={folder}"]


def assert_goes_on(folder: Path, *settings: str, saved: int) -> None:
    """See that the last checkpoint is of step ``saved``, whole, and that training goes on from it."""
    assert read_checkpoint(last_checkpoint(folder))["global_step"] == saved
    assert fit(folder, *STEPS, *settings, "--ckpt_path=last")["global_step"] == 10


@pytest.mark.slow
def test_a_full_disk_at_a_checkpoint(tmp_path: Path) -> None:
    ended = run_python(TRAIN, "fit", *TINY, *STEPS, *saved_in(tmp_path), *fault("FillDisk", 3), folder=tmp_path)
    assert ended.returncode == FAILED
    assert re.search(r"\nerror: .*\.ckpt: File too large: make room there.*\n", ended.stderr), ended.stderr[-3000:]
    assert not list(tmp_path.rglob("*.partial"))
    assert_goes_on(tmp_path, saved=3)


@pytest.mark.slow
def test_a_full_disk_in_tensorboard(tmp_path: Path) -> None:
    unsaved = ["--trainer.enable_checkpointing=false", "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1"]
    filled = [word.replace("callbacks+=", "callbacks=") for word in fault("FillDisk", 3)]
    ended = run_python(TRAIN, "fit", *TINY[:-2], *unsaved, *filled, folder=tmp_path)
    # TensorBoard writes in a thread of its own, which prints its traceback at any time: the run hears of it at its next
    # value, or is at its end by then
    end = {0: r"`max_epochs=2` reached", FAILED: r"error: .*File too large: make room there.*\n"}[ended.returncode]
    assert re.search(end, ended.stderr), ended.stderr[-3000:]


@pytest.mark.slow
def test_a_folder_that_is_deleted(tmp_path: Path) -> None:
    """Checkpoints make it again, and nothing ends."""
    assert fit(tmp_path, *STEPS, *fault("RemoveRun", 3))["global_step"] == 10


@pytest.mark.slow
def test_a_worker_that_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workers = ["--data.num_workers=1", "--data.num_train=80"]
    sentence = one_sentence(lambda: fit(tmp_path, *STEPS, *workers, *fault("KillWorkers", 3)), capsys, code=FAILED)
    assert "Lower --data.num_workers" in sentence
    saved = read_checkpoint(last_checkpoint(tmp_path))["global_step"]
    assert saved >= 3
    assert fit(tmp_path, *STEPS, *workers, "--ckpt_path=last")["global_step"] == 20


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_write(tmp_path: Path) -> None:
    ended = run_python(TRAIN, "fit", *TINY, *STEPS, *saved_in(tmp_path), *fault("KillInWrite", 3), folder=tmp_path)
    assert ended.returncode == -signal.SIGKILL, ended.stderr[-3000:]
    assert len(list(tmp_path.rglob("*.partial"))) == 1
    assert_goes_on(tmp_path, saved=3)


def test_a_folder_of_one_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / "0.png")
    data = [
        "--data=jepa_train.data.ImageFolderDataModule",
        f"--data.root={tmp_path / 'images'}",
        "--data.image_size=16",
    ]
    one_sentence(lambda: main(["fit", *data, *TINY[3:], *STEPS]), capsys)
