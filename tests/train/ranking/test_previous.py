"""A ranking that is replaced is there, whole, until the new one has its scores; killed or refused at any moment."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from torch import Tensor, nn

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.replacing import begin_ranking
from jepa_train.ranking.workspace import EMBEDDINGS, Workspace, abandoned_where_refused
from tests.train.ranking.tiny import encoder_of, pictures, rank_quietly, tiny_encoder

OLD, NEW = ({"format": 1, "encoder": encoder} for encoder in ("old", "new"))
STEPS = ((Path, "rename"), (Path, "unlink"), (Path, "rmdir"), (os, "replace"), (shutil, "rmtree"))


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def begin(folder: Path, manifest: dict[str, Any], *, overwrite: bool = False) -> Workspace:
    """Begin a ranking, or go on with it."""
    return begin_ranking(folder / "ranking.parquet", folder, manifest, overwrite=overwrite)


def compute(workspace: Workspace, *, refused: bool) -> None:
    """A ranking that is refused at its end or not."""
    with abandoned_where_refused(workspace):
        for number in (0, 1):
            workspace.write(EMBEDDINGS, number, pa.table({"of": ["new"]}))
        if refused:
            raise ConfigurationError("too few images")


@pytest.mark.parametrize("refused", [True, False])
@pytest.mark.parametrize("steps", [*range(16), 99])
def test_a_kill_between_any_two_steps_leaves_one_of_the_two_whole(
    tmp_path: Path, steps: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, taken = tmp_path / "ranked", 0
    begin(folder, OLD).write(EMBEDDINGS, 0, pa.table({"of": ["old"]}))
    with zipfile.ZipFile(folder / "reference.pt", "w") as file:
        file.writestr("of", "old")
    before = contents(folder)

    def until_killed(step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal taken
            taken += 1
            if taken > steps:
                raise KeyboardInterrupt
            return step(*arguments, **named)

        return counted

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt, ConfigurationError):
        for owner, name in STEPS:
            patch.setattr(owner, name, until_killed(getattr(owner, name)))
        compute(begin(folder, NEW, overwrite=True), refused=refused)

    manifest = folder / "manifest.json"
    begun = manifest.is_file() and json.loads(manifest.read_text())["encoder"] == "new"
    workspace = begin(folder, NEW if begun else OLD)  # a call for the one that is there goes on with it
    of = "new" if begun else "old"
    assert all(workspace.read(EMBEDDINGS, number)["of"].to_pylist() == [of] for number in workspace.numbers(EMBEDDINGS))
    if begun:
        with suppress(ConfigurationError):
            compute(workspace, refused=refused)
    assert (contents(folder) == before) is (refused or not begun)
    assert not [path for path in folder.iterdir() if path.name.startswith(".") and path.is_dir()]


def test_the_earlier_command_goes_on_with_its_ranking_while_the_new_one_is_not_done(tmp_path: Path) -> None:
    begin(tmp_path / "ranked", OLD).write(EMBEDDINGS, 0, pa.table({"of": ["old"]}))
    before = contents(tmp_path / "ranked")
    begin(tmp_path / "ranked", NEW, overwrite=True).write(EMBEDDINGS, 0, pa.table({"of": ["new"]}))
    with pytest.raises(ConfigurationError, match="was begun with another encoder"):
        begin(tmp_path / "ranked", {**NEW, "encoder": "third"})
    begin(tmp_path / "ranked", OLD)
    assert contents(tmp_path / "ranked") == before


class Odd(nn.Module):
    """Embeds a plain picture, and fails on others."""

    def forward(self, x: Tensor) -> Tensor:
        """Embed."""
        if (x != x[0, :, :1, :1]).any():
            raise IndexError("a bug of the user's")
        return x.flatten(1)[:, :4]


def test_a_refused_call_leaves_what_it_would_replace(tmp_path: Path) -> None:
    photos, output = pictures(tmp_path / "photos", 20), tmp_path / "ranked"
    unreadable, empty = pictures(tmp_path / "unreadable", 1), tmp_path / "empty"
    (unreadable / "broken.png").write_bytes(b"not a picture")
    empty.mkdir()
    first = rank_quietly(photos, output, page=True)
    rank_quietly(photos, tmp_path / "exact", stage="reference", estimator="exact")
    before = contents(output)
    refused: dict[str, dict[str, Any]] = {
        "holds no images": {"images": empty},
        "only 1 of 2 images": {"images": unreadable},
        "has 1 image, and needs at least 2": {"reference": pictures(tmp_path / "one", 1)},
        "give a folder with more": {"reference": unreadable},
        "no timm model 'no_such_encoder'": {"encoder": "no_such_encoder"},
        "estimator subspace needs more": {"images": pictures(tmp_path / "few", 3), "estimator": "subspace"},
        "was made for exact volumes": {"reference": tmp_path / "exact", "estimator": "subspace"},
        "a bug of the user's": {"encoder": encoder_of(Odd()), "scores": "mahalanobis"},
    }
    for message, settings in refused.items():
        with pytest.raises((ConfigurationError, IndexError), match=message):
            rank_quietly(**{"images": photos, "output": output, "overwrite": True, **settings})
        assert contents(output) == before, message
    assert rank_quietly(photos, output).equals(first)
    assert contents(output) == before | {"summary.json": (output / "summary.json").read_bytes()}  # its seconds


def test_what_is_replaced_is_gone_when_the_new_ranking_has_its_table(tmp_path: Path) -> None:
    photos, output = pictures(tmp_path / "photos", 20), tmp_path / "ranked"
    rank_quietly(photos, output)
    rank_quietly(photos, output, encoder=tiny_encoder(6), overwrite=True)
    rank_quietly(photos, tmp_path / "once", encoder=tiny_encoder(6))
    assert contents(output).keys() == contents(tmp_path / "once").keys()
