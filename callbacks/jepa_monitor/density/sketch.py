"""Estimates of a volume from few rows: m backward passes a sample instead of K, calibrated on exact Gram matrices."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from scipy import stats
from torch import Tensor

from ..runtime.concise import Concise
from .jacobian import differentiable, jacobian_gram
from .strategies import Encode, Strategy
from .volume import log_volume

FEWEST_REFERENCES = 16
FOLDS = 4
STEPS = 60
STEP_SIZE = 0.02
RIDGE = 1e-3

Target = Callable[[Tensor], Tensor]


@dataclass(frozen=True, repr=False)
class Sketch(Concise):
    """Estimates a function of the Gram matrix G, by default JEPA-SCORE, from S G S^T with one S (m, K) for all samples.

    With W the whitening of the reference's mean Gram and Q (m, L) rows, S = Q W, and the estimate is the linear
    regression on log det(S G S^T) and log tr(S G S^T). Q starts as a random orthonormal frame and descends the
    regression's own residual on the reference, which finds rows that see how volumes vary.

    Use it to rank samples of the kind it was fitted to; benchmarks/score.py compares it with the exact score.

    Attributes:
        rows: S (m, K).
        cross_validated_spearman: rank correlation with the exact values of reference samples, each estimated by a fit
            without its fold.
    """

    rows: Tensor
    cross_validated_spearman: float
    _weights: Tensor
    _seen: Tensor | None = None
    _seen_embeddings: Tensor | None = None

    @classmethod
    def fit(
        cls,
        encode: Encode,
        x_reference: Tensor,
        m: int,
        *,
        target: Target = log_volume,
        seed: int = 0,
        strategy: Strategy = "auto",
        chunk: int | None = None,
    ) -> Sketch:
        """Choose the rows and weights that reproduce the target of some samples' exact Gram matrices.

        Args:
            encode: maps (B, ...) inputs to (B, K) embeddings; in eval mode.
            x_reference: (N, ...) inputs, N from 16; 48 is a good number for K = 192.
            m: rows, from 2 to K.
            target: maps Gram matrices (N, K, K) to what is estimated, (N,) nats.
            seed: draws the random frame.
            strategy, chunk: see :func:`jacobian_gram`.

        Raises:
            ValueError: for m out of range, or fewer than 16 samples with a finite Gram matrix.
        """
        gram = jacobian_gram(encode, x_reference, strategy=strategy, chunk=chunk)
        sketch = cls.calibrate(gram, m, target=target, seed=seed, dtype=x_reference.dtype)
        seen = x_reference[:2].detach().clone()
        return replace(sketch, _seen=seen, _seen_embeddings=_embed(encode, seen))

    @classmethod
    def calibrate(
        cls, gram: Tensor, m: int, *, target: Target = log_volume, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> Sketch:
        """Fit to exact Gram matrices (N, K, K) that are there already, for :meth:`estimate`.

        Args:
            gram: float64.
            m, target, seed: see :meth:`fit`.
            dtype: precision of the Jacobians behind them.
        """
        finite = torch.isfinite(gram).flatten(1).all(1)
        if int(finite.sum()) < FEWEST_REFERENCES:
            raise ValueError(
                f"a sketch needs at least {FEWEST_REFERENCES} reference samples with a finite Jacobian, "
                f"got {int(finite.sum())} of {len(gram)}."
            )
        if not 2 <= m <= gram.shape[-1]:
            raise ValueError(f"m must be from 2 to K = {gram.shape[-1]}, got {m}.")
        with differentiable(gram.device.type):
            gram = gram[finite]
            values = target(gram)
            # directions that no sample has are rounding, which whitening would enlarge
            whitener = _whitener(gram.mean(0), smallest=torch.finfo(dtype).eps ** 2 * gram.shape[-1])
            white = whitener @ gram @ whitener.T
            rows, weights = _fit_rows(white, values, min(m, len(whitener)), seed)
            spearman = _cross_validate(white, values, min(m, len(whitener)), seed)
        return cls(rows @ whitener, spearman, weights)

    def score(self, encode: Encode, x: Tensor, *, strategy: Strategy = "auto", chunk: int | None = None) -> Tensor:
        """Estimate the target, (N,) nats; NaN for a sample whose Jacobian is not finite.

        Raises:
            ValueError: if the encoder is not the one that the sketch was fitted to, or was trained on since.
        """
        self._require_same_encoder(encode)
        sketched = jacobian_gram(encode, x, rows=self.rows, strategy=strategy, chunk=chunk)
        return self.estimate(sketched)

    def estimate(self, sketched: Tensor) -> Tensor:
        """Estimate the target, (N,) nats, from Gram matrices S G S^T (N, m, m) that are there already."""
        return _predict(_features(sketched), self._weights)

    def _require_same_encoder(self, encode: Encode) -> None:
        if self._seen is None or self._seen_embeddings is None:
            raise ValueError("this sketch was calibrated without an encoder: use estimate.")
        now, then = _embed(encode, self._seen), self._seen_embeddings
        moved = float((now - then).abs().nan_to_num().max()) if now.shape == then.shape else math.inf
        if moved > 100.0 * torch.finfo(then.dtype).eps * float(then.abs().nan_to_num().max()):
            raise ValueError(
                f"the encoder has changed since the sketch was fitted (embeddings moved by {moved:.1e}): fit it again."
            )


def _embed(encode: Encode, x: Tensor) -> Tensor:
    with differentiable(x.device.type), torch.no_grad():
        return encode(x.clone()).detach()


def _whitener(mean_gram: Tensor, *, smallest: float) -> Tensor:
    """Whitener W (L, K) with W M W^T = I on the directions above ``smallest``, relative to the largest eigenvalue."""
    eigenvalues, axes = torch.linalg.eigh(mean_gram)
    kept = eigenvalues > smallest * eigenvalues[-1]
    whitener: Tensor = (axes[:, kept] / eigenvalues[kept].sqrt()).T
    return whitener.contiguous()


def _fit_rows(white: Tensor, values: Tensor, m: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows Q (m, L) and regression weights for whitened Gram matrices (N, L, L) and their target (N,)."""
    generator = torch.Generator().manual_seed(seed)
    frame = torch.linalg.qr(torch.randn(white.shape[-1], m, generator=generator, dtype=torch.float64)).Q.T
    rows = frame.to(white).contiguous().requires_grad_(True)
    optimizer = torch.optim.Adam([rows], lr=STEP_SIZE)
    spread = values.var().clamp_min(torch.finfo(values.dtype).tiny)
    for _ in range(STEPS):
        with torch.enable_grad():
            features = _features(rows @ white @ rows.T)
            residual = values - _predict(features, _regress(features, values))
            loss = residual.square().mean() / spread
        (rows.grad,) = torch.autograd.grad(loss, rows)
        optimizer.step()
    found = rows.detach()
    return found, _regress(_features(found @ white @ found.T), values)


def _features(sketched: Tensor) -> Tensor:
    """Features of (N, m, m): log det and log trace, (N, 2)."""
    log_determinant = torch.linalg.slogdet(sketched).logabsdet
    return torch.stack([log_determinant, sketched.diagonal(dim1=-2, dim2=-1).sum(-1).log()], dim=1)


def _regress(features: Tensor, values: Tensor) -> Tensor:
    """Weights (2,) and intercept, by least squares with a slight ridge."""
    centred = features - features.mean(0)
    normal = centred.T @ centred
    ridge = RIDGE * normal.diagonal().mean().clamp_min(torch.finfo(normal.dtype).tiny)
    weights = torch.linalg.solve(normal + ridge * torch.eye(2).to(normal), centred.T @ (values - values.mean()))
    return torch.cat([weights, (values.mean() - features.mean(0) @ weights)[None]])


def _predict(features: Tensor, weights: Tensor) -> Tensor:
    return features @ weights[:2] + weights[2]


def _cross_validate(white: Tensor, values: Tensor, m: int, seed: int) -> float:
    estimates = torch.empty_like(values)
    fold = torch.arange(len(values), device=values.device) % FOLDS
    for left_out in range(FOLDS):
        rows, weights = _fit_rows(white[fold != left_out], values[fold != left_out], m, seed)
        estimates[fold == left_out] = _predict(_features(rows @ white[fold == left_out] @ rows.T), weights)
    if float(values.min()) == float(values.max()):
        return math.nan
    return float(stats.spearmanr(estimates.cpu(), values.cpu()).statistic)
