"""Arguments that cannot be parsed end in one sentence, with the nearest name where one was mistyped."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Union

import pytest

from jepa_train.cli import main
from jepa_train.commands.parsing import Parser
from tests.train.helpers import one_sentence

pytestmark = pytest.mark.usefixtures("own_folder")

A_CLASS = "a class, by its import path or as class_path and init_args"
TYPOS = {
    "fitt": "there is no subcommand 'fitt' (is fit meant?)",
    "exprt": "there is no subcommand 'exprt' (is export meant?)",
    "fit now": "'now' belongs to no option",
    "--trainer.max_epochs=3 fit": "options come after the subcommand",
    "fit --data.batchsize=3": "there is no option --data.batchsize (is --data.batch_size meant?)",
    "fit --data.batchsize 3": "there is no option --data.batchsize (is --data.batch_size meant?)",
    "predict --data.batchsize=3": "there is no option --data.batchsize (is --data.batch_size meant?)",
    "fit --model.learningrate=3": "there is no option --model.learningrate (is --model.learning_rate meant?)",
    "fit --trainer.max_epoches=3": "there is no option --trainer.max_epoches (is --trainer.max_epochs meant?)",
    "fit --trainer.learning_rate=3": "there is no option --trainer.learning_rate (is --model.learning_rate meant?)",
    "fit --max_epochs=3": "there is no option --max_epochs (is --trainer.max_epochs meant?)",
    "fit --batch_size 3": "there is no option --batch_size (is --data.batch_size meant?)",
    "fit --lr=3": "there is no option --lr (is --model.learning_rate meant?)",
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
    "fit --trainer.lr=3": "there is no option --trainer.lr (is --model.learning_rate meant?)",
    "fit --ckpt x": "there is no option --ckpt (is --ckpt_path meant?)",
    "fit --data.root photos": "--data.root (--data.root is an option of FashionMNISTDataModule, ImageFolderDataModule:",
    "fit --data.rot photos": "--data.rot (--data.root is an option of FashionMNISTDataModule, ImageFolderDataModule:",
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
    "fit -c typos.yaml": "typo.yaml meant?): --config takes a YAML file",
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


def test_an_address_stays_one_whichever_type_comes_first() -> None:
    class PathFirst:  # as Lightning's Union[str, Path] comes out where typing has cached the other order
        def fit(self, ckpt_path: Union[Path, str, None] = None) -> None:  # noqa: UP007
            """Fit."""

    parser = Parser()
    assert parser.add_method_arguments(PathFirst, "fit") == ["ckpt_path"]
    assert parser.parse_args(["--ckpt_path=s3://a/x.ckpt"]).ckpt_path == "s3://a/x.ckpt"


def test_alone_it_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for subcommand in ("fit", "validate", "test", "predict", "export"):
        assert subcommand in printed
