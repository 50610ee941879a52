"""Mistakes on the command line: each ends in one sentence and exit code 2; a bug of ours keeps its traceback."""

from __future__ import annotations

import errno
import functools
import inspect
import os
import re
import resource
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from jepa_train.checkpoints.files import written_whole
from jepa_train.cli import main
from jepa_train.data import MixtureDataModule
from jepa_train.errors import ConfigurationError
from jepa_train.module import JEPA
from tests.sentences import FAILED, MISTAKE, one_sentence


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


A_CLASS = "a class, by its import path or as class_path and init_args"
TYPOS = {
    "fitt": "there is no subcommand 'fitt' (is fit meant?)",
    "exprt": "there is no subcommand 'exprt' (is export meant?)",
    "fit now": "'now' belongs to no option",
    "--trainer.max_epochs=3 fit": "options stand behind the subcommand",
    "fit --data.batchsize=3": "there is no option --data.batchsize (is --data.batch_size meant?)",
    "fit --data.batchsize 3": "there is no option --data.batchsize (is --data.batch_size meant?)",
    "predict --data.batchsize=3": "there is no option --data.batchsize (is --data.batch_size meant?)",
    "fit --model.learningrate=3": "there is no option --model.learningrate (is --model.learning_rate meant?)",
    "fit --trainer.max_epoches=3": "there is no option --trainer.max_epoches (is --trainer.max_epochs meant?)",
    "fit --trainer.learning_rate=3": "there is no option --trainer.learning_rate (is --model.learning_rate meant?)",
    "fit --max_epochs=3": "there is no option --max_epochs (is --trainer.max_epochs meant?)",
    "fit --batch_size 3": "there is no option --batch_size (is --data.batch_size meant?)",
    "fit --lr=3": "there is no option --lr; --help lists all",
    "fit --trainer.max_epoch=3": "there is no option --trainer.max_epoch (is --trainer.max_epochs meant?)",
    "fit --trainer.logger.save_dr=x": "--trainer.logger.save_dr (is --trainer.logger.save_dir meant?)",
    "fit --trainer.callbacks+=EarlyStopping": "EarlyStopping needs --trainer.callbacks.monitor",
    "fit --trainer.callbacks+=EarlyStopping --trainer.callbacks.monitr=x": "(is --trainer.callbacks.monitor meant?)",
    "fit --trainer.callbacks.num_samples=64": "callbacks.num_samples (is --monitor.num_samples meant?)",
    "fit --num_samples 64": "there is no option --num_samples (is --monitor.num_samples meant?)",
    "fit --monitor.num_sample 64": "there is no option --monitor.num_sample (is --monitor.num_samples meant?)",
    "fit --monitor.num_samples=many": "--monitor.num_samples must be a whole number, or null; got many",
    "fit --trainer.callbacks+=EarlyStoping": "the class EarlyStoping, which does not exist (is EarlyStopping meant?)",
    "fit --trainer.logger=lightning.pytorch.loggers.TensorBordLogger": "(is TensorBoardLogger meant?)",
    "fit --data=MixtureData": "--data names the class MixtureData, which does not exist (is MixtureDataModule meant?)",
    "fit --data FashionMNISTDataModule --data.rot=x": "there is no option --data.rot (is --data.root meant?)",
    "fit --data=torch.nn.Linear": "does not correspond to a subclass of LightningDataModule",
    "fit --data=nowhere.to.be.Found": "cannot be imported: No module named 'nowhere'",
    "fit --data=mixture.yaml": "--data names a class, not the file mixture.yaml: give configs with --config",
    "fit --epochs 3": "there is no option --epochs (is --trainer.max_epochs meant?)",
    "fit --trainer.lr=3": "there is no option --trainer.lr; --help lists all",
    "fit --ckpt x": "there is no option --ckpt (is --ckpt_path meant?)",
    "fit --data.batch 3": "there is no option --data.batch (is --data.batch_size meant?)",
    "fit --ckpt_path": "error: --ckpt_path lacks its value: options are written --NAME VALUE",
    "export --output": "error: --output lacks its value: options are written --NAME VALUE",
    "export --ckpt_path=last --output=b.safetensors": "give --ckpt_path RUN/checkpoints/last.ckpt, with the folder of",
    "export -c config.yaml --output=b.safetensors": "export takes no config, the checkpoint holds all settings",
    "export --config=config.yaml": "export takes no config, the checkpoint holds all settings",
    "fit --data.batch_size": "--data, or an option of it, lacks its value",
    "export": "more is needed: give --ckpt_path, --output",
    "export --ckpt_path=a.ckpt --output=b.safetensors --overwrit": "(is --overwrite meant?)",
    "export --ckpt_path=a.ckpt --output=b.safetensors --which=teacher": "one of target, context; got teacher",
}
VALUES = {
    "fit --trainer=3": "error: --trainer takes a YAML file, and options are given as --trainer.NAME VALUE; got 3.",
    "fit --model=null": "error: --model takes a YAML file, and options are given as --model.NAME VALUE; got null.",
    "fit --monitor=false": f"--monitor must be {A_CLASS}, or null; got false (is null meant?).",
    "fit --trainer.callbacks=false": f"--trainer.callbacks must be {A_CLASS}, or a list, or null; got false (is null",
    "fit --data=false": f"--data must be {A_CLASS}; got false.",
    "fit --seed_everything=null": "--seed_everything must be true or false, or a whole number; got null.",
    "fit --data.batch_size=abc": "--data.batch_size must be a whole number; got abc",
    "fit --data.batch_size=1.5": "--data.batch_size must be a whole number; got 1.5",
    "fit --model.learning_rate=abc": "--model.learning_rate must be a number; got abc",
    "fit --model.flip=maybe": "--model.flip must be true or false; got maybe",
    "fit --model.anticollapse=vicregg": "must be one of sigreg, vicreg, barlow",
    "fit --model.target_scale=3": "--model.target_scale must be a list; got 3",
    "fit --model.target_scale=[1,2,3]": "--model.target_scale must be a list of 2 values; got [1, 2, 3]",
    "fit --model.encoder_overrides=3": "--model.encoder_overrides must be a mapping",
    "fit --trainer.max_epochs=abc": "--trainer.max_epochs must be a whole number, or null; got abc",
    "fit --trainer.precision=17": "--trainer.precision must be one of 64, 32, 16,",
    "fit --trainer.deterministic=maybe": "--trainer.deterministic must be one of warn, or true or false",
    "fit --seed_everything=abc": "--seed_everything must be true or false, or a whole number; got abc",
    "fit --data=ImageFolderDataModule --data.root=x --data.crop_scale=abc": "--data.crop_scale must be a list, or null",
}
CONFIGS = {
    "fit -c nowhere.yaml": "nowhere.yaml does not exist: --config takes a YAML file",
    "fit -c .": "is a folder: --config takes a YAML file",
    "fit -c": "lacks its value",
    "fit -c empty.yaml": "a config maps names to settings",
    "fit -c list.yaml": "a config maps names to settings",
    "fit -c torn.yaml": "a config cannot be read as YAML: while parsing",
    "fit -c binary.yaml": "a config is not a text file",
    "fit -c typo.yaml": "there is no option --trainer.max_epoch (is --trainer.max_epochs meant?)",
    "fit -c group.yaml": "there is no option --trainr.max_epochs (is --trainer.max_epochs meant?)",
    "fit -c data.yaml": "there is no option --data.batchsize (is --data.batch_size meant?)",
}
GROUPS = {
    "fit -c '{data: 3}'": f"--data must be {A_CLASS}; got 3.",
    "fit -c '{data: [1]}'": f"--data must be {A_CLASS}; got [1].",
    "fit -c '{data: null}'": "more is needed: give --data.",
    "fit -c '{monitor: 3}'": f"--monitor must be {A_CLASS}, or null; got 3.",
    "fit -c '{trainer: {logger: 3}}'": f"--trainer.logger must be {A_CLASS}, or a list, or true or false, or null",
    "fit -c '{data: {class_path: MixtureDataModule, init_args: 3}}'": "the init_args of --data must be a mapping",
    "fit -c trainer.yaml": "trainer must be a group of settings, such as trainer: {max_epochs: 7}; got 7",
    "fit -c trainer.yaml --ckpt_path=last": "",
    "fit -c null.yaml": "trainer must be a group of settings, such as trainer: {max_epochs: 7}; got null",
    "fit -c model.yaml": "model must be a group of settings, such as model: {learning_rate: 0.001}; got 3",
    "fit -c logger.yaml --ckpt_path=last": "",
    "fit -c seed.yaml": "seed_everything must be true or false, or a whole number; got null",
    "fit --ckpt_path=": "--ckpt_path is empty: give a checkpoint, or leave the option out",
    "fit --ckpt_path=s3://a/x.ckpt": "s3://a/x.ckpt cannot be fetched (Install s3fs to access S3): make it",
    "fit --ckpt_path=foo://a/x.ckpt": "cannot be fetched (Protocol not known: foo): make it reachable",
}
FILES = {
    "trainer.yaml": b"trainer: 7",
    "null.yaml": b"trainer: null",
    "model.yaml": b"model: 3",
    "logger.yaml": b"trainer: {logger: {class_path: TensorBoardLogger, init_args: 3}}",
    "seed.yaml": b"seed_everything: null",
    "empty.yaml": b"",
    "list.yaml": b"- 1\n- 2\n",
    "torn.yaml": b"trainer: {max_epochs: 3",
    "binary.yaml": b"\x00\xff\xfe\x81",
    "typo.yaml": b"trainer: {max_epoch: 3}",
    "group.yaml": b"trainr: {max_epochs: 3}",
    "data.yaml": b"data: {class_path: jepa_train.data.MixtureDataModule, init_args: {batchsize: 3}}",
}


PARSED = TYPOS | VALUES | CONFIGS | GROUPS


@pytest.mark.parametrize("line", PARSED)
def test_what_cannot_be_parsed_is_one_sentence(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in FILES.items():
        Path(name).write_bytes(content)
    message = one_sentence(lambda: main(shlex.split(line)), capsys)
    assert PARSED[line] in message
    assert not re.search(r"<class|NestedArg|Namespace|typing\.|Union", message)
    assert not Path("runs").exists()


QUICK = (
    "fit --data.num_train=64 --data.num_probe=16 --data.batch_size=16 --data.image_size=8 --model.min_context=1 "
    "--model.encoder_overrides='{embed_dim: 16, depth: 1, num_heads: 2}' --model.predictor_width=16 "
    "--monitor=null --trainer.max_epochs=1 --trainer.accelerator=cpu --trainer.enable_progress_bar=false "
    "--trainer.enable_model_summary=false --trainer.log_every_n_steps=1 "
)
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
    "--trainer.limit_train_batches=-1": "invalid value -1.0 for limit_train_batches",
    "--trainer.max_time=soon": "is not a valid duration",
    "--trainer.profiler=foo": "`profiler` parameter of `Trainer`",
    "--trainer.barebones=true": "Trainer(barebones=True, ",
    "--trainer.logger=MLFlowLogger": "Requirement 'mlflow",
    "--trainer.default_root_dir=/proc/nothing --trainer.logger=false": "/proc/nothing: No such file or directory",
    "--trainer.logger.save_dir=/dev/null": "/dev/null/mixture: Not a directory: a part of this path is a file",
    "--trainer.logger.name=LONG": "File name too long: choose a shorter name",
    "--ckpt_path=http://localhost:1/x.ckpt": "http://localhost:1/x.ckpt cannot be fetched (Checkpoint file not found",
    "--ckpt_path=hpc": "no HPC checkpoint was found",
    "--ckpt_path=.": "there is no checkpoint",
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


@pytest.mark.parametrize("place", ["on_train_start", "on_validation_start", "training_step"])
def test_a_run_without_a_batch_leaves_no_folder(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise KeyError(place)

    monkeypatch.setattr(JEPA, place, fail)
    with pytest.raises(KeyError, match=place):
        main(shlex.split(f"{QUICK} --trainer.num_sanity_val_steps=1"))
    assert len(list(Path().glob("runs/mixture/*"))) == (1 if place == "training_step" else 0)


def test_validation_of_nothing_leaves_no_folder() -> None:
    main(shlex.split(f"{QUICK.replace('fit', 'validate')} --trainer.limit_val_batches=0"))
    assert not list(Path().glob("runs/mixture/*"))


def test_a_folder_that_was_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise KeyError("start")

    monkeypatch.setattr(JEPA, "on_train_start", fail)
    kept = Path("runs/mixture/mine/notes.txt")
    kept.parent.mkdir(parents=True)
    kept.touch()
    with pytest.raises(KeyError, match="start"):
        main(shlex.split(f"{QUICK} --trainer.logger.version=mine"))
    assert kept.is_file()


def test_what_torch_buries_is_found(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match=r"File too large: .*big\.ckpt"), written_whole(tmp_path / "big.ckpt") as file:
            torch.save(torch.zeros(100_000), file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of TensorBoard's writer
def test_a_deleted_folder_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(JEPA, "on_train_epoch_start", lambda module: shutil.rmtree("runs"))
    message = one_sentence(lambda: main(shlex.split(QUICK)), capsys, code=FAILED)
    assert re.search("error: runs/.*: No such file or directory: see that its folder exists and stays", message)


def test_alone_it_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for subcommand in ("fit", "validate", "test", "predict", "export"):
        assert subcommand in printed
