"""The subcommand ``rank``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.csv as csv
import pytest

from jepa_train.cli import main
from tests.train.helpers import one_sentence
from tests.train.ranking.tiny import pictures

HERE = ["--data.num_workers=0", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


def test_a_checkpoint_ranks_a_folder(measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = pictures(tmp_path / "photos", 20)
    main(["rank", str(images), f"--encoder={measured}", f"--output={tmp_path / 'ranked.csv'}", *HERE])
    assert "20 images" in capsys.readouterr().out
    table = csv.read_csv(tmp_path / "ranked.csv")
    assert table.column_names[0] == "filename"
    assert "class" not in table.column_names
    assert table["log_density"].null_count == 0


def test_each_call_ends_with_what_it_wrote_and_warns(
    measured: Path, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(own_folder / "photos", 20)
    made = ["rank", "photos", f"--encoder={measured}", "--data.part_size=8", *HERE]

    def last_lines(*arguments: str) -> list[str]:
        main(list(arguments))
        return capsys.readouterr().out.splitlines()[-3:]

    reference = ["--reference=shared/reference.pt"]
    assert last_lines(*made, "--stage=reference", "--output=shared")[-1] == (
        "Wrote shared/reference.pt: rank with it as --reference."
    )
    assert last_lines(*made, *reference, "--shard=1/2", "--output=one")[-1] == (
        "Wrote shard 1/2 to one: 12 of 20 images; rank merge makes one table of all 2."
    )
    last_lines(*made, *reference, "--shard=2/2", "--output=two")
    merged = last_lines("rank", "merge", "one", "two", "--output=merged.csv")
    assert merged[-1] == "Wrote merged.csv: 20 images. The page to open is merged/index.html."
    warnings = json.loads(Path("merged/summary.json").read_text())["warnings"]
    assert merged[-2] == f"warning: {warnings[-1]}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "more is needed: give --encoder"),
        (["photos", "--encodr=x"], "there is no option --encodr \\(is --encoder meant"),
        (["nowhere", "--encoder=test_vit"], "there is no folder nowhere"),
        (["--encoder=test_vit"], "there is nothing to rank"),
        (["photos", "--encoder=test_vit", "--budget=soon"], "--budget must be a time"),
        (["photos", "--encoder=test_vit", "--scores=log_densty"], "is log_density meant"),
        (["photos", "--encoder=test_vit", "--shard=2/3"], "--stage reference"),
        (["photos", "--encoder=test_vit", "--reference=nowhere"], "there is no --reference nowhere"),
        (
            ["photos", "--encoder=test_vit", "--scores=jepa_score", "--estimator=subspace"],
            "jepa_score needs all singular values",
        ),
        (["photos", "--encoder=test_vit", "--shard=4/3"], "--shard must be I/N"),
        (["photos", "--encoder=test_vit", "--data.batch_size=0"], "--data.batch_size must be 1 or more"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], message: str, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:

    pictures(own_folder / "photos", 3)
    assert re.search(message, one_sentence(lambda: main(["rank", *arguments, *HERE]), capsys))
    assert not (own_folder / "ranked").exists()


def test_help_names_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["rank", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--encoder", "--budget", "--data.list", "--trainer.devices"))
