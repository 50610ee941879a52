"""Checkpoints: never half written, and one clear sentence for every file that cannot be gone on from."""

from __future__ import annotations

import os
import pickle
import random
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from torch import nn

from jepa_train.checkpoints.compatibility import weight_shapes
from jepa_train.checkpoints.files import (
    ABANDONED_AFTER,
    AtomicCheckpointIO,
    newest_checkpoint,
    read_checkpoint,
    written_whole,
)
from jepa_train.cli import JEPACLI, main
from jepa_train.errors import ConfigurationError
from jepa_train.module import JEPA
from tests.sentences import one_sentence
from tests.train.helpers import saved_by

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'callbacks'}", "CUDA_VISIBLE_DEVICES": ""}
TINY = [
    "--trainer.max_epochs=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.log_every_n_steps=1",
    "--monitor=null",
    "--trainer.callbacks=lightning.pytorch.callbacks.ModelCheckpoint",
    "--trainer.callbacks.save_last=true",
    "--data.num_train=128",
    "--data.num_probe=32",
    "--data.batch_size=64",
    "--model.encoder_overrides={embed_dim: 16, depth: 1, num_heads: 2}",
    "--model.projector_hidden=16",
    "--model.predictor_width=16",
]


def run(subcommand: str, *arguments: str) -> JEPACLI:
    cli = main([subcommand, *TINY, "--trainer.logger.save_dir=runs", *arguments])
    assert cli is not None
    return cli


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two steps."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("fit")
    return folder / "runs" / "mixture" / "version_0" / "checkpoints" / "last.ckpt"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# writing


class Halfway(Exception):
    pass


def write_half(path: Path) -> None:
    with written_whole(path) as file:
        file.write(b"new, ha")
        file.flush()
        raise Halfway


def test_an_error_in_mid_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"old")
    with pytest.raises(Halfway):
        write_half(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with written_whole(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_the_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    with written_whole(tmp_path / "ours") as file:
        file.write(b"1")
    (tmp_path / "theirs").write_bytes(b"1")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode


def test_leftovers_are_removed_by_a_later_save_and_those_being_written_are_not(tmp_path: Path) -> None:
    for name, age in {".a.ckpt.1.partial": ABANDONED_AFTER + 60, ".b.ckpt.2.partial": ABANDONED_AFTER - 60}.items():
        (tmp_path / name).write_bytes(b"half")
        then = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (then, then))
    AtomicCheckpointIO().save_checkpoint({"a": 1}, tmp_path / "last.ckpt")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.ckpt.2.partial", "last.ckpt"]


def test_a_killed_writer_never_leaves_a_truncated_checkpoint(tmp_path: Path) -> None:
    """Writers that save again and again are killed at many moments; some of them in the middle of a file."""
    script = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from jepa_train.checkpoints.files import AtomicCheckpointIO, read_checkpoint
torch.set_num_threads(1)
path = Path(sys.argv[1]) / "last.ckpt"
big = {"state_dict": {"weight": torch.arange(1_000_000.0)}}
AtomicCheckpointIO().save_checkpoint(big, path)
draw = random.Random(0)
killed_in_mid_write = 0
for _ in range(10):
    child = os.fork()
    if child == 0:
        while True:
            AtomicCheckpointIO().save_checkpoint(big, path)
    time.sleep(draw.uniform(0.005, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert torch.equal(read_checkpoint(path)["state_dict"]["weight"], big["state_dict"]["weight"])
    leftovers = list(path.parent.glob(".*.partial"))
    killed_in_mid_write += any(leftover.stat().st_size < path.stat().st_size for leftover in leftovers)
    for leftover in leftovers:
        leftover.unlink()
print(killed_in_mid_write)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    finished = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert int(finished.stdout) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_is_saved_is_what_lightning_reads(tmp_path: Path) -> None:
    io = AtomicCheckpointIO()
    for address in (tmp_path / "new" / "a.ckpt", f"file://{tmp_path}/b.ckpt", "memory://somewhere/c.ckpt"):
        io.save_checkpoint({"state_dict": {"weight": torch.arange(3)}}, address)
        assert torch.equal(io.load_checkpoint(address)["state_dict"]["weight"], torch.arange(3))
    with pytest.raises(TypeError, match="storage_options"):
        io.save_checkpoint({}, tmp_path / "d.ckpt", storage_options={"a": 1})


class Own(TorchCheckpointIO):
    pass


def test_fit_writes_atomically_and_leaves_the_users_own_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Path] = []
    original = AtomicCheckpointIO.save_checkpoint

    def save(self: AtomicCheckpointIO, checkpoint: dict[str, Any], path: Path, storage_options: Any = None) -> None:
        saved.append(Path(path))
        original(self, checkpoint, path, storage_options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", save)
    cli = run("fit")
    assert {path.name for path in saved} == {"last.ckpt", "epoch=0-step=2.ckpt"}
    saved.clear()
    cli = run("fit", "--trainer.plugins=lightning.pytorch.plugins.io.AsyncCheckpointIO")
    assert type(cli.trainer.strategy._checkpoint_io) is AsyncCheckpointIO
    assert saved == []
    own = DDPStrategy(checkpoint_io=Own())
    assert type(cli.instantiate_trainer(plugins=None, strategy=own, devices=2).strategy.checkpoint_io) is Own
    trainer = cli.instantiate_trainer(plugins=None, strategy="ddp", devices=2)
    assert type(trainer.strategy) is DDPStrategy
    assert type(trainer.strategy.checkpoint_io) is AtomicCheckpointIO


@pytest.mark.parametrize("strategy", [DDPStrategy, FSDPStrategy, ModelParallelStrategy])
def test_strategies_with_ways_of_their_own_take_it(strategy: type[Any]) -> None:
    own = strategy()
    own.checkpoint_io = AtomicCheckpointIO()
    assert type(own.checkpoint_io) is AtomicCheckpointIO


def test_a_sharded_model_whose_checkpoint_is_one_file_is_written_atomically(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = ModelParallelStrategy(save_distributed_checkpoint=False)
    strategy.checkpoint_io = AtomicCheckpointIO()
    replaced: list[Path] = []
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (replaced.append(Path(new).absolute()), rename(old, new)))
    for step in (1, 2):
        strategy.save_checkpoint({"state_dict": {}, "global_step": step}, "last.ckpt")
    assert replaced == [Path.cwd() / "last.ckpt"] * 2
    assert read_checkpoint(Path("last.ckpt"))["global_step"] == 2


# reading


class Other(pl.LightningModule):
    """Somebody else's model."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(width, 1)


class Silent(Other):
    """One that says nothing of its settings."""

    def __init__(self) -> None:
        pl.LightningModule.__init__(self)
        self.layer = nn.Linear(3, 1)


def spoil(kind: str, trained: Path, path: Path) -> None:
    """Write a file of this kind to ``path``."""
    content = trained.read_bytes()
    checkpoint = torch.load(trained, weights_only=True)
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "without its end":
        path.write_bytes(content[:-100])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no checkpoint")
    elif kind == "tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "weights alone":
        torch.save(checkpoint["state_dict"], path)
    elif kind == "unsafe":
        torch.save({"state_dict": {}, "run": subprocess.Popen}, path)
    elif kind == "foreign":
        saved_by(Other(), path)
    elif kind == "silent foreign":
        saved_by(Silent(), path)
    elif kind == "older weights":
        checkpoint["state_dict"].pop("online.encoder.vit.norm.weight")
        checkpoint["state_dict"]["online.old"] = torch.zeros(1)
        torch.save(checkpoint, path)
    elif kind == "a weight more":
        checkpoint["state_dict"]["online.old"] = torch.zeros(1)
        torch.save(checkpoint, path)
    elif kind == "older settings":
        checkpoint["hyper_parameters"]["number_of_things"] = 3
        torch.save(checkpoint, path)
    elif kind == "no optimizer":
        del checkpoint["optimizer_states"]
        torch.save(checkpoint, path)


SPOILT = {
    "truncated": r"is not a whole checkpoint \(it is cut off",
    "without its end": r"is not a whole checkpoint \(it is cut off",
    "empty": r"bad.ckpt is empty",
    "text": r"is not a whole checkpoint",
    "tensor": r"is not a checkpoint of Lightning",
    "weights alone": r"is not a checkpoint of Lightning",
    "unsafe": r"could run code",
    "foreign": r"settings that this model does not know \(width\)",
    "silent foreign": r"is a checkpoint of another model: it has layer.bias, layer.weight, not online",
    "older weights": r"lacks online.encoder.vit.norm.weight and has online.old too much: .* another version",
    "a weight more": r"bad.ckpt has online.old too much",
    "older settings": r"settings that this model does not know \(number_of_things\)",
    "missing": r"there is no checkpoint bad.ckpt",
}


@pytest.mark.parametrize("kind", SPOILT)
@pytest.mark.parametrize("subcommand", ["fit", "validate", "export"])
def test_a_file_that_cannot_be_used_is_one_sentence(
    subcommand: str, kind: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(kind, trained, Path("bad.ckpt"))

    def go() -> None:
        if subcommand == "export":
            main(["export", "--ckpt_path=bad.ckpt", "--output=encoder.safetensors"])
        else:
            run(subcommand, "--ckpt_path=bad.ckpt", "--trainer.max_epochs=2")

    assert re.search(SPOILT[kind], one_sentence(go, capsys))
    assert not Path("encoder.safetensors").exists()


@pytest.mark.parametrize("subcommand", ["test", "predict"])
def test_the_other_subcommands_look_too(subcommand: str, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil("truncated", trained, Path("bad.ckpt"))
    assert "cut off" in one_sentence(lambda: run(subcommand, "--ckpt_path=bad.ckpt"), capsys)


def test_weights_alone_can_be_validated_but_not_gone_on_from(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil("no optimizer", trained, Path("bad.ckpt"))
    assert "holds weights alone" in one_sentence(lambda: run("fit", "--ckpt_path=bad.ckpt"), capsys)
    run("validate", "--ckpt_path=bad.ckpt")


def test_images_of_another_size_are_one_sentence(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = ["--data.image_size=32", "--trainer.max_epochs=2"]
    message = one_sentence(lambda: run("fit", f"--ckpt_path={trained}", *other), capsys)
    assert re.search(r"of a model of other sizes \(\S+ is [\dx ]+ there, [\dx ]+ here\)", message)


def test_an_end_before_the_checkpoint_is_one_sentence(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = torch.load(trained, weights_only=True)
    checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"] = 5
    torch.save(checkpoint, "later.ckpt")
    message = one_sentence(lambda: run("fit", "--ckpt_path=later.ckpt"), capsys)
    assert "has trained 6 epochs already, more than max_epochs 1: give a larger --trainer.max_epochs" in message


def test_an_option_for_other_weights_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = one_sentence(lambda: run("validate", f"--ckpt_path={trained}", "--model.embedding_size=7"), capsys)
    assert "other weights, embedding_size 2 (not 7): leave out --model.embedding_size" in message


def test_an_option_that_the_checkpoint_overrides_is_named(trained: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"decides the model: learning_rate 0.002 \(not 0.5\)\."):
        cli = run("validate", f"--ckpt_path={trained}", "--model.learning_rate=0.5")
    assert cli.model.hparams["learning_rate"] == 0.002


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # there is no logger
def test_a_config_that_the_checkpoint_overrides_is_named(trained: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("model: {embedding_size: 5, ema_start: 0.5, target_scale: [0.15, 0.25], patch_size: 4}\n")
    data = ["--data=jepa_train.data.MixtureDataModule", "--data.num_train=128", "--data.num_probe=32"]
    quick = ["--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    with pytest.warns(
        UserWarning, match=r"decides the model: embedding_size 2 \(not 5\), ema_start 0.98 \(not 0.5\)\."
    ):
        main(["validate", "-c", str(config), *data, *quick, f"--ckpt_path={trained}"])


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # there is no logger
def test_without_options_of_its_own_a_resume_says_nothing(trained: Path) -> None:
    """The checkpoint's model differs from the default config, which nobody chose; warnings are errors here."""
    quick = ["--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    cli = main(["validate", "--data.num_train=128", "--data.num_probe=32", *quick, f"--ckpt_path={trained}"])
    assert cli is not None
    assert cli.model.hparams["projector_hidden"] == 16


def test_settings_that_the_checkpoint_does_not_know_are_named(trained: Path) -> None:
    checkpoint = torch.load(trained, weights_only=True)
    del checkpoint["hyper_parameters"]["flip"]
    torch.save(checkpoint, "older.ckpt")
    with pytest.warns(UserWarning, match=r"written before there was flip: what the command line"):
        run("validate", "--ckpt_path=older.ckpt")


def test_shapes_are_those_of_the_weights_and_no_random_number_is_drawn() -> None:
    arguments = {"encoder_overrides": {"embed_dim": 16, "depth": 1, "num_heads": 2}, "image_size": 16, "patch_size": 4}
    before = torch.get_rng_state()
    shapes = weight_shapes(arguments)
    assert torch.equal(before, torch.get_rng_state())
    assert shapes == {name: tuple(weight.shape) for name, weight in JEPA(**arguments).state_dict().items()}


# last


def place(trained: Path, path: str, modified: int) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(trained, target)
    os.utime(target, (modified, modified))
    return target


def test_last_is_the_newest_of_all_runs_and_versions(trained: Path) -> None:
    place(trained, "runs/version_9/checkpoints/last.ckpt", 1_000)
    place(trained, "runs/version_10/checkpoints/last.ckpt", 2_000)
    newest = place(trained, "runs/version_10/checkpoints/last-v1.ckpt", 3_000)
    place(trained, "runs/version_10/checkpoints/lasting.ckpt", 4_000)
    assert newest_checkpoint(Path("runs")) == newest
    sharded = Path("runs/version_11/checkpoints/last.ckpt")
    sharded.mkdir(parents=True)
    (sharded / "meta.pt").touch()
    assert newest_checkpoint(Path("runs")) == sharded


def test_last_passes_over_what_is_not_whole_and_says_so(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = place(trained, "runs/mixture/version_0/checkpoints/last.ckpt", 1_000)
    cut_off = place(trained, "runs/mixture/version_1/checkpoints/last.ckpt", 2_000)
    cut_off.write_bytes(cut_off.read_bytes()[:-100])
    Path("runs/mixture/version_2/checkpoints/last.ckpt").mkdir(parents=True)  # sharded, killed before its end
    with pytest.warns(
        UserWarning, match=r"version_1/checkpoints/last.ckpt is not a whole .*older one is used: .*version_0"
    ):
        assert newest_checkpoint(Path("runs/mixture")) == whole
    whole.unlink()
    assert "no checkpoint below runs can be gone on from" in one_sentence(
        lambda: run("fit", "--ckpt_path=last"), capsys
    )


DAMAGED = {
    "nothing on the stack": (b"\x80\x02.", IndexError),
    "a memo that is not there": (b"\x80\x02h\x07.", KeyError),
    "a call without arguments": (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", TypeError),
    "a tensor of an integer": (b"\x80\x02K\x01Q.", AssertionError),
    "a number cut off": (b"\x80\x02M\x01", struct.error),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_within_the_file_is_the_same_sentence(kind: str, trained: Path) -> None:
    steps, error = DAMAGED[kind]
    with zipfile.ZipFile(trained) as whole, zipfile.ZipFile("bad.ckpt", "w") as damaged:
        for name in whole.namelist():
            damaged.writestr(name, steps if name.endswith("/data.pkl") else whole.read(name))
    with pytest.raises(error):
        torch.load("bad.ckpt", weights_only=True, mmap=True)
    with pytest.raises(ConfigurationError, match=r"^bad.ckpt is not a whole checkpoint \(it is cut off, damaged, or"):
        read_checkpoint(Path("bad.ckpt"))


def test_a_single_bit_is_noticed_wherever_it_lies(trained: Path) -> None:
    """Bits of what is kept; those of an archive's directory that change nothing of it may differ."""
    content = bytearray(trained.read_bytes())
    with zipfile.ZipFile(trained) as whole:
        records = [record for record in whole.infolist() if record.file_size]
    draw = random.Random(0)
    for _ in range(100):
        record = draw.choice(records)
        # behind its name and padding, whose lengths stand at 26 and 28 of its header
        name, padding = struct.unpack_from("<HH", content, record.header_offset + 26)
        place = record.header_offset + 30 + name + padding + draw.randrange(record.file_size)
        bit = 1 << draw.randrange(8)
        content[place] ^= bit
        Path("bad.ckpt").write_bytes(content)
        content[place] ^= bit
        with pytest.raises(
            ConfigurationError, match=r"^bad.ckpt is not a whole checkpoint \(it is cut off, damaged, or"
        ):
            read_checkpoint(Path("bad.ckpt"))


def test_damage_anywhere_is_the_sentence_or_changes_nothing(trained: Path) -> None:
    """Headers and directory too, of which some bits mean nothing."""
    content = bytearray(trained.read_bytes())
    good = read_checkpoint(trained)["state_dict"]
    draw = random.Random(0)
    directory = len(content) - 8_000
    for place in [draw.randrange(directory, len(content)) for _ in range(60)]:
        content[place] ^= 1 << (place % 8)
        Path("bad.ckpt").write_bytes(content)
        content[place] ^= 1 << (place % 8)
        try:
            read = read_checkpoint(Path("bad.ckpt"))["state_dict"]
        except ConfigurationError as error:
            assert "is not a whole checkpoint" in str(error)  # noqa: PT017
        else:
            assert all(torch.equal(weight, read[name]) for name, weight in good.items())


def test_a_record_that_claims_to_be_compressed_is_the_same_sentence(trained: Path) -> None:
    """One bit of the archive's directory."""
    content = bytearray(trained.read_bytes())
    with zipfile.ZipFile(trained) as whole:
        directory = whole.start_dir
    content[directory + 10] ^= 8  # the method of the first record: stored becomes deflated
    Path("bad.ckpt").write_bytes(content)
    with pytest.raises(ConfigurationError, match="is not a whole checkpoint"):
        read_checkpoint(Path("bad.ckpt"))


def test_lightning_reads_with_the_same_checks(trained: Path) -> None:
    content = bytearray(trained.read_bytes())
    content[len(content) // 2] ^= 1
    Path("bad.ckpt").write_bytes(content)
    io = AtomicCheckpointIO()
    with pytest.raises(ConfigurationError, match=r"bad.ckpt is not a whole checkpoint"):
        io.load_checkpoint(Path("bad.ckpt"))
    with pytest.raises(ConfigurationError, match="there is no checkpoint"):
        io.load_checkpoint(Path("missing.ckpt"))
    loaded = io.load_checkpoint(f"file://{trained}")
    trained_weights = torch.load(trained, weights_only=True)["state_dict"]
    assert all(torch.equal(weight, loaded["state_dict"][name]) for name, weight in trained_weights.items())


class Hostile:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed").absolute(),)


PLACES: dict[str, Callable[[dict[str, Any]], None]] = {
    "beside": lambda checkpoint: checkpoint.update(extra=Hostile()),
    "a weight": lambda checkpoint: checkpoint["state_dict"].update(weight=Hostile()),
    "a setting": lambda checkpoint: checkpoint["hyper_parameters"].update(flip=Hostile()),
    "a callback": lambda checkpoint: checkpoint["callbacks"].update(ModelCheckpoint=Hostile()),
    "optimizer": lambda checkpoint: checkpoint["optimizer_states"].append(Hostile()),
}


def hostile(place: str, trained: Path, path: Path) -> None:
    checkpoint = torch.load(trained, weights_only=True)
    PLACES[place](checkpoint)
    torch.save(checkpoint, path)


@pytest.mark.parametrize("place", PLACES)
def test_a_hostile_checkpoint_does_execute_where_it_is_unpickled(place: str, trained: Path) -> None:
    """The payloads that the other tests show to be refused are real."""
    hostile(place, trained, Path("bad.ckpt"))
    torch.load("bad.ckpt", weights_only=False)
    assert Path("executed").exists()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("reader", ["fit", "validate", "test", "predict", "export", "last", "module", "plugin"])
def test_no_reader_of_checkpoints_executes_them(
    reader: str, place: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("runs/mixture/version_0/checkpoints/last.ckpt")
    path.parent.mkdir(parents=True)
    hostile(place, trained, path)
    if reader == "module":
        with pytest.raises(pickle.UnpicklingError):
            JEPA.load_from_checkpoint(path)
    elif reader == "plugin":
        with pytest.raises(ConfigurationError, match="could run code"):
            AtomicCheckpointIO().load_checkpoint(path, weights_only=False)
    else:
        readers: dict[str, Callable[[], Any]] = {
            "export": lambda: main(["export", f"--ckpt_path={path}", "--output=encoder.safetensors"]),
            "last": lambda: run("fit", "--ckpt_path=last", "--weights_only=false"),
        }
        subcommand = lambda: run(reader, f"--ckpt_path={path}", "--weights_only=false")  # noqa: E731
        assert "could run code" in one_sentence(readers.get(reader, subcommand), capsys)
    assert not Path("executed").exists()


def test_addresses_are_read_as_safely(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile("beside", trained, Path("bad.ckpt"))
    with get_filesystem("memory://runs").open("memory://runs/bad.ckpt", "wb") as file:
        file.write(Path("bad.ckpt").read_bytes())
    for address in ("memory://runs/bad.ckpt", f"file://{Path('bad.ckpt').absolute()}"):
        for subcommand in ("fit", "validate"):
            arguments = [f"--ckpt_path={address}", "--weights_only=false"]
            assert "could run code" in one_sentence(lambda: run(subcommand, *arguments), capsys)  # noqa: B023
    assert not Path("executed").exists()


def test_a_tensor_of_the_wrong_kind_is_the_same_sentence(trained: Path) -> None:
    """A type that became another by damage: AttributeError."""
    with zipfile.ZipFile(trained) as whole, zipfile.ZipFile("bad.ckpt", "w") as damaged:
        for name in whole.namelist():
            content = whole.read(name)
            damaged.writestr(name, content.replace(b"ctorch\nFloatStorage\n", b"X\x03\x00\x00\x00abc"))
    with pytest.raises(AttributeError):
        torch.load("bad.ckpt", weights_only=True, mmap=True)
    with pytest.raises(ConfigurationError, match="is not a whole checkpoint"):
        read_checkpoint(Path("bad.ckpt"))


def test_reading_is_the_one_way_in(trained: Path) -> None:
    assert read_checkpoint(trained)["global_step"] == 2
    with pytest.raises(ConfigurationError, match="there is no checkpoint"):
        read_checkpoint(trained.parent)
