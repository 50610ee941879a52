"""The option ``--monitor``: a JEPAScoreMonitor with settings of its own, beside the callbacks of the Trainer."""

from __future__ import annotations

import inspect

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from jepa_monitor import JEPAScoreMonitor
from jepa_train.errors import ConfigurationError

CLASS_PATH = "jepa_monitor.JEPAScoreMonitor"
MONITOR_OPTIONS = [f"--monitor.{name}" for name in inspect.signature(JEPAScoreMonitor).parameters]


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
    """The callbacks of ``--trainer.callbacks`` behind the monitor of ``--monitor``.

    A config may list its monitors in ``trainer.callbacks`` instead. Then the one of the option is left out, unless its
    settings were changed.

    Args:
        settings: the parsed config of the subcommand; ``monitor`` becomes null where it is left out.
        built: the objects made of it.

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
    return [built.monitor, *callbacks]


def _is_unchanged(monitor: Namespace | None) -> bool:
    if monitor is None or monitor.class_path != CLASS_PATH:
        return False
    parameters = inspect.signature(JEPAScoreMonitor).parameters
    return all(monitor.init_args[name] == parameter.default for name, parameter in parameters.items())
