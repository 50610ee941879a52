"""The rank-r volume from few rows: backward passes by r, not by K, in directions that are each sample's own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from scipy import stats
from torch import Tensor

from ..errors import require_whole
from ..runtime.concise import Concise
from .checks import finite_rows, require_between, require_embeddings, require_encoder, require_grams, require_real
from .jacobian import differentiable, gram_and_embedding, jacobian_gram
from .neighbours import nearest
from .strategies import Encode, Strategy
from .volume import leading_volume, log_singular_values, warn_of_rounding

VolumeEstimator = Literal["exact", "subspace"]

CALIBRATION_SAMPLES = 16
FEWEST_SAMPLES = 8
FOLDS = 8
FEWEST_SPARE = 4  # rows beyond r, or half of r where that is more
NEIGHBOURS_A_ROW, FEWEST_NEIGHBOURS = 4, 40
EMBEDDED_A_PASS = 256  # samples


@dataclass(frozen=True, repr=False)
class Subspace(Concise):
    """Directions of the embedding, for each sample its own, in which the r largest singular values lie.

    They are the m leading eigenvectors of P + C. P is the mean, over calibration samples, of the projector on the r
    leading eigenvectors of a sample's Gram matrix: directions that samples share. C is the covariance of the reference
    embeddings nearest to z, divided by its r-th eigenvalue and cut at 1: the directions in which the embeddings vary
    about z, which turn from sample to sample where training bends their manifold. With rows S (m, K) of them, the r
    largest eigenvalues of S G S^T are never above those of G, and equal where all r directions are found.

    Attributes:
        rank: r.
        directions: m.
        reference: (M, K) embeddings whose nearest are looked up.
        shared: (s, K) leading eigenvectors of P, each times the root of its eigenvalue.
        held_out_spearman: rank correlation with exact volumes of the calibration samples, each estimated without it;
            NaN where those volumes are all equal.
    """

    rank: int
    directions: int
    reference: Tensor
    shared: Tensor
    held_out_spearman: float = math.nan
    _seen: Tensor | None = None
    _seen_embeddings: Tensor | None = None

    @classmethod
    def fit(
        cls,
        encode: Encode,
        x: Tensor,
        rank: int,
        *,
        reference: Tensor,
        directions: int | None = None,
        strategy: Strategy = "auto",
        chunk: int | None = None,
    ) -> Subspace:
        """Fit to exact Gram matrices of a few samples and embeddings of many.

        Args:
            encode: maps (B, ...) inputs to (B, K) embeddings; in eval mode.
            x: (N, ...) calibration inputs, N from 8; 16 are enough.
            rank: r, from 1 to K.
            reference: (M, K) embeddings by this encoder, M above m; some thousands are good. Those that are not finite
                are left out.
            directions: m, from r to K; ``None`` means 1.5 r, at least r + 4, at most K.
            strategy, chunk: see :func:`jacobian_gram`.

        Raises:
            TypeError: for inputs or a reference that are no tensors.
            ValueError: for a rank or directions out of range, a reference that is too small, of another K or a point,
                or fewer than 8 samples with a finite Gram matrix.
        """
        require_encoder(encode, x)
        _require_enough(len(x), len(x))
        gram, z = gram_and_embedding(encode, x, strategy=strategy, chunk=chunk)
        subspace = cls.calibrate(gram, z, rank, reference=reference, directions=directions)
        seen = x[torch.isfinite(z).all(1)][:2].detach().clone()  # others would not tell one encoder from another
        return replace(subspace, _seen=seen, _seen_embeddings=_embed(encode, seen))

    @classmethod
    def calibrate(
        cls, gram: Tensor, z: Tensor, rank: int, *, reference: Tensor, directions: int | None = None
    ) -> Subspace:
        """Fit to Gram matrices and embeddings that are there already, for :meth:`rows` and :meth:`estimate`.

        Args:
            gram: (N, K, K) exact ones, float64, in the coordinates in which volumes are wanted.
            z: (N, K) embeddings of the same samples, in the same coordinates.
            rank, reference, directions: see :meth:`fit`.

        Raises:
            TypeError, ValueError: as :meth:`fit` does.
        """
        size = require_grams(gram).shape[-1]
        z = require_embeddings(z, size=size)
        require_between(1, size, rank=rank)
        m = subspace_rows(rank, size) if directions is None else directions
        require_between(rank, size, directions=m)
        reference = finite_rows(require_embeddings(reference, size=size, name="reference embeddings")).double()
        if len(reference) <= m:
            raise ValueError(
                f"{m} directions need more than {m} finite reference embeddings, got {len(reference)}: embed more."
            )
        if bool((reference == reference[0]).all()):
            raise ValueError("all reference embeddings are equal: they show no direction in which embeddings vary.")
        finite = torch.isfinite(gram).flatten(1).all(1) & torch.isfinite(z).all(1)
        _require_enough(int(finite.sum()), len(gram))
        gram, z = gram[finite], z[finite].double()
        projectors = _leading_projectors(gram, rank)
        bare = cls(rank, m, reference, _roots(projectors.mean(0), 2 * m))
        return replace(bare, held_out_spearman=_cross_validate(bare, gram, z, projectors))

    def rows(self, z: Tensor) -> Tensor:
        """Choose the rows of each sample by its embedding: (N, K) -> (N, m, K) orthonormal, float64.

        NaN for an embedding that is not finite. They are what :func:`jacobian_gram` takes as ``rows``.
        """
        z = require_embeddings(z, size=self.reference.shape[1])
        finite = torch.isfinite(z).all(1)
        rows = z.new_full((len(z), self.directions, z.shape[1]), torch.nan, dtype=torch.float64)
        if bool(finite.any()):
            parts = z[finite].double().split(EMBEDDED_A_PASS)
            rows[finite] = torch.cat([self._rows(part) for part in parts])
        return rows

    def estimate(self, compressed: Tensor) -> Tensor:
        """Estimate the rank-r volume, (N,) nats, from Gram matrices S G S^T (N, m, m)."""
        return leading_volume(log_singular_values(require_grams(compressed, size=self.directions)), self.rank)

    def log_volume(self, encode: Encode, x: Tensor, *, strategy: Strategy = "auto", chunk: int | None = None) -> Tensor:
        """Estimate the rank-r volume by m backward passes a sample: (N,) nats; NaN where a Jacobian is not finite.

        Warns where some of the r singular values are rounding.

        Raises:
            ValueError: if the encoder is not the one that the subspace was fitted to, or was trained on since.
        """
        self._require_same_encoder(encode)
        rows = self.rows(_embed(encode, x))
        gram = jacobian_gram(encode, x, rows=rows, strategy=strategy, chunk=chunk)
        return _volume(gram, self.rank, x.dtype)

    def _rows(self, z: Tensor) -> Tensor:
        roots = _neighbourhood(z, self.reference, self.rank, self.directions)
        roots = torch.cat([self.shared.to(roots).expand(len(z), -1, -1), roots], 1)
        _, weights = torch.linalg.eigh(roots @ roots.mT)
        leading = weights[:, :, -self.directions :].mT @ roots
        # whatever their lengths are, and where roots span fewer than m directions
        rows: Tensor = torch.linalg.qr(leading.mT.flip(-1)).Q.mT
        return rows

    def _require_same_encoder(self, encode: Encode) -> None:
        if self._seen is None or self._seen_embeddings is None:
            raise ValueError("this subspace was calibrated without an encoder: use rows and estimate.")
        now, then = _embed(encode, self._seen), self._seen_embeddings
        moved = float((now - then).abs().nan_to_num().max()) if now.shape == then.shape else math.inf
        if moved > 100.0 * torch.finfo(then.dtype).eps * float(then.abs().nan_to_num().max()):
            raise ValueError(
                f"the encoder has changed since the subspace was fitted (embeddings moved by {moved:.1e}): "
                "fit it again."
            )


def encoder_volume(
    encode: Encode,
    x: Tensor,
    *,
    rank: int,
    estimator: VolumeEstimator = "exact",
    reference: Tensor | None = None,
    calibration_samples: int = CALIBRATION_SAMPLES,
    strategy: Strategy = "auto",
    chunk: int | None = None,
) -> Tensor:
    """Log volume of the r largest directions of an encoder's Jacobian, log vol_r J, in the embedding's own coordinates.

    Args:
        encode: maps (B, ...) inputs to (B, K) embeddings; in eval mode.
        x: (N, ...) inputs.
        rank: r, from 1 to min(K, D).
        estimator: ``exact`` takes K backward passes a sample; ``subspace`` takes 1.5 r, at least r + 4 (see
            :class:`Subspace`), after K for each calibration sample.
        reference: (M, K) embeddings for ``subspace``; ``None`` means those of x.
        calibration_samples: number of the first samples that ``subspace`` is calibrated on; from 8.
        strategy, chunk: see :func:`jacobian_gram`.

    Returns:
        (N,) nats, float64, all by the same estimator; NaN for a sample whose Jacobian is not finite. Warns where some
        of the r singular values are rounding.

    Raises:
        TypeError: for inputs or a reference that are no tensors.
        ValueError: for a rank out of range, another estimator, too few calibration samples, and as
            :meth:`Subspace.fit` and :func:`jacobian_gram` do.
    """
    require_encoder(encode, x)
    if estimator not in ("exact", "subspace"):
        raise ValueError(f"estimator must be exact or subspace, got {estimator!r}.")
    if len(x):
        require_between(1, x[0].numel(), rank=rank)
    if estimator == "exact":
        return _volume(jacobian_gram(encode, x, strategy=strategy, chunk=chunk), rank, x.dtype)
    require_whole(FEWEST_SAMPLES, calibration_samples=calibration_samples)
    first, rest = x[:calibration_samples], x[calibration_samples:]
    _require_enough(len(first), len(first))
    z = _embed(encode, x)
    gram = jacobian_gram(encode, first, strategy=strategy, chunk=chunk)
    subspace = Subspace.calibrate(gram, z[: len(first)], rank, reference=z if reference is None else reference)
    rows = subspace.rows(z)
    compressed = [compress(gram, rows[: len(first)])]
    if len(rest):
        compressed.append(jacobian_gram(encode, rest, rows=rows[len(first) :], strategy=strategy, chunk=chunk))
    return _volume(torch.cat(compressed), rank, x.dtype)


def _volume(gram: Tensor, rank: int, dtype: torch.dtype) -> Tensor:
    """Rank-r volumes (N,) of Gram matrices (N, M, M), with a warning where they count rounding."""
    values = log_singular_values(gram)
    volume = leading_volume(values, rank)
    warn_of_rounding(values, rank, dtype)
    return volume


def subspace_rows(rank: int, size: int) -> int:
    """Return m, the rows that a volume of rank r takes of the K = ``size`` there are: 1.5 r, at least r + 4."""
    require_whole(0, rank=rank, size=size)  # rank 0 where there is no density
    return min(rank + max(FEWEST_SPARE, math.ceil(rank / 2)), size)


def compress(gram: Tensor, rows: Tensor) -> Tensor:
    """Reduce exact Gram matrices, (N, K, K) -> (N, m, m), to those that :func:`jacobian_gram` gives for the rows."""
    return rows @ gram @ rows.mT


def _require_enough(finite: int, given: int) -> None:
    if finite < FEWEST_SAMPLES:
        raise ValueError(
            f"a subspace needs at least {FEWEST_SAMPLES} calibration samples with a finite Jacobian, "
            f"got {finite} of {given}: give more, or take exact volumes."
        )


def _embed(encode: Encode, x: Tensor) -> Tensor:
    require_encoder(encode, x)
    with differentiable(x.device.type), torch.no_grad():
        return torch.cat([require_real(encode(part.clone())).detach() for part in x.split(EMBEDDED_A_PASS)])


def _leading_projectors(gram: Tensor, rank: int) -> Tensor:
    """Projectors (N, K, K) on the r leading eigenvectors of each Gram matrix."""
    axes = torch.linalg.eigh(gram).eigenvectors[..., -rank:]
    projectors: Tensor = axes @ axes.mT
    return projectors


def _roots(matrix: Tensor, count: int) -> Tensor:
    """Leading eigenvectors of a positive (K, K), each times the root of its eigenvalue: (count, K), or (K, K)."""
    eigenvalues, axes = torch.linalg.eigh(matrix)
    roots: Tensor = (axes * eigenvalues.clamp_min(0.0).sqrt())[:, -count:].T
    return roots


def _neighbourhood(z: Tensor, reference: Tensor, rank: int, directions: int) -> Tensor:
    """Roots (N, q, K) of the covariance of each embedding's neighbours, its eigenvalues cut at the r-th, which is 1."""
    count = min(max(NEIGHBOURS_A_ROW * directions, FEWEST_NEIGHBOURS), len(reference))
    near = reference[nearest(z, reference, count)[1]]
    near = near - near.mean(1, keepdim=True)
    # from the smaller side: the covariance of k neighbours has at most k directions
    eigenvalues, weights = torch.linalg.eigh(near @ near.mT)
    eigenvalues, weights = eigenvalues[:, -2 * directions :], weights[:, :, -2 * directions :]
    largest = eigenvalues.maximum(eigenvalues[:, -rank, None]).clamp_min(torch.finfo(eigenvalues.dtype).tiny)
    roots: Tensor = (weights / largest.sqrt()[:, None]).mT @ near
    return roots


def _cross_validate(subspace: Subspace, gram: Tensor, z: Tensor, projectors: Tensor) -> float:
    exact = leading_volume(log_singular_values(gram), subspace.rank)
    estimates = torch.empty_like(exact)
    fold = torch.arange(len(gram), device=gram.device) % FOLDS
    for number in range(FOLDS):
        out = fold == number
        without = replace(subspace, shared=_roots(projectors[~out].mean(0), 2 * subspace.directions))
        estimates[out] = without.estimate(compress(gram[out], without.rows(z[out])))
    if float(exact.min()) == float(exact.max()):
        return math.nan
    return float(stats.spearmanr(estimates.cpu(), exact.cpu()).statistic)
