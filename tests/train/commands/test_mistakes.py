"""Mistakes on the command line: each ends in one sentence and exit code 2; a bug of ours keeps its traceback."""

from __future__ import annotations

import errno
import functools
import inspect
import os
import re
import shlex
import shutil
import threading
from pathlib import Path

import pytest

from jepa_train.cli import main
from jepa_train.data import MixtureDataModule
from jepa_train.errors import ConfigurationError
from jepa_train.module import JEPA
from tests.train.commands.helpers import QUICK
from tests.train.helpers import FAILED, MISTAKE, one_sentence

pytestmark = pytest.mark.usefixtures("own_folder")

REFUSED = {
    "--trainer.val_check_interval=100": "(100) must be less than or equal to the number of the training batches (4)",
    "--trainer.val_check_interval=0": "trainer.val_check_interval must be above 0, got 0",
    "--trainer.strategy=foo": "You selected an invalid strategy name",
    "--trainer.accelerator=foo": "You selected an invalid accelerator name",
    "--trainer.accelerator=tpu": "",
    "--trainer.devices=0": "is not a valid input using cpu accelerator",
    "--trainer.devices=two": "should be an int > 0",
    "--trainer.num_nodes=0": "trainer.num_nodes must be 1 or more, got 0",
    "--trainer.precision=transformer-engine": "Requirement 'transformer_engine",
    "--trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches must be 1 or more, got 0",
    "--trainer.check_val_every_n_epoch=0": "trainer.check_val_every_n_epoch must be 1 or more, got 0",
    "--trainer.log_every_n_steps=-1": "trainer.log_every_n_steps must be 0 or more, got -1",
    "--trainer.num_sanity_val_steps=-5": "trainer.num_sanity_val_steps must be -1 or more, got -5",
    "--trainer.gradient_clip_val=-1": "trainer.gradient_clip_val must be 0 or more, got -1",
    "--trainer.min_epochs=-1": "trainer.min_epochs must be 0 or more, got -1",
    "--trainer.max_epochs=0": "nothing would be trained: give --trainer.max_epochs, --trainer.max_steps and",
    "--trainer.max_steps=0": "nothing would be trained: give --trainer.max_epochs, --trainer.max_steps and",
    "--trainer.limit_train_batches=0": "nothing would be trained: give --trainer.max_epochs, --trainer.max_steps and",
    "--trainer.max_epochs=-2": "`max_epochs` must be a non-negative integer",
    "--trainer.max_epochs=-1": "the schedules need the length of the run",
    "--trainer.limit_train_batches=-1": "for limit_train_batches, it has to be in",
    "--trainer.max_time=soon": "is not a valid duration",
    "--trainer.profiler=foo": "`profiler` parameter of `Trainer`",
    "--trainer.barebones=true": "Trainer(barebones=True, ",
    "--trainer.logger=MLFlowLogger": "Requirement 'mlflow",
    "--trainer.default_root_dir=/proc/nothing --trainer.logger=false": "/proc/nothing: No such file or directory",
    "--trainer.logger.save_dir=/dev/null": "/dev/null/mixture: Not a directory: a part of this path is a file",
    "--trainer.logger.name=LONG": "File name too long: choose a shorter name",
    "--ckpt_path=http://localhost:1/x.ckpt": "http://localhost:1/x.ckpt cannot be fetched (Checkpoint file not found",
    "--ckpt_path=hpc": "no HPC checkpoint was found",
    "--ckpt_path=.": ". is a folder, and no checkpoint: look for a *.ckpt",
    "--seed_everything=-1": "seed_everything must lie between 0 and 4294967295, got -1",
    "--seed_everything=4294967296": "seed_everything must lie between 0 and 4294967295, got 4294967296",
    "--data.batch_size=0": "batch_size must be 1 or more, got 0",
    "--data.num_workers=-1": "num_workers must be 0 or more, got -1",
    "--data.image_size=-4": "image_size must be 1 or more, got -4",
    "--data.channels=0": "channels must be 1 or more, got 0",
    "--data.seed=-1": "seed must be 0 or more, got -1",
    "--data.num_train=0": "num_train must be 1 or more, got 0",
    "--data.num_probe=-1": "num_probe must be 1 or more, got -1",
    "--data.latent_size=0": "latent_size must be 1 or more, got 0",
    "--data.num_components=0": "num_components must be 1 or more, got 0",
    "--data.narrowest=0": "narrowest must be above 0, got 0.0",
    "--data.noise=nan": "--data.noise must be a number; got nan",
    "--data.contrast=0": "contrast must be above 0, got 0.0",
    "--data=DigitsDataModule --data.contrast=-1": "contrast must be above 0, got -1.0",
    "--data=FashionMNISTDataModule --data.corruption=-1": "corruption must be 0 or more, got -1.0",
    "--data=ImageFolderDataModule --data.root=. --data.probe_share=2": "probe_share must lie between 0 and 1, got 2.0",
    "--trainer.callbacks=EarlyStopping --trainer.callbacks.monitor=foo": "conditioned on metric `foo` which is not",
    "--trainer.callbacks=ModelCheckpoint --trainer.callbacks.monitor=foo": "could not find the monitored key",
    "--trainer.callbacks=ModelCheckpoint --trainer.callbacks.save_top_k=-2": "Invalid value for save_top_k=-2",
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_cannot_work_is_one_sentence(options: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"{QUICK} {options.replace('LONG', 'x' * 300)}"
    assert REFUSED[options] in one_sentence(lambda: main(shlex.split(line)), capsys)
    if "callbacks" not in options:  # those are found by what the first epoch logs
        assert not list(Path().glob("runs/mixture/*"))


MODEL_NUMBERS = [
    name
    for name, parameter in inspect.signature(JEPA).parameters.items()
    if isinstance(parameter.default, (int, float)) and not isinstance(parameter.default, bool)
]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODEL_NUMBERS)
def test_a_negative_number_for_the_model_is_one_sentence(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("image_size", "channels")  # given by the DataModule
    option = f"--data.{name}=-1" if name in data else f"--model.{name}=-1"
    assert name in one_sentence(lambda: main(shlex.split(f"{QUICK} {option}")), capsys)


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("setup", ValueError),
        ("configure_optimizers", TypeError),
        ("training_step", ValueError),
        ("on_train_epoch_end", RuntimeError),
    ],
)
def test_a_bug_keeps_its_traceback(place: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise kind("of ours")

    monkeypatch.setattr(JEPA, place, fail)
    with pytest.raises(kind, match="of ours"):
        main(shlex.split(QUICK))


def test_a_bug_of_a_constructor_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ValueError("of ours")

    monkeypatch.setattr(MixtureDataModule, "__init__", functools.wraps(MixtureDataModule.__init__)(fail))
    with pytest.raises(ValueError, match="of ours") as raised:
        main(shlex.split(QUICK))
    assert str(raised.value.__cause__) == "of ours"


@pytest.mark.parametrize(
    ("place", "code"), [("on_fit_start", MISTAKE), ("on_validation_start", FAILED), ("training_step", FAILED)]
)
def test_the_code_of_what_cannot_be_read_says_whether_training_had_begun(
    place: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ConfigurationError("a.jpg is cut off.")

    monkeypatch.setattr(JEPA, place, fail)
    line = f"{QUICK} --trainer.num_sanity_val_steps=0"
    assert one_sentence(lambda: main(shlex.split(line)), capsys, code=code) == "error: a.jpg is cut off."


def test_a_full_disk_is_said_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    options = "--trainer.callbacks=ModelCheckpoint --trainer.callbacks.save_last=true"
    message = one_sentence(lambda: main(shlex.split(f"{QUICK} {options}")), capsys, code=FAILED)
    assert re.search(r"checkpoints/\S+\.ckpt: No space left on device: make room there", message)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of TensorBoard's writer
def test_a_deleted_folder_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(JEPA, "on_train_epoch_start", lambda module: shutil.rmtree("runs"))
    message = one_sentence(lambda: main(shlex.split(QUICK)), capsys, code=FAILED)
    assert re.search("error: runs/.*: No such file or directory: see that its folder exists and stays", message)
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("tensorboard"):
            thread.join(10.0)  # or it fails during the next test
