"""Training objectives: prediction losses and anti-collapse terms, exact over several processes."""

from jepa_train.objectives.barlow_twins import Barlow, barlow
from jepa_train.objectives.hypersphere import Uniformity, uniformity
from jepa_train.objectives.objective import (
    ANTICOLLAPSE_NAMES,
    AnticollapseName,
    AnticollapseOn,
    Objective,
    build_anticollapse,
)
from jepa_train.objectives.prediction import (
    TOKEN_LOSSES,
    TokenLoss,
    centre_prediction,
    embedding_prediction,
    token_prediction,
)
from jepa_train.objectives.sliced_gaussianity import SIGReg, sigreg
from jepa_train.objectives.spectral import linear_weights, spectral_penalty
from jepa_train.objectives.term import Anticollapse
from jepa_train.objectives.variance_covariance import VICReg, vicreg
from jepa_train.objectives.whitening import WhiteningMSE, whitening_mse

__all__ = [
    "ANTICOLLAPSE_NAMES",
    "TOKEN_LOSSES",
    "Anticollapse",
    "AnticollapseName",
    "AnticollapseOn",
    "Barlow",
    "Objective",
    "SIGReg",
    "TokenLoss",
    "Uniformity",
    "VICReg",
    "WhiteningMSE",
    "barlow",
    "build_anticollapse",
    "centre_prediction",
    "embedding_prediction",
    "linear_weights",
    "sigreg",
    "spectral_penalty",
    "token_prediction",
    "uniformity",
    "vicreg",
    "whitening_mse",
]
