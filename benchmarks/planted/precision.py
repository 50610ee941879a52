"""Scores of a ranking and of other packages, and how precisely each finds what was planted."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from planted.faults import Truth

BOOTSTRAPS = 200


def doubts(table: pa.Table) -> dict[str, NDArray[np.float64]]:
    """Turn columns so that higher is more doubtful, (N,) each by name."""
    columns = {
        name: np.array(table[name].to_pylist(), dtype=float)
        for name in table.column_names
        if pa.types.is_floating(table.schema.field(name).type) or pa.types.is_integer(table.schema.field(name).type)
    }
    columns = {name: values for name, values in columns.items() if np.isfinite(values).any()}
    typical = ("log_density", "jepa_score", "embedding_log_density", "log_volume", "class_percentile")
    found = {name: -columns[name] for name in typical if name in columns}
    found |= {name: columns[name] for name in ("mahalanobis", "knn_distance", "doubt")}
    found |= {f"{name}, small": -columns[name] for name in ("nearest_distance", "nearest_difference")}
    for name in ("log_density", "compressed_size"):
        found[f"{name}, both ends"] = np.abs(columns[name] - np.nanmedian(columns[name]))
    return {name: np.nan_to_num(values, nan=np.nanmin(values)) for name, values in found.items()}


def peers(z: NDArray[np.float32], reference: NDArray[np.float32] | None) -> dict[str, NDArray[np.float64]]:
    """The same by cleanlab and PyOD on embeddings (N, K), fitted to themselves or to a reference (M, K)."""
    from cleanlab.outlier import OutOfDistribution
    from pyod.models.ecod import ECOD
    from pyod.models.knn import KNN

    neighbours, detectors = OutOfDistribution(), {"PyOD ECOD": ECOD(), "PyOD KNN": KNN()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if reference is None:
            found = {"cleanlab OutOfDistribution": -neighbours.fit_score(features=z, verbose=False)}
            return found | {name: detector.fit(z).decision_scores_ for name, detector in detectors.items()}
        neighbours.fit(features=reference, verbose=False)
        found = {"cleanlab OutOfDistribution": -neighbours.score(features=z)}
        return found | {name: detector.fit(reference).decision_function(z) for name, detector in detectors.items()}


def interval(truth: Truth, doubt: NDArray[np.float64]) -> dict[str, float]:
    """Average precision, its interval of 95 % by bootstrap over images, and precision among as many as were planted."""
    draws = np.random.default_rng(0)
    resampled = []
    for _ in range(BOOTSTRAPS):
        index = draws.integers(0, len(truth), len(truth))
        resampled.append(average_precision_score(truth[index], doubt[index]))
    first = np.argsort(-doubt, kind="stable")[: truth.sum()]
    low, high = np.quantile(resampled, (0.025, 0.975))
    return {
        "ap": float(average_precision_score(truth, doubt)),
        "low": float(low),
        "high": float(high),
        "precision": float(truth[first].mean()),
    }
