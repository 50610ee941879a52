"""Ranges of the module's numbers that nothing else looks at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from jepa_train.errors import ConfigurationError

AnticollapseOn = Literal["embedding", "tokens", "both"]
WEIGHTS = ("token_weight", "embedding_weight", "anticollapse_weight", "spectral_weight")
SCHEDULED = ("learning_rate_start", "learning_rate_end", "weight_decay", "weight_decay_end")
AT_LEAST_0 = (*WEIGHTS, *SCHEDULED, "projector_hidden", "seed")
AT_LEAST_1 = ("channels", "patch_size", "embedding_size", "predictor_width", "predictor_heads", "sigreg_slices")
SHARES = ("ema_start", "ema_end", "warmup_fraction")


def check_settings(settings: Mapping[str, Any]) -> None:
    """See that hyper-parameters of ``JEPA`` can work, by themselves and with each other.

    Raises:
        ConfigurationError: naming the first that cannot.
    """
    for least, names in ((0, AT_LEAST_0), (1, AT_LEAST_1)):
        for name in names:
            if not settings[name] >= least:
                raise ConfigurationError(f"{name} must be {least} or more, got {settings[name]}.")
    for name in SHARES:
        if not 0.0 <= settings[name] <= 1.0:
            raise ConfigurationError(f"{name} must lie between 0 and 1, got {settings[name]}.")
    if not settings["learning_rate"] > 0.0:
        raise ConfigurationError(f"learning_rate must be above 0, got {settings['learning_rate']}.")
    if settings["anticollapse_on"] not in get_args(AnticollapseOn):
        raise ConfigurationError(
            f"anticollapse_on must be embedding, tokens or both, got {settings['anticollapse_on']!r}."
        )
    if not (settings["token_weight"] or settings["embedding_weight"]):
        raise ConfigurationError("nothing is predicted: give token_weight or embedding_weight a value above 0.")
    if not settings["stop_gradient"] and (settings["ema_start"] or settings["ema_end"]):
        raise ConfigurationError("without stop_gradient the target is the online encoder: set ema_start, ema_end to 0.")
