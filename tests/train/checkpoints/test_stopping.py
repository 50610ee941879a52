"""A run that is asked to stop saves, on all processes at the same step, and exits as one that did not finish."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from jepa_train.checkpoints.files import read_checkpoint
from jepa_train.checkpoints.stopping import is_behind
from jepa_train.cli import main
from tests.processes import TRAIN, run_python
from tests.train.helpers import BATCHES, TINY, fit, last_checkpoint

STATUS = 128 + signal.SIGTERM
SIGNAL = "--trainer.callbacks+=tests.faults.injection.SignalAt"
EPOCHS = "--trainer.max_epochs=3"

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")


def signal_at(step: int, *hooks: str, name: str = "SIGTERM") -> list[str]:
    """Arguments that send a signal to each rank in a hook of its own."""
    options = {"step": step, "hooks": f"[{','.join(hooks)}]", "name": name}
    return [SIGNAL, *(f"--trainer.callbacks.{option}={value}" for option, value in options.items())]


def stop(folder: Path, *arguments: str) -> None:
    """A ``fit`` in this process that must be stopped, and leave the process as it was."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        fit(folder, EPOCHS, *arguments)
    assert stopped.value.code == STATUS
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize(
    ("step", "hook", "settings", "saved"),
    [
        (1, "on_train_batch_start", [], 2),
        (2, "on_after_backward", ["--data.num_workers=1"], 3),
        pytest.param(
            *(BATCHES + 2, "on_after_backward", ["--trainer.callbacks.every_n_train_steps=100"], BATCHES + 3),
            marks=pytest.mark.slow,
        ),
        pytest.param(BATCHES, "on_validation_start", [], BATCHES + 1, marks=pytest.mark.slow),
        pytest.param(0, "on_train_start", [], 1, marks=pytest.mark.slow),
        pytest.param(*(1, "on_train_batch_start", ["--trainer.accumulate_grad_batches=2"], 2), marks=pytest.mark.slow),
    ],
)
def test_it_goes_on_from_the_step_at_which_it_stopped(
    step: int, hook: str, settings: list[str], saved: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fit(tmp_path / "whole", EPOCHS, *settings)
    stop(tmp_path / "parts", *settings, *signal_at(step, hook))
    last = last_checkpoint(tmp_path / "parts")
    assert f"Stopped by a signal at step {saved}: resume with --ckpt_path {last}." in capsys.readouterr().err
    assert read_checkpoint(last)["global_step"] == saved
    resumed = fit(tmp_path / "parts", EPOCHS, *settings, "--ckpt_path=last")
    assert resumed["global_step"] == whole["global_step"]
    for name, weight in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], weight), name


@pytest.mark.parametrize("step", [1, BATCHES + 1])
def test_an_interrupted_run_says_what_is_left(step: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # a process in the background of a shell ignores the signal
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as stopped:
            fit(tmp_path, EPOCHS, *signal_at(step, "on_train_batch_start", name="SIGINT"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.value.code == 1
    left = "no checkpoint was written yet" if step == 1 else f"resume with --ckpt_path {last_checkpoint(tmp_path)}"
    assert f"Interrupted at step {step}: {left}." in capsys.readouterr().err


def test_a_signal_at_the_very_end_leaves_a_finished_run(tmp_path: Path) -> None:
    ended = fit(tmp_path, EPOCHS, *signal_at(3 * BATCHES, "on_validation_end"))
    assert ended["global_step"] == 3 * BATCHES


def test_a_file_of_another_run_stays_as_it_is(tmp_path: Path) -> None:
    other = tmp_path / "last.ckpt"
    other.write_bytes(b"of another run")
    stop(tmp_path / "runs", f"--trainer.callbacks.dirpath={tmp_path}", *signal_at(1, "on_train_batch_start"))
    assert other.read_bytes() == b"of another run"
    assert read_checkpoint(tmp_path / "last-v1.ckpt")["global_step"] == 2


def test_who_wants_no_checkpoint_gets_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unsaved = [*TINY[:-2], f"--trainer.logger.save_dir={tmp_path}", "--trainer.enable_checkpointing=false"]
    alone = [SIGNAL.replace("+=", "="), *signal_at(1, "on_train_batch_start")[1:]]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *unsaved, *alone])
    assert stopped.value.code == STATUS
    assert "no checkpoint" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "hooks", "saved"),
    [
        (3, ("on_train_batch_start", "on_after_backward"), 4),
        (BATCHES, ("on_validation_start", "on_validation_end"), BATCHES + 1),  # one of them measures
        (4, ("never", "on_after_backward"), 5),  # the second alone
    ],
)
def test_two_processes_stop_at_the_same_step(step: int, hooks: tuple[str, str], saved: int, tmp_path: Path) -> None:
    monitored = ["--trainer.callbacks+=jepa_monitor.JEPAScoreMonitor", "--trainer.callbacks.num_samples=8"]
    on_two = ["--trainer.devices=2", "--trainer.strategy=ddp", EPOCHS, f"--data.num_train={16 * BATCHES}"]
    ended = run_python(TRAIN, "fit", *TINY, *on_two, *monitored, *signal_at(step, *hooks), folder=tmp_path)
    assert ended.returncode == STATUS, ended.stderr[-3000:]
    assert ended.stderr.count("Stopped by a signal") == 1
    assert read_checkpoint(last_checkpoint(tmp_path / "runs"))["global_step"] == saved


@pytest.mark.slow
def test_a_process_that_never_comes_is_waited_for_a_while(tmp_path: Path) -> None:
    begun = time.monotonic()
    ended = run_python(Path(__file__).with_name("stuck_run.py"), "2", tmp_path, folder=tmp_path)
    assert ended.returncode == STATUS, ended.stderr[-3000:]
    assert "not reached within 2 s" in ended.stderr
    assert str(tmp_path / "last.ckpt") in ended.stderr
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 2
    assert time.monotonic() - begun < 100  # and not the half hour of a collective


@pytest.mark.slow
def test_slurm_requeues_from_the_step_at_which_it_stopped(tmp_path: Path) -> None:
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/asked"\n')
    scontrol.chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "jepa", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
    slurm |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost", "SLURM_JOB_NUM_NODES": "1"}
    slurm |= {"PATH": f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}"}
    command = [TRAIN, "fit", *TINY, EPOCHS]
    stopped = run_python(*command, *signal_at(2, "on_after_backward", name="SIGUSR1"), folder=tmp_path, **slurm)
    assert stopped.returncode == STATUS, stopped.stderr[-3000:]
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    assert read_checkpoint(tmp_path / "hpc_ckpt_1.ckpt")["global_step"] == 3
    requeued = run_python(*command, folder=tmp_path, **slurm)
    assert requeued.returncode == 0, requeued.stderr[-3000:]
    assert "hpc_ckpt_1.ckpt" in requeued.stderr  # Lightning says what it goes on from


@pytest.mark.slow
def test_validate_exits_at_once(tmp_path: Path) -> None:
    fit(tmp_path / "runs", "--trainer.max_epochs=1")
    command = [TRAIN, "validate", *TINY, "--ckpt_path", last_checkpoint(tmp_path / "runs")]
    ended = run_python(*command, *signal_at(0, "on_validation_start"), folder=tmp_path)
    assert ended.returncode == STATUS, ended.stderr[-3000:]
    assert "Stopped by a signal" in ended.stderr


def test_what_is_not_a_whole_checkpoint_is_behind(tmp_path: Path) -> None:
    assert is_behind(tmp_path / "last.ckpt", 1)
    torch.save({"global_step": 3, "state_dict": {}}, tmp_path / "last.ckpt")
    assert is_behind(tmp_path / "last.ckpt", 4)
    assert not is_behind(tmp_path / "last.ckpt", 3)
    whole = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    assert is_behind(tmp_path / "last.ckpt", 3)
