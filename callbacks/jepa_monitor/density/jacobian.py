"""Gram matrices of an encoder's Jacobian, in any Lightning context and within the memory there is."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from ..runtime.memory import free_bytes
from .checks import require_encoder, require_real, require_rows, require_way
from .strategies import (
    Encode,
    Strategy,
    agrees_with_autograd,
    full_float32,
    jacobian_by_forward_mode,
    jacobian_by_jacrev,
    jacobian_by_loop,
    jacobian_by_replication,
    on_a_copy,
)
from .survey import Survey, output_replaced, survey

T = TypeVar("T")


class _WrongRule(Exception):
    """A strategy's rows are not those of a plain backward pass."""


# elements of the largest activation in one pass: below, calls cost more than arithmetic; above, caches overflow
_ELEMENTS_PER_PASS_CPU = 1280 * 1024
_ELEMENTS_PER_PASS_ACCELERATOR = 1 << 26
_ROWS_AT_LEAST = 16  # vectors that a pass should have before it gets more samples
_ENOUGH_CPU = _ELEMENTS_PER_PASS_CPU // 8  # with which a plain backward pass of one row is as fast as any
_GRAM_COLUMNS = 1 << 10
_COMPARED_SAMPLES = 8  # of a part, whose rows were computed together: a plain pass is right for any number
_WRONG_RULE = (
    "torch's vectorised derivative of an operation in this encoder differs from autograd's own (torch.cdist has such "
    "rules): Jacobians are computed row by row instead, which is right and slower."
)
_GRAD_MODE = (
    "this encoder gives other embeddings where gradients are off (torch's fast path for transformers sets padded "
    "positions to 0): Jacobians are of those that it gives where gradients are on, as in training."
)


def jacobian_gram(
    encode: Encode,
    x: Tensor,
    *,
    rows: Tensor | None = None,
    strategy: Strategy = "auto",
    chunk: int | None = None,
    gram_dtype: torch.dtype = torch.float64,
) -> Tensor:
    """G = J J^T for each sample, with J (K, D) the Jacobian of its embedding with respect to its input.

    The Jacobian has the encoder's precision (use float32 or better; TF32 and autocast are switched off meanwhile, but
    for an autocast within the encoder) and the Gram is accumulated in ``gram_dtype``: a float32 Gram loses singular
    values below 3e-4 of the largest.

    Works under ``no_grad`` and ``inference_mode`` (where ``torch.autograd.functional.jacobian`` silently returns
    zeros), with fused attention, frozen parameters, compiled modules (run eagerly), encoders that write into their
    input (a copy of it) and encoders that differentiate inside. One combination of the rows is compared with a plain
    backward pass, and where they differ (a wrong rule of torch) the loop is taken, with one warning.

    Args:
        encode: maps (B, ...) inputs to (B, K) embeddings, each sample by itself: in eval mode.
        x: (N, ...) floating-point inputs.
        rows: (M, K) combinations of outputs to differentiate instead of all K, or (N, M, K) for each sample its own.
        strategy: how the Jacobian is computed; all give the same values.

            - ``loop``: M backward passes, whatever the encoder is made of;
            - ``replicate``: copies of the samples, one row each;
            - ``jacrev``: vectorised backward passes;
            - ``forward``: D forward-mode passes;
            - ``patches``: ``jacrev`` that stops at a non-overlapping patch embedding W and folds it in,
              G = sum_t J_t W W^T J_t^T over tokens t;
            - ``auto``: ``forward`` if D < M; else ``patches`` if the input enters through one that shrinks it; else
              ``loop`` for ``rows`` of 16 samples or more with large activations on a CPU; else ``jacrev``, and where
              vmap cannot follow the encoder, ``replicate`` (small inputs) or ``loop``.
        chunk: samples a pass; ``None`` chooses by the encoder's size and the free memory.
        gram_dtype: precision of the result.

    Returns:
        (N, K, K), or (N, M, M) with ``rows``.

    Raises:
        TypeError: if inputs, embeddings or rows are no tensors, or ``encode`` cannot be called.
        ValueError: if inputs or embeddings are integer or complex, if ``encode`` does not return (B, K), if samples
            influence each other (the message names the module), if its output does not depend on its input through
            autograd, or for other arguments that make no sense.
    """
    return gram_and_embedding(encode, x, rows=rows, strategy=strategy, chunk=chunk, gram_dtype=gram_dtype)[0]


def gram_and_embedding(
    encode: Encode,
    x: Tensor,
    *,
    rows: Tensor | None = None,
    strategy: Strategy = "auto",
    chunk: int | None = None,
    gram_dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """:func:`jacobian_gram` and, at no further cost, the embeddings (N, K); both in ``gram_dtype``."""
    parts = map_grams(
        lambda gram, z: (gram, z), encode, x, rows=rows, strategy=strategy, chunk=chunk, gram_dtype=gram_dtype
    )
    grams, embeddings = zip(*parts, strict=True)
    return torch.cat(grams), torch.cat(embeddings)


def map_grams(
    function: Callable[[Tensor, Tensor], T],
    encode: Encode,
    x: Tensor,
    *,
    rows: Tensor | None = None,
    strategy: Strategy = "auto",
    chunk: int | None = None,
    gram_dtype: torch.dtype = torch.float64,
    progress: Callable[[int], None] | None = None,
    notice: Callable[[str], None] = warnings.warn,
) -> list[T]:
    """Apply ``function(gram (B, K, K), z (B, K))`` to one part of the samples after the other, so that none is kept.

    Args:
        function: reduces the Gram matrices and embeddings of one part.
        encode, x, rows, strategy, chunk, gram_dtype: see :func:`jacobian_gram`.
        progress: called with the number of samples of each part when it is done.
        notice: called with a sentence that the user should read.

    Returns:
        One result a part, in the order of the samples.
    """
    require_encoder(encode, x)
    require_way(strategy, chunk, gram_dtype)
    with differentiable(x.device.type):
        inputs = x.clone().detach()  # a tensor made under inference mode cannot take part in autograd
        if not len(inputs):
            z = require_real(encode(inputs)).detach().to(gram_dtype)
            size = z.shape[1] if rows is None else rows.shape[-2]
            return [function(z.new_empty(0, size, size), z)]
        facts = survey(encode, inputs)
        require_rows(rows, samples=len(inputs), size=facts.embedding_size)
        if facts.depends_on_grad_mode:
            notice(_GRAD_MODE)
        route = _Route.choose(strategy, facts, inputs, rows, chunk)
        results = []
        for gram, z in _grams_by_part(on_a_copy(encode), inputs, rows, facts, route, gram_dtype, strategy, notice):
            results.append(function(gram, z.to(gram_dtype)))
            if progress is not None:
                progress(len(z))
        return results


def _grams_by_part(
    encode: Encode,
    x: Tensor,
    rows: Tensor | None,
    facts: Survey,
    route: _Route,
    gram_dtype: torch.dtype,
    strategy: Strategy,
    notice: Callable[[str], None],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield Gram matrices and embeddings of one part after the other, by another route where one does not work."""
    start = 0
    compared: set[tuple[_Route, int]] = set()  # a rule may be wrong for one number of samples and right for another
    while start < len(x):
        part = x[start : start + route.samples]
        own = _rows_of(rows, slice(start, start + len(part)))
        try:
            gram, z = route.gram(encode, part, own, facts, gram_dtype, compare=(route, len(part)) not in compared)
        except torch.OutOfMemoryError:
            route = route.halved()
        except _WrongRule:
            notice(_WRONG_RULE)
            route = replace(route, strategy="loop")
        except RuntimeError:
            if strategy != "auto" or route.strategy in ("loop", "replicate"):
                raise
            route = route.without_vmap()  # an operation without a vmap or forward-mode rule
        else:
            compared.add((route, len(part)))
            start += len(part)
            yield gram, z


@contextmanager
def differentiable(device_type: str) -> Generator[None, None, None]:
    """Allow derivatives in the block, eager and in the encoder's own precision, whatever is in force outside."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.autocast(device_type, enabled=False))
        stack.enter_context(full_float32())
        if "torch._dynamo" in sys.modules:  # importing it costs seconds, and nothing can be compiled without it
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


@dataclass(frozen=True)
class _Route:
    """The way to the Gram matrices of one part of the inputs.

    Attributes:
        strategy: never ``auto`` or ``patches``.
        at_patches: stop at the patch embedding.
        samples: number of inputs in one part.
        vectors: rows (reverse mode) or columns (forward mode) in one pass.
    """

    strategy: Literal["loop", "replicate", "jacrev", "forward"]
    at_patches: bool
    samples: int
    vectors: int

    @classmethod
    def choose(cls, strategy: Strategy, facts: Survey, x: Tensor, rows: Tensor | None, chunk: int | None) -> _Route:
        """Choose a route by the encoder, the rows that are asked for, and the free memory."""
        count = facts.embedding_size if rows is None else rows.shape[-2]
        if strategy == "patches" and facts.patch_layer is None:
            raise ValueError(
                "the input does not enter the encoder through one patch embedding that shrinks it: use strategy='auto'."
            )
        forward = strategy == "forward" or (strategy == "auto" and x[0].numel() < count)
        at_patches = strategy == "patches" or (strategy == "auto" and not forward and facts.patch_layer is not None)
        few = strategy == "auto" and not forward and rows is not None and chunk is None
        enough = _samples_of_a_loop(facts, x) if few else None
        chosen: Literal["loop", "replicate", "jacrev", "forward"] = (
            "forward" if forward else strategy if strategy in ("loop", "replicate") else "loop" if enough else "jacrev"
        )
        at_once = 1 if chosen == "loop" else min(count, _ROWS_AT_LEAST)
        samples = chunk or enough or _samples_per_pass(facts, x, vectors=at_once)
        samples = -(-len(x) // -(-len(x) // samples))  # parts of equal size
        vectors = max(1, min(count, _elements_per_pass(x) // (samples * facts.largest_activation)))
        return cls(chosen, at_patches, samples, vectors)

    def gram(
        self, encode: Encode, x: Tensor, rows: Tensor | None, facts: Survey, dtype: torch.dtype, *, compare: bool
    ) -> tuple[Tensor, Tensor]:
        """Gram matrices (B, M, M) and z (B, K) of one part; raises :class:`_WrongRule` where a comparison finds one."""
        layer = facts.patch_layer if self.at_patches else None
        with torch.no_grad():
            entering = x if layer is None else layer(x)
        jacobian, z = self._jacobian(_behind(layer, encode, x), entering, rows, facts.embedding_size)
        few = slice(None, None, -(-len(x) // _COMPARED_SAMPLES))
        compared = (jacobian[few], _behind(layer, encode, x[few]), entering[few], _rows_of(rows, few))
        if compare and self.strategy != "loop" and not agrees_with_autograd(*compared):
            raise _WrongRule
        return _squared(jacobian, dtype, through=None if layer is None else cast("Tensor", layer.weight)), z

    def _jacobian(self, encode: Encode, x: Tensor, rows: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
        if self.strategy == "loop":
            return jacobian_by_loop(encode, x, rows)
        if self.strategy == "forward":
            return jacobian_by_forward_mode(encode, x, rows, columns_per_pass=self.vectors)
        compute = jacobian_by_jacrev if self.strategy == "jacrev" else jacobian_by_replication
        return compute(encode, x, rows, embedding_size=size, rows_per_pass=self.vectors)

    def halved(self) -> _Route:
        """The same in half the memory; raises if it is already the least."""
        if self.samples == self.vectors == 1:
            raise torch.OutOfMemoryError("one sample and one row at a time do not fit into the device's memory.")
        if self.samples > 1:
            return replace(self, samples=self.samples // 2)
        return replace(self, vectors=self.vectors // 2)

    def without_vmap(self) -> _Route:
        """The same by copies of the samples where several fit into one pass, else by one row after the other."""
        return replace(self, strategy="replicate" if self.vectors > 1 else "loop")


def _rows_of(rows: Tensor | None, samples: slice) -> Tensor | None:
    """Rows for some of the samples: all of them where samples share theirs."""
    return rows if rows is None or rows.ndim == 2 else rows[samples]


def _behind(layer: nn.Module | None, encode: Encode, x: Tensor) -> Encode:
    """The encoder as a function of the output of ``layer`` on x; all of it where there is no layer."""
    if layer is None:
        return encode

    def encode_tokens(tokens: Tensor) -> Tensor:
        with output_replaced(layer, tokens):
            return encode(x)

    return encode_tokens


def _squared(jacobian: Tensor, dtype: torch.dtype, *, through: Tensor | None = None) -> Tensor:
    """Multiply J J^T (B, M, M), a slice of columns at a time so that J is never copied into ``dtype`` whole.

    With ``through`` = W (C, ...) the columns are tokens' channels (C, positions), and the result is J W W^T J^T.
    """
    width = 1 if through is None else len(through)
    by_position = jacobian.view(*jacobian.shape[:2], width, -1)
    root = None if through is None else _root(through.detach().flatten(1).to(dtype))
    gram = jacobian.new_zeros(len(jacobian), jacobian.shape[1], jacobian.shape[1], dtype=dtype)
    for part in by_position.split(max(1, _GRAM_COLUMNS // width), dim=-1):
        columns = part.to(dtype) if root is None else torch.einsum("bmcp,cd->bmdp", part.to(dtype), root)
        columns = columns.flatten(2)
        gram.baddbmm_(columns, columns.mT)
    return gram


def _root(weight: Tensor) -> Tensor:
    """Root A (C, C) of W W^T = A A^T."""
    eigenvalues, vectors = torch.linalg.eigh(weight @ weight.T)
    root: Tensor = vectors * eigenvalues.clamp_min(0.0).sqrt()
    return root


def _elements_per_pass(x: Tensor) -> int:
    return _ELEMENTS_PER_PASS_CPU if x.device.type == "cpu" else _ELEMENTS_PER_PASS_ACCELERATOR


def _samples_per_pass(facts: Survey, x: Tensor, *, vectors: int) -> int:
    """Number of samples with which a pass of ``vectors`` rows is large enough to pay and fits into half the memory."""
    # forward and backward keep a few times the module outputs; a row has one gradient a pass and its place in J
    bytes_a_sample = 4 * facts.activation_bytes + x[0].nbytes * (facts.embedding_size + vectors)
    worthwhile = _elements_per_pass(x) // (vectors * facts.largest_activation)
    return max(1, min(worthwhile, free_bytes(x.device) // 2 // bytes_a_sample))


def _samples_of_a_loop(facts: Survey, x: Tensor) -> int | None:
    """Number of samples with which backward passes of one row each are large enough, on a CPU; ``None`` for fewer.

    They have no copies of a vmap to make, and attention stays fused.
    """
    enough = max(_ROWS_AT_LEAST, -(-_ENOUGH_CPU // facts.largest_activation))
    most = min(len(x), _samples_per_pass(facts, x, vectors=1))
    return enough if x.device.type == "cpu" and most >= enough else None
