"""The public functions refuse what makes no sense, each in one sentence that names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import jepa_monitor.density as density
from jepa_monitor.density import (
    EmbeddingReference,
    FlowDensity,
    GaussianDensity,
    ManifoldDensity,
    MixtureDensity,
    NeighbourDensity,
    Subspace,
)

ENCODE = nn.Linear(6, 4)
X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
Z = ENCODE(X).detach()
GRAM = torch.eye(4).double().expand(40, 4, 4)
REFERENCE = EmbeddingReference.fit(Z)
SUBSPACE = Subspace.calibrate(GRAM, Z, 2, reference=Z)

# functions of embeddings (N, 4) or (N, K)
OF_EMBEDDINGS: dict[str, Callable[[Any], object]] = {
    "GaussianDensity.fit": GaussianDensity.fit,
    "NeighbourDensity.fit": NeighbourDensity.fit,
    "ManifoldDensity.fit": ManifoldDensity.fit,
    "MixtureDensity.fit": MixtureDensity.fit,
    "FlowDensity.fit": FlowDensity.fit,
    "EmbeddingReference.fit": EmbeddingReference.fit,
    "log_density of a density": GaussianDensity.fit(Z).log_density,
    "whiten": GaussianDensity.fit(Z).whiten,
    "log_density of a reference": REFERENCE.log_density,
    "intrinsic_dimension": density.intrinsic_dimension,
    "nearest, queries": lambda z: density.nearest(z, Z, 3),
    "nearest, points": lambda z: density.nearest(Z, z, 3),
    "knn_distance": lambda z: density.knn_distance(z, Z),
    "knn_distance, reference": lambda z: density.knn_distance(Z, z),
    "Subspace.calibrate": lambda z: Subspace.calibrate(GRAM, z, 2, reference=Z),
    "Subspace.calibrate, reference": lambda z: Subspace.calibrate(GRAM, Z, 2, reference=z),
    "Subspace.rows": SUBSPACE.rows,
}
OF_GRAMS: dict[str, Callable[[Any], object]] = {
    "log_singular_values": density.log_singular_values,
    "log_volume": density.log_volume,
    "Subspace.calibrate": lambda gram: Subspace.calibrate(gram, Z, 2, reference=Z),
    "Subspace.estimate": SUBSPACE.estimate,
}
# functions of an encoder and its inputs
OF_INPUTS: dict[str, Callable[..., object]] = {
    "jacobian_gram": density.jacobian_gram,
    "jepa_score": density.jepa_score,
    "log_density": lambda encode, x, **settings: density.log_density(encode, x, reference=REFERENCE, **settings),
    "encoder_volume": lambda encode, x, **settings: density.encoder_volume(encode, x, rank=2, **settings),
    "Subspace.fit": lambda encode, x, **settings: Subspace.fit(encode, x, 2, reference=Z, **settings),
    "EmbeddingReference.measure": EmbeddingReference.measure,
}


@pytest.mark.parametrize("name", OF_EMBEDDINGS)
def test_embeddings_are_a_tensor_of_two_dimensions(name: str) -> None:
    for wrong in (Z.numpy(), Z.tolist(), None, REFERENCE):
        with pytest.raises(TypeError, match=rf"are of type {type(wrong).__name__}: pass one tensor \(N, (K|4)\)"):
            OF_EMBEDDINGS[name](wrong)
    for shape in ((40,), (40, 2, 2), (40, 0)):
        with pytest.raises(ValueError, match=r"must be \(N, (K|4)\), got shape"):
            OF_EMBEDDINGS[name](torch.ones(shape))
    with pytest.raises(ValueError, match=r"are torch\.complex64, not real numbers"):
        OF_EMBEDDINGS[name](Z.to(torch.complex64))


@pytest.mark.parametrize("name", OF_GRAMS)
def test_gram_matrices_are_square(name: str) -> None:
    for wrong in (GRAM.numpy(), None):
        with pytest.raises(TypeError, match=f"Gram matrices are of type {type(wrong).__name__}"):
            OF_GRAMS[name](wrong)
    for gram in (torch.ones(40, 4, 3), torch.ones(4), torch.ones(40, 4, 4, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"Gram matrices must be floating-point numbers \(\.\.\., (K, K|\d, \d)\)"):
            OF_GRAMS[name](gram)


@pytest.mark.parametrize("name", OF_INPUTS)
def test_an_encoder_is_a_function_of_a_batch(name: str) -> None:
    call = OF_INPUTS[name]
    for encode in (None, Z, "encoder"):
        with pytest.raises(TypeError, match=f"the encoder is of type {type(encode).__name__}: pass a module"):
            call(encode, X)
    for x in (X.numpy(), X.tolist(), None):
        with pytest.raises(TypeError, match=f"inputs are of type {type(x).__name__}: pass one tensor"):
            call(ENCODE, x)
    for x, message in ((X.long(), "inputs are torch.int64"), (torch.tensor(1.0), "inputs are one number")):
        with pytest.raises(ValueError, match=message):
            call(ENCODE, x)
    for chunk in (0, 2.5, "all"):
        with pytest.raises(ValueError, match="chunk must be a whole number of at least 1 or None"):
            call(ENCODE, X, chunk=chunk)
    if name != "EmbeddingReference.measure":
        with pytest.raises(ValueError, match=r"strategy must be auto, loop, .*, got 'fast'"):
            call(ENCODE, X, strategy="fast")


@pytest.mark.parametrize("name", OF_INPUTS)
def test_samples_are_independent(name: str) -> None:
    for layer, fault in ((nn.Dropout(), "is random"), (nn.BatchNorm1d(4), "mixes the samples of a batch")):
        with pytest.raises(ValueError, match=rf"^1 \({type(layer).__name__}\) {fault}"):
            OF_INPUTS[name](nn.Sequential(ENCODE, layer), X)


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        (np.eye(4), TypeError, "rows are of type ndarray"),
        (torch.ones(2, 3), ValueError, r"\(M, 4\), or \(40, M, 4\) .* of shape \(2, 3\)"),
        (torch.ones(39, 2, 4), ValueError, r"of shape \(39, 2, 4\)"),
        (torch.ones(4), ValueError, r"of shape \(4,\)"),
        (torch.ones(2, 4, dtype=torch.int64), ValueError, "got torch.int64"),
    ],
)
def test_rows_are_of_all_outputs(rows: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        density.jacobian_gram(ENCODE, X, rows=rows)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: density.jacobian_gram(ENCODE, X, gram_dtype=torch.int64), ValueError, "gram_dtype must be a floating"),
        (lambda: density.jepa_score(ENCODE, X, eps=0.0), ValueError, "eps must be a positive number, got 0.0"),
        (lambda: density.jepa_score(ENCODE, X, views=3), TypeError, "views is of type int: pass a function of one"),
        (lambda: density.jepa_score(ENCODE, X, views=abs, seed=-1), ValueError, "seed must be a whole number"),
        (lambda: density.jepa_score(ENCODE, X, views=abs, num_views=1.5), ValueError, "num_views must be a whole"),
        (lambda: density.log_volume(GRAM, convention="all"), ValueError, "convention must be clip or rank"),
        (lambda: density.log_singular_values(GRAM, input_size=0), ValueError, "input_size must be a whole number"),
        (lambda: density.leading_volume(torch.zeros(2, 3), 1.5), ValueError, "rank must be a whole number from 1 to 3"),
        (lambda: density.leading_volume([1.0], 1), TypeError, "log singular values are of type list"),
        (lambda: density.aggregate_views([1.0], 0), TypeError, "scores are of type list"),
        (lambda: density.aggregate_views(torch.zeros(3), 1), ValueError, "dim must be a whole number from -1 to 0"),
        (lambda: density.aggregate_views(torch.zeros(3, 0), 1), ValueError, "must have views along dimension 1"),
        (lambda: density.aggregate_views(torch.zeros(3), "1"), ValueError, "dim must be a whole number from -1 to 0"),
        (lambda: density.jepa_score(ENCODE, X, views=lambda x: None), ValueError, "views must return tensors of one"),
        (lambda: density.rounding_error([1.0], dtype=torch.float32), TypeError, "log singular values are of type list"),
        (lambda: density.rounding_error(X, dtype=torch.int32), ValueError, "dtype must be a floating-point type"),
        (lambda: density.is_imprecise(X[0], torch.float32), ValueError, r"floating-point numbers \(N, k\), got"),
        (lambda: density.counts_rounding(X, 7, torch.float32), ValueError, "rank must be a whole number from 1 to 6"),
        (lambda: density.finite_rows(torch.tensor(1.0)), ValueError, "samples are one number"),
        (lambda: REFERENCE.coordinates(Z[:, :3]), ValueError, r"embeddings must be \(N, 4\), got shape \(40, 3\)"),
        (lambda: density.log_density_from_volume(X[:1, 0], Z, lambda z: z[:, 0]), ValueError, r"\(1,\) and .* \(40,\)"),
        (lambda: density.knn_distance(Z, Z, k=2.5), ValueError, "k must be a whole number of at least 1, got 2.5"),
        (lambda: density.nearest(Z, Z[:, :3], 1), ValueError, r"queries must be \(N, 3\), got shape \(40, 4\)"),
        (lambda: density.nearest(Z, Z, 1, own=list(range(40))), TypeError, "own are of type list"),
        (lambda: density.nearest(Z, Z, 1, own=torch.arange(39)), ValueError, "own must be int64 indices of the points"),
        (lambda: density.nearest(Z, Z, 1, own=torch.arange(40) + 1), ValueError, "one for each of 40 queries"),
        (lambda: density.subspace_rows(2.5, 8), ValueError, "rank must be a whole number of at least 0, got 2.5"),
        (lambda: density.intrinsic_dimension(Z, k=2.5), ValueError, "k must be a whole number of at least 2 or None"),
        (lambda: MixtureDensity.fit(Z, components=1.5), ValueError, "components must be a whole number"),
        (lambda: FlowDensity.fit(Z, max_steps=0), ValueError, "max_steps must be a whole number of at least 1"),
        (lambda: ManifoldDensity.fit(Z, seed=None), ValueError, "seed must be a whole number of at least 0"),
    ],
)
def test_settings_out_of_range_are_named(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("reference", [None, Z, GaussianDensity.fit(Z), EmbeddingReference])
def test_a_log_density_needs_a_reference(reference: Any) -> None:
    with pytest.raises(TypeError, match=r"^reference is of type .*: pass EmbeddingReference.measure\(encode, "):
        density.log_density(ENCODE, X, reference=reference)


def test_a_log_density_refuses_what_does_not_fit_its_reference() -> None:
    for whiten in (True, False):
        other = EmbeddingReference.fit(Z[:, :3], whiten=whiten)
        with pytest.raises(ValueError, match="the reference has embeddings of K = 3, the encoder gives 4"):
            density.log_density(ENCODE, X, reference=other)
    for rank in (0, 1.5, "widest"):
        with pytest.raises(ValueError, match="rank must be a whole number of at least 1 or 'auto'"):
            density.log_density(ENCODE, X, reference=REFERENCE, rank=rank)  # type: ignore[arg-type]  # what is tried
    with pytest.raises(ValueError, match="rank must be a whole number from 1 to 4, got 5"):
        density.log_density(ENCODE, X, reference=REFERENCE, rank=5)
    for choice in (None, GaussianDensity, lambda z: z):
        with pytest.raises(TypeError, match="density must be auto, "):
            density.log_density(ENCODE, X, reference=REFERENCE, embedding_density=choice)  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize("count", [0, 1])
def test_few_samples_are_no_mistake(count: int) -> None:
    x = X[:count]
    assert len(density.jepa_score(ENCODE, x)) == count
    assert len(density.jepa_score(ENCODE, x, views=lambda sample: sample, num_views=2)) == count
    assert len(density.log_density(ENCODE, x, reference=REFERENCE)) == count
    assert len(density.encoder_volume(ENCODE, x, rank=2)) == count
