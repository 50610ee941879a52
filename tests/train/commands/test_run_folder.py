"""The folder of a run: its record is written once, and a run without a batch leaves none."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from jepa_train.cli import CONFIGS, main
from jepa_train.module import JEPA
from tests.train.commands.helpers import MIXTURE, QUICK, QUIET, SUBCOMMANDS, command, last_of, versions

pytestmark = [
    pytest.mark.usefixtures("own_folder"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),  # validate has a folder of its own, or none
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),  # a resumed run's
    pytest.mark.filterwarnings("ignore:The number of training batches"),  # is small here
    pytest.mark.filterwarnings("ignore:Model settings come from the checkpoint"),  # what -c repeats of it
]


def records(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.yaml") if path.name != "hparams.yaml")


def test_the_record_has_what_makes_the_run_and_nothing_of_one_call(run: Path) -> None:
    record = yaml.safe_load((run / "config.yaml").read_text())
    assert set(record) == {"seed_everything", "trainer", "monitor", "model", "data"}
    assert record["trainer"]["logger"]["init_args"]["version"] is None
    assert record["data"]["init_args"]["contrast"] == 0.3


@pytest.mark.slow
@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_nothing_overwrites_it_and_it_works_for_every_subcommand(subcommand: str, run: Path) -> None:
    before = (run / "config.yaml").read_bytes()
    into_the_same = ["--trainer.logger.version=version_0"] if subcommand != "predict" else []
    command(subcommand, f"--ckpt_path={last_of(run)}", *into_the_same, "--trainer.max_epochs=2")
    assert (run / "config.yaml").read_bytes() == before
    beside = [f"config_{subcommand}_1.yaml"] if into_the_same else []
    assert records(run) == sorted(["config.yaml", *beside])
    for record in [*beside, "config.yaml"]:
        command("fit", "-c", str(run / record), "--trainer.max_epochs=1")
    assert versions() == [f"version_{number}" for number in range(1 + len(records(run)))]
    command(subcommand, "-c", str(run / "config.yaml"), "--trainer.fast_dev_run=true")


@pytest.mark.slow
def test_a_resume_writes_its_settings_once_and_the_next_takes_them_up(run: Path) -> None:
    shutil.copy(last_of(run), "killed.ckpt")
    command("fit", "--ckpt_path=last", "--trainer.max_epochs=2")
    assert records(run) == ["config.yaml", "config_fit_1.yaml"]
    shutil.copy("killed.ckpt", last_of(run))
    cli = command("fit", "--ckpt_path=last")
    assert (cli.trainer.max_epochs, cli.trainer.global_step) == (2, 4)
    assert records(run) == ["config.yaml", "config_fit_1.yaml"]
    assert versions() == ["version_0"]


@pytest.mark.slow
def test_the_record_holds_defaults_that_yaml_cannot(own_folder: Path) -> None:
    timer = ["--trainer.callbacks=Timer", "--trainer.callbacks.duration=00:00:01:00", "--trainer.max_steps=1"]
    cli = command("fit", *QUIET, *timer, *MIXTURE)
    record = Path(cli.trainer.log_dir) / "config.yaml"
    assert yaml.safe_load(record.read_text())["trainer"]["callbacks"][0]["init_args"]["interval"] == "step"
    command("fit", "-c", str(record), "--trainer.fast_dev_run=true")


@pytest.mark.slow
def test_runs_without_a_logger_share_a_folder_and_leave_no_record(
    own_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quick = [*QUIET, "--trainer.logger=false", "--trainer.max_steps=1"]
    command("fit", *quick, *MIXTURE)
    command("fit", "-c", str(CONFIGS / "digits.yaml"), *quick, "--trainer.callbacks=null")
    assert records(own_folder) == []
    command("validate", "--ckpt_path=checkpoints/last.ckpt", "--trainer.logger=false", *QUIET, *MIXTURE)
    assert "because there is no config of its run beside it" in caplog.text


def test_predict_writes_embeddings_and_scores_and_no_other_folder(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    command("predict", f"--ckpt_path={last_of(run)}")
    assert "Embedding the images that MixtureDataModule has for predict; to embed others: python train.py rank" in (
        caplog.text
    )
    assert "Embeddings and scores are in predictions/version_0/ranking.parquet" in caplog.text
    assert versions() == ["version_0"]
    assert {path.name for path in Path().iterdir()} == {"runs", "predictions"}
    table = pq.read_table("predictions/version_0/ranking.parquet")
    assert table["log_density"].null_count == 0


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
