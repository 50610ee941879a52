"""Checks of what the functions here are given: each mistake gets one sentence that says what to pass instead."""

from __future__ import annotations

from numbers import Integral, Real
from typing import get_args

import torch
from torch import Tensor

from ..errors import require_whole
from .strategies import Strategy


def require_encoder(encode: object, x: object) -> None:
    """Refuse an encoder that cannot be called, and inputs with respect to which there is no derivative.

    Raises:
        TypeError, ValueError: as :func:`require_floating_point` does, and for the encoder.
    """
    if not callable(encode):
        raise TypeError(
            f"the encoder is of type {type(encode).__name__}: pass a module or function that maps (B, ...) inputs to "
            "(B, K) embeddings."
        )
    require_floating_point(x)


def require_tensor(values: object, *, name: str, shape: str) -> Tensor:
    """Return a tensor as it is.

    Raises:
        TypeError: for anything else, such as a list or an array of numpy.
    """
    if not isinstance(values, Tensor):
        raise TypeError(
            f"{name} are of type {type(values).__name__}: pass one tensor {shape}, such as torch.as_tensor(x), or "
            "torch.stack(x) of a list of tensors."
        )
    return values


def require_floating_point(x: object) -> None:
    """Refuse inputs with respect to which there is no derivative.

    Raises:
        TypeError: for what is not a tensor.
        ValueError: for integers, complex numbers, and a single number.
    """
    x = require_tensor(x, name="inputs", shape="(N, ...)")
    if not x.is_floating_point():
        raise ValueError(
            f"inputs are {x.dtype}; a Jacobian is with respect to real floating-point numbers: pass x.float(), or "
            "what an embedding table makes of them."
        )
    if not x.ndim:
        raise ValueError("inputs are one number, not a batch (N, ...).")


def require_real(z: object) -> Tensor:
    """Return an encoder's embeddings as they are, or refuse what has no Jacobian.

    Raises:
        TypeError: for what is not a tensor.
        ValueError: for complex ones, whose imaginary parts would be lost.
    """
    if not isinstance(z, Tensor):
        raise TypeError(
            f"embeddings are of type {type(z).__name__}: pass an encoder that returns one tensor (B, K), such as "
            "lambda x: encoder(x)[0]."
        )
    if z.is_complex():
        raise ValueError(
            f"embeddings are {z.dtype}, not real numbers: pass torch.view_as_real(z).flatten(1), or z.abs()."
        )
    return z


def require_embeddings(z: object, *, size: int | None = None, name: str = "embeddings") -> Tensor:
    """Return embeddings (N, K) as they are.

    Args:
        z: embeddings of any real dtype.
        size: K; ``None`` allows any.
        name: word for them in a message.

    Raises:
        TypeError: for what is not a tensor.
        ValueError: for another shape, or complex numbers.
    """
    z = require_real(require_tensor(z, name=name, shape=f"(N, {size or 'K'})"))
    if z.ndim != 2 or z.shape[1] == 0 or size not in (None, z.shape[1]):
        advice = ": for one embedding, pass z[None]" if z.ndim == 1 else ""
        raise ValueError(f"{name} must be (N, {size or 'K'}), got shape {tuple(z.shape)}{advice}.")
    return z


def require_grams(gram: object, *, size: int | None = None) -> Tensor:
    """Return Gram matrices (..., K, K) as they are.

    Raises:
        TypeError: for what is not a tensor.
        ValueError: for another shape, or numbers that are not real floating-point ones.
    """
    gram = require_tensor(gram, name="Gram matrices", shape="(..., K, K)")
    square = gram.ndim >= 2 and gram.shape[-1] == gram.shape[-2] > 0
    if not square or size not in (None, gram.shape[-1]) or not gram.is_floating_point():
        k = size or "K"
        raise ValueError(
            f"Gram matrices must be floating-point numbers (..., {k}, {k}), got {gram.dtype} of shape "
            f"{tuple(gram.shape)}."
        )
    return gram


def require_positive(**settings: object) -> None:
    """Refuse settings that are no positive finite numbers.

    Raises:
        ValueError: for one; the message names it.
    """
    for name, value in settings.items():
        if not isinstance(value, Real) or isinstance(value, bool) or not 0.0 < float(value) < torch.inf:
            raise ValueError(f"{name} must be a positive number, got {value!r}.")


def require_between(least: int, most: int, **settings: object) -> None:
    """Refuse settings that are no whole numbers in a range, both ends included.

    Raises:
        ValueError: for one; the message names it.
    """
    for name, value in settings.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or not least <= int(value) <= most:
            raise ValueError(f"{name} must be a whole number from {least} to {most}, got {value!r}.")


def require_way(strategy: object, chunk: object, gram_dtype: torch.dtype) -> None:
    """Refuse a way to Gram matrices that does not exist.

    Raises:
        ValueError: for an unknown strategy, a chunk that is no whole number, or a type other than a floating-point one.
    """
    if strategy not in get_args(Strategy):
        raise ValueError(f"strategy must be {', '.join(get_args(Strategy))}, got {strategy!r}.")
    require_whole(1, None, chunk=chunk)
    if not gram_dtype.is_floating_point:
        raise ValueError(f"gram_dtype must be a floating-point type, such as torch.float64, got {gram_dtype}.")


def require_rows(rows: object, *, samples: int, size: int) -> None:
    """Refuse rows that are neither (M, K), for all samples, nor (N, M, K).

    Raises:
        TypeError: for what is not a tensor.
        ValueError: for another shape, or numbers that are not real floating-point ones.
    """
    if rows is None:
        return
    rows = require_tensor(rows, name="rows", shape=f"(M, {size})")
    shaped = rows.ndim == 2 or (rows.ndim == 3 and len(rows) == samples)
    if not shaped or rows.shape[-1] != size or not rows.shape[-2] or not rows.is_floating_point():
        raise ValueError(
            f"rows must be floating-point numbers (M, {size}), or ({samples}, M, {size}) for each sample its own, got "
            f"{rows.dtype} of shape {tuple(rows.shape)}."
        )


def finite_rows(samples: Tensor) -> Tensor:
    """Flatten samples (N, ...) to rows (M, D) without gradient, and leave out those that are not finite.

    Raises:
        TypeError, ValueError: for what is not a tensor, for a single number, and for complex numbers.
    """
    samples = require_real(require_tensor(samples, name="samples", shape="(N, ...)"))
    if not samples.ndim:
        raise ValueError("samples are one number, not (N, ...).")
    rows = samples.detach().flatten(1)
    finite = torch.isfinite(rows).all(1)
    return rows if bool(finite.all()) else rows[finite]
