"""The start of a command: a checkpoint suffices to use or resume a run, and one line says what is used."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jepa_train.cli import CONFIGS, main
from jepa_train.commands.start import find_start
from tests.train.commands.helpers import MIXTURE, QUIET, SUBCOMMANDS, command, last_of, make_run
from tests.train.data.helpers import write_idx
from tests.train.helpers import one_sentence

pytestmark = [
    pytest.mark.usefixtures("own_folder"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),  # validate has a folder of its own, or none
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),  # a resumed run's
    pytest.mark.filterwarnings("ignore:The number of training batches"),  # is small here
    pytest.mark.filterwarnings("ignore:Model settings come from the checkpoint"),  # what -c repeats of it
]


def test_a_group_that_is_none_is_said_before_a_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = one_sentence(lambda: main(["fit", "-c", "{model: 3}", f"--ckpt_path={last_of(run)}"]), capsys)
    assert "model must be a group of settings" in message


# a checkpoint suffices


def write_folder(folder: Path) -> list[str]:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 48, 3), dtype=np.uint8)
    folder.mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index}.png")
    sizes = ["--data.image_size=48", "--data.batch_size=16", "--data.num_workers=0", "--data.probe_share=0.2"]
    return [f"--data.root={folder}", *sizes]


def write_fashion(folder: Path) -> list[str]:
    folder.mkdir()
    write_idx(folder)
    return [f"--data.root={folder}"]


OTHER_RUNS: dict[str, Callable[[Path], list[str]]] = {
    "digits": lambda folder: ["--trainer.limit_train_batches=2"],
    "image_folder": write_folder,
    "fashion_mnist": write_fashion,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_RUNS)
def test_a_checkpoint_of_any_run_is_enough(name: str, own_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    arguments = OTHER_RUNS[name](own_folder / "images")
    folder = make_run("-c", str(CONFIGS / f"{name}.yaml"), *arguments)
    for subcommand in SUBCOMMANDS[1:]:
        cli = command(subcommand, f"--ckpt_path={last_of(folder)}", "--trainer.fast_dev_run=true")
        assert type(cli.datamodule).__name__ in (CONFIGS / f"{name}.yaml").read_text()
    assert f"with the settings of {folder}/config.yaml, changed by" in caplog.text


def test_an_overlay_needs_not_be_given_again(own_folder: Path) -> None:
    folder = make_run("-c", str(CONFIGS / "objective" / "vicreg.yaml"), *MIXTURE, "--model.token_weight=0.5")
    cli = command("validate", f"--ckpt_path={last_of(folder)}")
    assert (cli.model.hparams["anticollapse"], cli.model.hparams["token_weight"]) == ("vicreg", 0.5)


@pytest.mark.slow
def test_what_is_given_lies_on_top(run: Path) -> None:
    Path("mine.yaml").write_text("data: {class_path: MixtureDataModule, init_args: {num_probe: 48}}\n")
    checkpoint = f"--ckpt_path={last_of(run)}"
    assert command("validate", checkpoint, "--data.num_probe=40").datamodule.num_probe == 40
    cli = command("validate", "-c", "mine.yaml", checkpoint)
    assert (cli.datamodule.num_probe, cli.datamodule.image_size) == (48, 24)


def test_a_config_of_other_data_stands_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = one_sentence(
        lambda: main(["validate", "-c", str(CONFIGS / "digits.yaml"), *QUIET, f"--ckpt_path={last_of(run)}"]), capsys
    )
    assert "does not fit the model" in message


def test_a_moved_checkpoint_is_used_with_the_default_and_says_so(
    run: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(last_of(run), "moved.ckpt")
    Path("config.yaml").write_text("services: {}\n")  # of something else
    assert "does not fit the model" in one_sentence(lambda: main(["validate", "--ckpt_path=moved.ckpt"]), capsys)
    command("validate", "--ckpt_path=moved.ckpt", *QUIET, *MIXTURE, "--data.image_size=24")
    said = r"moved.ckpt of step 2, with the settings of \S+mixture.yaml, because there is no config of its run"
    assert re.search(said, caplog.text)


@pytest.mark.parametrize("subcommand", ["predict", "fit"])
def test_the_default_data_do_not_take_the_place_of_those_of_a_moved_checkpoint(
    run: Path, subcommand: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = torch.load(last_of(run), weights_only=True)
    checkpoint["ShapesDataModule"] = checkpoint.pop("MixtureDataModule")
    torch.save(checkpoint, "moved.ckpt")
    arguments = [subcommand, "--ckpt_path=moved.ckpt", *QUIET]
    message = one_sentence(lambda: main(arguments), capsys)
    assert "was trained on ShapesDataModule, but the config of its run is missing" in message
    assert "give -c CONFIG, or --data ShapesDataModule" in message
    chosen = one_sentence(lambda: main([*arguments, "--data=MixtureDataModule"]), capsys)
    assert "was trained on" not in chosen


# last


@pytest.mark.slow
def test_last_is_the_newest_of_all_unless_something_says_which(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    newer = Path("runs/other/version_3")
    shutil.copytree(run, newer)
    os.utime(last_of(run), ns=(1_000, 1_000))
    for arguments, expected in {
        (): newer,
        ("--trainer.logger.name=mixture",): run,
        ("-c", str(CONFIGS / "mixture.yaml")): run,
    }.items():
        command(
            "validate", *arguments, *QUIET, "--data.image_size=24", "--trainer.fast_dev_run=true", "--ckpt_path=last"
        )
        assert f"Validating {last_of(expected)} of step 2, with the settings of" in caplog.text
        caplog.clear()


@pytest.mark.slow
def test_last_goes_on_with_the_runs_own_config_in_its_folder(own_folder: Path) -> None:
    folder = make_run("-c", str(CONFIGS / "image_folder.yaml"), *write_folder(own_folder / "images"))
    cli = command("fit", "--ckpt_path=last", "--trainer.max_epochs=2")
    assert Path(cli.trainer.log_dir) == folder
    assert cli.datamodule.root == own_folder / "images"
    assert cli.trainer.current_epoch == 2


def test_last_finds_a_run_that_was_moved(run: Path) -> None:
    Path("elsewhere").mkdir()
    shutil.move("runs", "elsewhere/old")
    cli = command("fit", "--ckpt_path=last", "--trainer.logger.save_dir=elsewhere/old", "--trainer.max_epochs=2")
    assert Path(cli.trainer.log_dir) == Path("elsewhere/old/mixture/version_0")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["--trainer.max_epochs=-1", "--trainer.max_steps=2"]], ids=["epochs", "steps"]
)
def test_a_finished_run_says_so_and_is_left_alone(
    arguments: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in Path("runs").rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--ckpt_path=last", *arguments])
    assert ended.value.code == 0
    limit, number = ("max_steps", "2 of 2 steps") if arguments else ("max_epochs", "1 of 1 epochs")
    finished = f"The run of {last_of(run)} is finished, with {number}: "
    assert capsys.readouterr().err.endswith(f"{finished}to make it longer, give a larger --trainer.{limit}.\n")
    assert sorted((path, path.stat().st_mtime_ns) for path in Path("runs").rglob("*")) == before


def test_both_limits_that_are_reached_are_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Raising one of them alone would lead to the other."""
    with pytest.raises(SystemExit):
        main(["fit", "--ckpt_path=last", "--trainer.max_steps=2"])
    said = capsys.readouterr().err
    assert (
        "is finished, with 1 of 1 epochs and 2 of 2 steps: to make it longer, give larger --trainer.max_epochs " in said
    )
    assert said.endswith("and --trainer.max_steps.\n")


@pytest.mark.slow
def test_less_than_was_trained_is_one_sentence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("fit", "--ckpt_path=last", "--trainer.max_epochs=3")
    message = one_sentence(lambda: main(["fit", "--ckpt_path=last", "--trainer.max_epochs=2"]), capsys)
    assert "last.ckpt has trained 3 epochs already, more than max_epochs 2" in message


# a run is named by its overlays


@pytest.mark.slow
def test_a_run_with_overlays_has_a_folder_of_their_names_and_last_finds_it() -> None:
    vicreg = str(CONFIGS / "objective" / "vicreg.yaml")
    Path("short.yaml").write_text("trainer: {log_every_n_steps: 1}")
    folder = make_run("-c", vicreg, *MIXTURE, "--config=short.yaml")
    assert folder == Path("runs/mixture/vicreg-short/version_0")
    resumed = command("fit", "--ckpt_path=last", "--trainer.max_epochs=2", *QUIET)
    assert Path(resumed.trainer.log_dir) == folder
    assert resumed.trainer.global_step == 4
    again = command("fit", "-c", str(folder / "config.yaml"), *QUIET)
    assert Path(again.trainer.log_dir) == folder.with_name("version_1")


@pytest.mark.parametrize(
    ("arguments", "overlays"),
    [
        (["-c", "first.yaml", "-c", "second.yaml"], ("first", "second")),
        (["-c", "whole.yaml", "-c", "second.yaml"], ("second",)),
        (["-c", "whole.yaml"], ()),
        (["-c", "{model: {noise: 0.1}}"], ()),
        (["-c", "first.yaml", "--trainer.logger.init_args.name=mine"], ()),
        (["-c", "first.yaml", "-c", "named.yaml"], ()),
    ],
)
def test_overlays_name_a_run_unless_the_user_does(arguments: list[str], overlays: tuple[str, ...]) -> None:
    for name in ("first", "second"):
        Path(f"{name}.yaml").write_text("model: {noise: 0.1}")
    Path("whole.yaml").write_text("data: {class_path: jepa_train.data.MixtureDataModule}")
    Path("named.yaml").write_text("trainer: {logger: {class_path: x, init_args: {name: mine}}}")
    assert find_start(["fit", *arguments], CONFIGS / "mixture.yaml").overlays == overlays
