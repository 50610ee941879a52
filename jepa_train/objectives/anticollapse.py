"""The choice of the anti-collapse term by name."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

from jepa_train.errors import ConfigurationError
from jepa_train.objectives.sigreg import SIGReg
from jepa_train.objectives.vicreg import VICReg

AnticollapseName = Literal["sigreg", "vicreg", "none"]
ANTICOLLAPSE_NAMES: tuple[str, ...] = get_args(AnticollapseName)


def build_anticollapse(name: AnticollapseName, *, num_slices: int = 256) -> nn.Module | None:
    """The term called ``name``, or ``None`` for ``none``.

    Raises:
        ConfigurationError: for another name.
    """
    if name == "sigreg":
        return SIGReg(num_slices)
    if name == "vicreg":
        return VICReg()
    if name == "none":
        return None
    raise ConfigurationError(f"anticollapse must be one of {', '.join(ANTICOLLAPSE_NAMES)}, got {name!r}.")
