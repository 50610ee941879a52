"""Scores from tensors, arrays and lists alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


def as_vector(values: ArrayLike, name: str = "scores") -> NDArray[np.float64]:
    """Values in float64, (N,), from any device and with or without gradient.

    Raises:
        ValueError: unless they have one dimension.
    """
    # numpy knows neither bfloat16 nor CUDA
    plain = values.detach().double().cpu().numpy() if isinstance(values, Tensor) else values
    vector = np.asarray(plain, dtype=np.float64)
    if vector.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {vector.shape}.")
    return vector


def as_vectors(**named: ArrayLike) -> list[NDArray[np.float64]]:
    """Several values of the same samples, each (N,) in float64.

    Raises:
        ValueError: unless each has one dimension and all have one length.
    """
    vectors = {name: as_vector(values, name) for name, values in named.items()}
    if len({len(vector) for vector in vectors.values()}) > 1:
        lengths = ", ".join(f"{len(vector)} {name}" for name, vector in vectors.items())
        raise ValueError(f"the values must belong to the same samples, got {lengths}.")
    return list(vectors.values())
