"""Checkpoints: never half written, and one clear sentence for every file that cannot be resumed from."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from torch import nn

from jepa_train.checkpoints.files import (
    ABANDONED_AFTER,
    AtomicCheckpointIO,
    newest_checkpoint,
    read_checkpoint,
    written_whole,
)
from jepa_train.cli import main
from jepa_train.errors import ConfigurationError
from tests.processes import run_python
from tests.train.checkpoints.helpers import run
from tests.train.helpers import one_sentence, saved_by

pytestmark = pytest.mark.usefixtures("own_folder")


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
def writes():
    return any(file.stat().st_size < path.stat().st_size for file in path.parent.glob(".*.partial"))
for turn in range(10):
    child = os.fork()
    if child == 0:
        while True:
            AtomicCheckpointIO().save_checkpoint(big, path)
    if turn % 2:
        time.sleep(draw.uniform(0.005, 0.05))  # any moment; on a busy machine perhaps before the child begins
    else:
        until = time.monotonic() + 30.0
        while time.monotonic() < until:
            try:
                if writes():
                    break
            except FileNotFoundError:  # it was renamed between the two looks
                pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert torch.equal(read_checkpoint(path)["state_dict"]["weight"], big["state_dict"]["weight"])
    leftovers = list(path.parent.glob(".*.partial"))
    killed_in_mid_write += any(leftover.stat().st_size < path.stat().st_size for leftover in leftovers)
    for leftover in leftovers:
        leftover.unlink()
print(killed_in_mid_write)
"""
    folder = tmp_path / "saved"
    folder.mkdir()
    (tmp_path / "script.py").write_text(script)
    finished = run_python(tmp_path / "script.py", folder, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert int(finished.stdout) > 0
    assert [path.name for path in folder.iterdir()] == ["last.ckpt"]


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
    "older weights": r"lacks online.encoder.vit.norm.weight and has online.old, which .*: .* another version",
    "a weight more": r"bad.ckpt has online.old, which this model lacks",
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
        UserWarning, match=r"version_1/checkpoints/last.ckpt is not a whole .*Using an older one: .*version_0"
    ):
        assert newest_checkpoint(Path("runs/mixture")) == whole
    whole.unlink()
    assert "no checkpoint below runs can be resumed from" in one_sentence(
        lambda: run("fit", "--ckpt_path=last"), capsys
    )


def test_reading_is_the_one_way_in(trained: Path) -> None:
    assert read_checkpoint(trained)["global_step"] == 2
    with pytest.raises(ConfigurationError, match="there is no checkpoint"):
        read_checkpoint(trained.parent / "other.ckpt")
    with pytest.raises(ConfigurationError, match="is a folder, and no checkpoint"):
        read_checkpoint(trained.parent)


def test_what_torch_buries_is_found(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match=r"File too large: .*big\.ckpt"), written_whole(tmp_path / "big.ckpt") as file:
            torch.save(torch.zeros(100_000), file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
