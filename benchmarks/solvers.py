"""Times the solvers written out in jepa_monitor against scikit-learn's, on one CPU thread, and compares their answers.

    python benchmarks/solvers.py [--repeats 5]

Runs are interleaved, times are medians. The difference is that of objectives (logistic regression, lower is better), of
labels that differ (vote), of distances from those in float64 by brute force (neighbours, with all features moved by
10,000), and of shrunk covariances as scores see them (Mahalanobis), relative to the largest.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from threadpoolctl import threadpool_limits
from torch import Tensor

from jepa_monitor.evaluation import LinearProbe, weighted_knn
from jepa_monitor.ranking import Mahalanobis, knn_distance

SIZES = ((512, 64), (5_000, 192), (5_000, 768))
CLASSES, RIDGE, TOL, OFFSET = 10, 1e-3, 1e-5, 1e4


def features(count: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """(count, size) features of overlapping classes, whose variances fall as 1 / k^2, and (count,) labels."""
    shared, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    centres = 0.5 * torch.randn(CLASSES, size, generator=shared)
    mixing = torch.randn(size, size, generator=shared) / torch.arange(1, size + 1)
    labels = torch.randint(CLASSES, (count,), generator=own)
    return (centres[labels] + torch.randn(count, size, generator=own)) @ mixing.T, labels


def race(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> tuple[list[float], list[Any]]:
    """Median seconds and answers of both."""
    seconds: list[list[float]] = [[], []]
    answers: list[Any] = [None, None]
    for _ in range(repeats):
        for side, solve in enumerate((ours, theirs)):
            start = time.perf_counter()
            answers[side] = solve()
            seconds[side].append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds], answers


def regression(x: Tensor, y: Tensor, _: Tensor, repeats: int) -> tuple[list[float], str]:
    """Multinomial logistic regression, both by L-BFGS to the same largest entry of the gradient."""
    mean, scale = x.double().mean(0), x.double().std(0, correction=0)
    standardised = ((x.double() - mean) / scale).numpy()

    def theirs() -> LogisticRegression:
        return LogisticRegression(C=1.0 / (RIDGE * len(x)), tol=TOL, max_iter=1_000).fit(standardised, y.numpy())

    def objective(weight: Tensor, bias: Tensor) -> float:
        logits = torch.from_numpy(standardised) @ weight.T + bias
        return float(torch.nn.functional.cross_entropy(logits, y) + 0.5 * RIDGE * weight.square().sum())

    seconds, (probe, model) = race(lambda: LinearProbe.fit(x, y, ridge=RIDGE, tol=TOL), theirs, repeats)
    theirs_at = objective(torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_))
    return seconds, f"{objective(probe.weight, probe.bias):.7f} and {theirs_at:.7f}"


def vote(x: Tensor, y: Tensor, queries: Tensor, repeats: int) -> tuple[list[float], str]:
    """Weighted vote of 20 neighbours in cosine similarity."""
    mean = x.mean(0)

    def theirs() -> Any:
        model = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1.0 - d) / 0.07))
        return model.fit((x - mean).numpy(), y.numpy()).predict((queries - mean).numpy())

    seconds, (voted, expected) = race(lambda: weighted_knn(queries, x, y), theirs, repeats)
    return seconds, f"{int((voted.numpy() != expected).sum())} of {len(queries)} labels"


def neighbours(x: Tensor, _: Tensor, queries: Tensor, repeats: int) -> tuple[list[float], str]:
    """Distance to the tenth neighbour."""
    bank, far = x.double() + OFFSET, queries.double() + OFFSET

    def theirs() -> Any:
        return NearestNeighbors(n_neighbors=10, algorithm="brute").fit(bank.numpy()).kneighbors(far.numpy())[0][:, -1]

    seconds, answers = race(lambda: knn_distance(far, bank), theirs, repeats)
    exact = torch.cat(
        [
            torch.cdist(part, bank, compute_mode="donot_use_mm_for_euclid_dist").kthvalue(10, 1).values
            for part in far[:256].split(32)
        ]
    )
    errors = [float(((torch.as_tensor(answer)[:256] - exact) / exact).abs().max()) for answer in answers]
    return seconds, f"{errors[0]:.0e} and {errors[1]:.0e}"


def mahalanobis(x: Tensor, _: Tensor, queries: Tensor, repeats: int) -> tuple[list[float], str]:
    """Covariance shrunk as by Ledoit and Wolf, and distances by it."""
    seconds, answers = race(
        lambda: Mahalanobis.fit(x).score(queries),
        lambda: -0.5 * LedoitWolf().fit(x.double().numpy()).mahalanobis(queries.double().numpy()),
        repeats,
    )
    ours, theirs = (torch.as_tensor(answer) for answer in answers)
    return seconds, f"{float((ours - theirs).abs().max() / theirs.abs().max()):.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print("| solver | samples x features | jepa_monitor | scikit-learn | difference |\n|---|---|---|---|---|")
    with threadpool_limits(1):
        for solver in (regression, vote, neighbours, mahalanobis):
            for count, size in SIZES:
                (x, y), (queries, _) = features(count, size, 1), features(count, size, 2)
                (ours, theirs), difference = solver(x, y, queries, repeats)
                name = solver.__name__
                print(f"| {name} | {count} x {size} | {ours:.3f} s | {theirs:.3f} s | {difference} |", flush=True)


if __name__ == "__main__":
    main()
