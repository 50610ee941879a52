"""Training objectives: prediction losses and anti-collapse terms, exact over several processes."""

from jepa_train.objectives.anticollapse import ANTICOLLAPSE_NAMES, build_anticollapse
from jepa_train.objectives.prediction import embedding_prediction, token_prediction
from jepa_train.objectives.sigreg import SIGReg, sigreg
from jepa_train.objectives.vicreg import VICReg, vicreg

__all__ = [
    "ANTICOLLAPSE_NAMES",
    "SIGReg",
    "VICReg",
    "build_anticollapse",
    "embedding_prediction",
    "sigreg",
    "token_prediction",
    "vicreg",
]
