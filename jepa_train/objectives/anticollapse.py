"""The choice of the anti-collapse term by name."""

from __future__ import annotations

from typing import Literal, get_args

from jepa_train.errors import ConfigurationError
from jepa_train.objectives.barlow_twins import Barlow
from jepa_train.objectives.hypersphere import Uniformity
from jepa_train.objectives.sliced_gaussianity import SIGReg
from jepa_train.objectives.term import Anticollapse
from jepa_train.objectives.variance_covariance import VICReg
from jepa_train.objectives.whitening import WhiteningMSE

AnticollapseName = Literal["sigreg", "vicreg", "barlow", "whitening_mse", "uniformity", "none"]
ANTICOLLAPSE_NAMES: tuple[str, ...] = get_args(AnticollapseName)


def build_anticollapse(name: AnticollapseName, *, num_slices: int = 256) -> Anticollapse | None:
    """The term called ``name`` with its paper's settings, or ``None`` for ``none``.

    Args:
        name: one of ``ANTICOLLAPSE_NAMES``.
        num_slices: directions of ``sigreg`` per step; the other terms draw none.

    Raises:
        ConfigurationError: for another name.
    """
    if name == "sigreg":
        return SIGReg(num_slices)
    if name == "vicreg":
        return VICReg()
    if name == "barlow":
        return Barlow()
    if name == "whitening_mse":
        return WhiteningMSE()
    if name == "uniformity":
        return Uniformity()
    if name == "none":
        return None
    raise ConfigurationError(f"anticollapse must be one of {', '.join(ANTICOLLAPSE_NAMES)}, got {name!r}.")
