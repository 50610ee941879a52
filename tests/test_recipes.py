"""The variants of recipes and objectives: what they ask for exists, and a finished run is read again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import objectives
import pytest
import recipes

from jepa_train.cli import CONFIGS, main


@pytest.mark.parametrize(
    ("config", "name"), [(config, name) for config, variants in recipes.VARIANTS.items() for name in variants]
)
def test_each_variant_is_understood(config: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "-c", str(CONFIGS / f"{config}.yaml"), *shlex.split(recipes.VARIANTS[config][name])]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--print_config"])
    assert ended.value.code == 0, capsys.readouterr().err


def test_a_finished_run_is_read_again(tmp_path: Path) -> None:
    ended = recipes.Run({"knn/accuracy": 0.5}, 1.0, 2.0, 3.0)
    folder = tmp_path / "digits" / "patch_2" / "7_epochs"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(recipes.asdict(ended)))
    assert recipes.run("digits", "patch 2", 7, tmp_path) == ended


def test_pieces_are_cut_once_where_no_folder_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def write(folder: Path, *, seed: int) -> None:
        folder.mkdir()
        written.append(folder)

    monkeypatch.setattr(recipes.photographs, "write", write)
    options = [recipes.data_options("image_folder", None, tmp_path) for _ in range(2)]
    assert options == [[f"--data.root={tmp_path / 'photographs'}"]] * 2
    assert len(written) == 1
    assert recipes.data_options("image_folder", tmp_path / "own", tmp_path) == [f"--data.root={tmp_path / 'own'}"]
    assert recipes.data_options("digits", None, tmp_path) == []


@pytest.mark.parametrize("name", objectives.VARIANTS)
def test_each_objective_has_its_configs_and_a_folder_of_its_own(name: str) -> None:
    assert all((CONFIGS / f"{config}.yaml").is_file() for config in objectives.VARIANTS[name])
    assert [objectives.slug(other) for other in objectives.VARIANTS].count(objectives.slug(name)) == 1
