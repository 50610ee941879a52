"""A run that is killed and goes on ends, bit for bit, with the weights of one that was left alone."""

from __future__ import annotations

import copy
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jepa_train.checkpoints.files import read_checkpoint
from tests.processes import TRAIN, run_python

pytestmark = pytest.mark.slow

STEPS_PER_EPOCH = 8
EPOCHS = 3
SAVED_EVERY = 3  # so that no epoch but the last ends with a checkpoint
CONFIG = f"""
seed_everything: 0
trainer:
  accelerator: cpu
  devices: 1
  max_epochs: {EPOCHS}
  num_sanity_val_steps: 0
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
  logger:
    class_path: lightning.pytorch.loggers.TensorBoardLogger
    init_args: {{save_dir: runs, name: tiny, default_hp_metric: false}}
  callbacks:
    - class_path: jepa_monitor.JEPAScoreMonitor
      init_args: {{num_samples: 32}}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{every_n_train_steps: {SAVED_EVERY}, save_last: true, save_top_k: -1}}
model:
  encoder: vit_tiny_patch16_224
  encoder_overrides: {{embed_dim: 16, depth: 3, num_heads: 2, drop_path_rate: 0.3, proj_drop_rate: 0.1}}
  patch_size: 4
  embedding_size: 2
  projector_hidden: 16
  predictor_width: 16
  predictor_depth: 1
  num_targets: 2
  sigreg_slices: 16
  crop_scale: 0.6
  shift: 0.1
  flip: true
  noise: 0.1
  ema_start: 0.9
data:
  class_path: jepa_train.data.MixtureDataModule
  init_args:
    num_train: {STEPS_PER_EPOCH * 16}
    num_probe: 64
    batch_size: 16
"""


def fit(folder: Path, *arguments: str, killed: bool = False) -> None:
    """``python train.py fit`` in a process of its own, which is expected to finish, or to be killed."""
    folder.mkdir(exist_ok=True)
    (folder / "tiny.yaml").write_text(CONFIG)
    ended = run_python(TRAIN, "fit", "-c", "tiny.yaml", *arguments, folder=folder)
    assert ended.returncode == (-signal.SIGKILL if killed else 0), ended.stderr[-3000:]


def kill_at(step: int) -> list[str]:
    return ["--trainer.callbacks+=tests.faults.injection.KillAt", f"--trainer.callbacks.step={step}"]


def last(folder: Path) -> dict[str, Any]:
    return read_checkpoint(folder / "runs" / "tiny" / "version_0" / "checkpoints" / "last.ckpt")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last checkpoint of a run that was left alone."""
    folder = tmp_path_factory.mktemp("whole")
    fit(folder)
    return last(folder)


def differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Paths of what is not equal, bit for bit."""
    if isinstance(ours, Tensor):
        same = isinstance(theirs, Tensor) and ours.dtype == theirs.dtype and torch.equal(ours, theirs)
        return [] if same else [where]
    if isinstance(ours, dict):
        if ours.keys() != theirs.keys():
            return [where]
        return [path for key in ours for path in differences(ours[key], theirs[key], f"{where}/{key}")]
    if isinstance(ours, (list, tuple)):
        if len(ours) != len(theirs):
            return [where]
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [path for i, (mine, other) in pairs for path in differences(mine, other, f"{where}/{i}")]
    return [] if ours == theirs else [where]


COMPARED = ["state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"]


def assert_same(resumed: dict[str, Any], whole: dict[str, Any]) -> None:
    assert whole["global_step"] == STEPS_PER_EPOCH * EPOCHS
    assert len(whole["optimizer_states"][0]["state"]) > 20
    assert any(name.startswith("target.") for name in whole["state_dict"])
    assert [path for name in COMPARED for path in differences(resumed[name], whole[name], name)] == []


def test_the_comparison_sees_one_bit(whole: dict[str, Any]) -> None:
    assert_same(whole, whole)
    places = [("state_dict", "target.encoder.vit.norm.weight"), ("optimizer_states", 0, "state", 3, "exp_avg_sq")]
    for place in places:
        changed = copy.deepcopy(whole)
        value: Any = changed
        for key in place:
            value = value[key]
        value.view(-1)[-1] = torch.nextafter(value.view(-1)[-1], torch.tensor(9.0))
        assert [path for name in COMPARED for path in differences(changed[name], whole[name], name)] == [
            "/".join(map(str, place))
        ]
        with pytest.raises(AssertionError):
            assert_same(changed, whole)


@pytest.mark.parametrize(
    ("kills", "workers"),
    [([STEPS_PER_EPOCH + 2], [0, 0]), ([5, 14], [0, 2, 1])],
    ids=["once, in the second epoch", "twice, with other workers each time"],
)
def test_a_killed_run_ends_like_one_left_alone(
    kills: list[int], workers: list[int], whole: dict[str, Any], tmp_path: Path
) -> None:
    assert all(step % SAVED_EVERY and step % STEPS_PER_EPOCH for step in kills)
    resume: list[str] = []
    for step, number in zip(kills, workers[:-1], strict=True):
        fit(tmp_path, *resume, f"--data.num_workers={number}", *kill_at(step), killed=True)
        resume = ["--ckpt_path=last"]
        assert last(tmp_path)["global_step"] == step // SAVED_EVERY * SAVED_EVERY
    fit(tmp_path, *resume, f"--data.num_workers={workers[-1]}")
    assert_same(last(tmp_path), whole)
