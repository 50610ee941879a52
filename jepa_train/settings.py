"""Ranges of numbers that nothing else looks at: of the module, of the DataModules and of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

from jepa_train.errors import ConfigurationError

AnticollapseOn = Literal["embedding", "tokens", "both"]
WEIGHTS = ("token_weight", "embedding_weight", "anticollapse_weight", "spectral_weight")
SCHEDULED = ("learning_rate_start", "learning_rate_end", "weight_decay", "weight_decay_end")
AT_LEAST_0 = (*WEIGHTS, *SCHEDULED, "projector_hidden", "seed")
AT_LEAST_1 = ("channels", "patch_size", "embedding_size", "predictor_width", "predictor_heads", "sigreg_slices")
TRAINER_AT_LEAST = {
    1: ("trainer.accumulate_grad_batches", "trainer.check_val_every_n_epoch", "trainer.num_nodes"),
    0: ("trainer.gradient_clip_val", "trainer.log_every_n_steps", "trainer.min_epochs", "trainer.min_steps"),
    -1: ("trainer.num_sanity_val_steps",),
}
GROUPS = {"trainer": "max_epochs: 7", "model": "learning_rate: 0.001"}
MAX_SEED = 2**32 - 1  # the largest that numpy takes
SHARES = ("ema_start", "ema_end", "warmup_fraction")


def check_at_least(least: int, **settings: float) -> None:
    """See that no setting is below ``least``, or NaN.

    Raises:
        ConfigurationError: naming the first that is.
    """
    for name, value in settings.items():
        if not value >= least:
            raise ConfigurationError(f"{name} must be {least} or more, got {value}.")


def check_above_0(**settings: float) -> None:
    """See that each setting is above 0.

    Raises:
        ConfigurationError: naming the first that is not.
    """
    for name, value in settings.items():
        if not value > 0:
            raise ConfigurationError(f"{name} must be above 0, got {value}.")


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


def check_settings(settings: Mapping[str, Any]) -> None:
    """See that hyper-parameters of ``JEPA`` can work, by themselves and with each other.

    Raises:
        ConfigurationError: naming the first that cannot.
    """
    check_at_least(0, **{name: settings[name] for name in AT_LEAST_0})
    check_at_least(1, **{name: settings[name] for name in AT_LEAST_1})
    for name in SHARES:
        if not 0.0 <= settings[name] <= 1.0:
            raise ConfigurationError(f"{name} must lie between 0 and 1, got {settings[name]}.")
    check_above_0(learning_rate=settings["learning_rate"])
    if settings["anticollapse_on"] not in get_args(AnticollapseOn):
        raise ConfigurationError(
            f"anticollapse_on must be embedding, tokens or both, got {settings['anticollapse_on']!r}."
        )
    if not (settings["token_weight"] or settings["embedding_weight"]):
        raise ConfigurationError("nothing is predicted: give token_weight or embedding_weight a value above 0.")
    if not settings["stop_gradient"] and (settings["ema_start"] or settings["ema_end"]):
        raise ConfigurationError("without stop_gradient the target is the online encoder: set ema_start, ema_end to 0.")
