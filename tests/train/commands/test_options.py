"""The option --monitor: its settings work from the command line, from configs and overlays, and from a saved config."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import yaml
from jsonargparse import Namespace
from lightning.pytorch.callbacks import EarlyStopping

import jepa_monitor
import jepa_train.data
from jepa_monitor import JEPAScoreMonitor, OnlineKNN
from jepa_train import JEPA
from jepa_train.cli import JEPACLI, main
from jepa_train.commands.options import callbacks_with_monitor
from jepa_train.commands.parsing import Parser
from jepa_train.export import export
from jepa_train.ranking import RankingWriter, merge, rank
from tests.train.helpers import one_sentence

TINY = [
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.max_epochs=1",
    "--trainer.log_every_n_steps=1",
    "--data.num_train=64",
    "--data.num_probe=64",
    "--data.batch_size=32",
    "--model.encoder_overrides={embed_dim: 16, depth: 1, num_heads: 2}",
]
VARIABLE = inspect.Parameter.VAR_KEYWORD
LISTED = "{trainer: {callbacks: [{class_path: jepa_monitor.JEPAScoreMonitor, init_args: {num_samples: 48}}]}}"

pytestmark = [
    pytest.mark.usefixtures("own_folder"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),  # of the run before
]


def run(*arguments: str, subcommand: str = "fit") -> JEPACLI:
    cli = main([subcommand, *TINY, "--trainer.fast_dev_run=true", *arguments])
    assert cli is not None
    return cli


def monitors(cli: JEPACLI) -> list[JEPAScoreMonitor]:
    return [callback for callback in cli.trainer.callbacks if isinstance(callback, JEPAScoreMonitor)]


def overlay(name: str, text: str) -> str:
    Path(name).write_text(text)
    return f"--config={name}"


@pytest.mark.slow
@pytest.mark.parametrize("subcommand", ["fit", "validate", "test"])
def test_a_setting_changes_what_is_measured(subcommand: str) -> None:
    cli = run("--monitor.num_samples=48", "--monitor.name=mine", subcommand=subcommand)
    (monitor,) = monitors(cli)
    assert monitor.readings is not None
    assert cli.trainer.callback_metrics["mine/monitor/samples"] == 48


def test_a_name_that_does_not_exist_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    message = one_sentence(lambda: run("--monitor.encoder=techer"), capsys)
    assert "JEPA has no submodule 'techer'; its submodules are: " in message


def test_the_command_line_wins_over_overlays_and_these_over_each_other() -> None:
    overlays = [
        overlay("first.yaml", "monitor: {num_samples: 32, every_n_epochs: 3, estimator: exact}"),
        overlay("second.yaml", "monitor: {num_samples: 40, every_n_epochs: 2}"),
    ]
    (monitor,) = monitors(run(*overlays, "--monitor.num_samples=48"))
    assert (monitor.num_samples, monitor.every_n_epochs, monitor.estimator) == (48, 2, "exact")


@pytest.mark.slow
def test_null_leaves_it_out_and_a_setting_brings_it_back() -> None:
    assert monitors(run("--monitor=null")) == []
    off = overlay("off.yaml", "monitor: null")
    assert monitors(run(off)) == []
    assert monitors(run(off, "--monitor.num_samples=48"))[0].num_samples == 48


@pytest.mark.slow
def test_a_monitor_among_the_callbacks_is_the_only_one() -> None:
    (monitor,) = monitors(run(overlay("listed.yaml", LISTED)))
    assert monitor.num_samples == 48


def test_the_monitor_stands_behind_evaluations_and_before_what_may_follow_it() -> None:
    settings = Namespace(monitor=Namespace(class_path="jepa_monitor.JEPAScoreMonitor"))
    stopping, knn, monitor = EarlyStopping("density/spearman"), OnlineKNN(), JEPAScoreMonitor()
    built = Namespace(monitor=monitor, trainer=Namespace(callbacks=[stopping, knn]))
    assert callbacks_with_monitor(settings, built) == [knn, monitor, stopping]


def test_two_monitors_of_one_name_are_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    message = one_sentence(lambda: run(overlay("listed.yaml", LISTED), "--monitor.num_samples=32"), capsys)
    assert "move its settings to monitor: in the config, or leave one of them out with --monitor=null" in message


@pytest.mark.slow
def test_monitors_of_two_names_measure_side_by_side() -> None:
    found = monitors(run(overlay("listed.yaml", LISTED), "--monitor.num_samples=32", "--monitor.name=second"))
    assert {monitor.name: monitor.num_samples for monitor in found} == {"second": 32, "": 48}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "samples"),
    [(["--monitor.num_samples=48"], 48), (["--monitor=null"], None), (["--config=listed.yaml"], 48)],
    ids=["settings", "null", "listed"],
)
def test_a_saved_config_gives_the_same_monitor(arguments: list[str], samples: int | None) -> None:
    overlay("listed.yaml", LISTED)
    cli = main(["fit", *TINY, *arguments])
    assert cli is not None
    saved = Path(cli.trainer.log_dir) / "config.yaml"
    repeated = main(["fit", "-c", str(saved), "--trainer.fast_dev_run=true"])
    assert repeated is not None
    again = monitors(repeated)
    assert [monitor.num_samples for monitor in again] == [monitor.num_samples for monitor in monitors(cli)]
    assert [monitor.num_samples for monitor in again] == [samples] * (samples is not None)
    assert "monitor" in yaml.safe_load(saved.read_text())


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    words = capsys.readouterr().out.replace(",", " ").replace(";", " ").split()
    assert {f"--monitor.{name}" for name in inspect.signature(JEPAScoreMonitor).parameters} <= set(words)


OURS = [
    value
    for package in (jepa_train.data, jepa_monitor)
    for value in vars(package).values()
    if inspect.isclass(value) and issubclass(value, (pl.LightningDataModule, pl.Callback))
]


@pytest.mark.parametrize("made", [JEPA, RankingWriter, *OURS], ids=lambda made: made.__name__)
def test_help_has_a_description_of_every_argument(made: type) -> None:
    parser = Parser()
    parser.add_class_arguments(made)
    described(parser, made)


@pytest.mark.parametrize("command", [export, merge, rank], ids=lambda command: command.__name__)
def test_help_has_a_description_of_every_option(command: Callable[..., Any]) -> None:
    parser = Parser()
    parser.add_function_arguments(command)
    described(parser, command)


def described(parser: Parser, of: Callable[..., Any]) -> None:
    helps = {action.dest: str(action.help) for action in parser._actions if action.dest != "help"}
    named = {name for name, argument in inspect.signature(of).parameters.items() if argument.kind is not VARIABLE}
    assert named - {"data"} <= helps.keys()  # of which its own arguments are options
    # of an argument without a description the help is its type alone
    assert [name for name, text in helps.items() if text.lstrip().startswith("(type") or text in ("", "None")] == []
