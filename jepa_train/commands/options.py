"""Options beside Lightning's, and checks of Lightning's own.

``--monitor`` is a JEPAScoreMonitor with settings of its own, beside the callbacks of the Trainer.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from jepa_monitor import JEPAScoreMonitor
from jepa_monitor.callback import MeasuringCallback
from jepa_train.errors import ConfigurationError, check_above_0, check_at_least

CLASS_PATH = "jepa_monitor.JEPAScoreMonitor"
MONITOR_OPTIONS = [f"--monitor.{name}" for name in inspect.signature(JEPAScoreMonitor).parameters]
TRAINER_AT_LEAST = {
    1: ("trainer.accumulate_grad_batches", "trainer.check_val_every_n_epoch", "trainer.num_nodes"),
    0: ("trainer.gradient_clip_val", "trainer.log_every_n_steps", "trainer.min_epochs", "trainer.min_steps"),
    -1: ("trainer.num_sanity_val_steps",),
}
GROUPS = {"trainer": "max_epochs: 7", "model": "learning_rate: 0.001"}
MAX_SEED = 2**32 - 1  # the largest that numpy takes


def add_monitor_option(parser: LightningArgumentParser) -> None:
    """Let the parser take ``--monitor.NAME`` for each setting of the monitor, and ``null`` for no monitor."""
    parser.add_subclass_arguments(
        JEPAScoreMonitor,
        "monitor",
        fail_untyped=False,
        help=f"The monitor's settings: {', '.join(MONITOR_OPTIONS)}; or null for none.",
    )
    parser.set_defaults({"monitor": {"class_path": CLASS_PATH}})


def callbacks_with_monitor(settings: Namespace, built: Namespace) -> list[pl.Callback]:
    """List the callbacks of ``--trainer.callbacks``, and the monitor of ``--monitor`` behind the evaluations.

    A config may list its monitors in ``trainer.callbacks`` instead. Then the one of the option is left out, unless its
    settings were changed.

    Args:
        settings: parsed config of the subcommand; ``monitor`` becomes null where it is left out.
        built: objects made from it.

    Raises:
        ConfigurationError: for two monitors of one name.
    """
    given = built.trainer.callbacks or []
    callbacks = given if isinstance(given, list) else [given]
    listed = [callback for callback in callbacks if isinstance(callback, JEPAScoreMonitor)]
    if listed and _is_unchanged(settings.monitor):
        settings.monitor = None
    if settings.monitor is None:
        return callbacks
    if built.monitor.state_key in [monitor.state_key for monitor in listed]:
        raise ConfigurationError(
            "--monitor has settings of its own, and trainer.callbacks lists a JEPAScoreMonitor of the same name: move "
            "its settings to monitor: in the config, or leave one of them out with --monitor=null."
        )
    # behind the evaluations, whose accuracies its story of the run shows
    evaluations = [callback for callback in callbacks if isinstance(callback, MeasuringCallback)]
    others = [callback for callback in callbacks if not isinstance(callback, MeasuringCallback)]
    return [*evaluations, built.monitor, *others]


def _is_unchanged(monitor: Namespace | None) -> bool:
    if monitor is None or monitor.class_path != CLASS_PATH:
        return False
    parameters = inspect.signature(JEPAScoreMonitor).parameters
    return all(monitor.init_args[name] == parameter.default for name, parameter in parameters.items())


def check_run(settings: Mapping[str, Any]) -> None:
    """See that a subcommand's groups and seed can be used, and numbers of ``trainer`` that Lightning divides by unseen.

    Raises:
        ConfigurationError: naming the first that cannot.
    """
    for name, example in GROUPS.items():  # of configs, in which the parser looks at no group as a whole
        if not isinstance(settings[name], Mapping):
            value = json.dumps(settings[name])
            raise ConfigurationError(f"{name} must be a group of settings, such as {name}: {{{example}}}; got {value}.")
    seed = settings["seed_everything"]
    if seed is None:
        raise ConfigurationError("seed_everything must be true or false, or a whole number; got null.")
    if not 0 <= seed <= MAX_SEED:
        raise ConfigurationError(f"seed_everything must lie between 0 and {MAX_SEED}, got {seed}.")
    trainer = {f"trainer.{name}": value for name, value in settings["trainer"].items()}
    numbers = {name: value for name, value in trainer.items() if isinstance(value, (int, float))}
    for least, names in TRAINER_AT_LEAST.items():
        check_at_least(least, **{name: numbers[name] for name in names if name in numbers})
    check_above_0(**{name: value for name, value in numbers.items() if name == "trainer.val_check_interval"})
