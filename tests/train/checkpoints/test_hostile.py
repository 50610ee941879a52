"""Checkpoints that would run code are refused by every reader."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.cloud_io import get_filesystem

from jepa_train.checkpoints.files import (
    AtomicCheckpointIO,
)
from jepa_train.cli import main
from jepa_train.errors import ConfigurationError
from jepa_train.module import JEPA
from tests.train.checkpoints.helpers import run
from tests.train.helpers import one_sentence

pytestmark = pytest.mark.usefixtures("own_folder")


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
        subcommand = partial(run, reader, f"--ckpt_path={path}", "--weights_only=false")
        assert "could run code" in one_sentence(readers.get(reader, subcommand), capsys)
    assert not Path("executed").exists()


@pytest.mark.slow
def test_addresses_are_read_as_safely(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile("beside", trained, Path("bad.ckpt"))
    with get_filesystem("memory://runs").open("memory://runs/bad.ckpt", "wb") as file:
        file.write(Path("bad.ckpt").read_bytes())
    for address in ("memory://runs/bad.ckpt", f"file://{Path('bad.ckpt').absolute()}"):
        for subcommand in ("fit", "validate"):
            arguments = [f"--ckpt_path={address}", "--weights_only=false"]
            assert "could run code" in one_sentence(partial(run, subcommand, *arguments), capsys)
    assert not Path("executed").exists()
