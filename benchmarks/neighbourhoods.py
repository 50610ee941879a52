"""Compares estimates of the intrinsic dimension on clouds of known dimension, and neighbourhoods on trained encoders.

    python benchmarks/neighbourhoods.py [READINGS ...]

The first table has the mean of five clouds each, in as many coordinates as they need: maximum likelihood from 2
neighbours (which Facco et al. 2017 propose), from 20, and from a fortieth of the cloud, and the last two calibrated.
READINGS are files that ``benchmarks/trainings.py`` writes. Of each, the second table has the dimension of the
embeddings z and of the mean tokens by maximum likelihood (k = 20) and by default, and the Spearman correlation of
density and volume with the true log density, with the true r and the k-th neighbour of M, for several k.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from jepa_monitor import NeighbourDensity, intrinsic_dimension
from jepa_monitor.density import leading_volume, log_singular_values
from jepa_monitor.ranking import spearman

DIMENSIONS, SIZES, CLOUDS = (2, 4, 8, 16, 32), (2_000, 8_000, 20_000), 5
SHARES = {"M/100": 1 / 100, "M/40": 1 / 40, "M/20": 1 / 20}
ESTIMATES: dict[str, Callable[[Tensor], float]] = {
    "k = 2": lambda z: intrinsic_dimension(z, k=2, calibrated=False).estimate,
    "k = 20": lambda z: intrinsic_dimension(z, k=20, calibrated=False).estimate,
    "N/40": lambda z: intrinsic_dimension(z, calibrated=False).estimate,
    "k = 20, calibrated": lambda z: intrinsic_dimension(z, k=20).estimate,
    "N/40, calibrated": lambda z: intrinsic_dimension(z).estimate,
}


def gaussian(n: int, r: int) -> Tensor:
    """N(0, I), with one more coordinate, because an estimate is at most the number of coordinates."""
    return torch.cat([torch.randn(n, r), torch.zeros(n, 1)], dim=1)


def mixture(n: int, r: int) -> Tensor:
    """Four Gaussians, 2.4 from the origin."""
    centres = torch.nn.functional.normalize(torch.randn(4, r), dim=1)
    return gaussian(n, r) + torch.cat([2.4 * centres[torch.randint(4, (n,))], torch.zeros(n, 1)], dim=1)


def sphere(n: int, r: int) -> Tensor:
    """Uniform on the unit sphere."""
    return torch.nn.functional.normalize(torch.randn(n, r + 1), dim=1)


def cube(n: int, r: int) -> Tensor:
    """Uniform in a cube, most of which is near an edge where r is large."""
    return torch.cat([torch.rand(n, r), torch.zeros(n, 1)], dim=1)


def curved(n: int, r: int) -> Tensor:
    """A Gaussian through a random layer of 4 r tanh, and a linear map to 2 r."""
    hidden = torch.tanh(torch.randn(n, r) @ torch.randn(r, 4 * r) / r**0.5)
    return hidden @ torch.randn(4 * r, 2 * r) / (4 * r) ** 0.5


def noisy(n: int, r: int) -> Tensor:
    """N(0, I) in r of 2 r coordinates, and a tenth of it in all."""
    return torch.cat([torch.randn(n, r), torch.zeros(n, r)], dim=1) + 0.1 * torch.randn(n, 2 * r)


def print_clouds() -> None:
    """Print the table of known dimensions."""
    print(f"| cloud | r | N | {' | '.join(ESTIMATES)} |\n|{'---|' * (3 + len(ESTIMATES))}")
    for draw in (gaussian, mixture, sphere, cube, curved, noisy):
        for r in DIMENSIONS:
            for n in SIZES:
                clouds = [draw(n, r) for _ in range(CLOUDS)]
                cells = [f"{mean(map(estimate, clouds)):.2f}" for estimate in ESTIMATES.values()]
                print(f"| {draw.__name__} | {r} | {n} | {' | '.join(cells)} |", flush=True)


def print_readings(files: list[Path]) -> None:
    """Print the table of trained encoders."""
    columns = ["k = 20", "N/40, calibrated", "rho: k = 20", "k = 50", *SHARES]
    print(f"| encoder | r | K | M | {' | '.join(columns)} |\n|{'---|' * (4 + len(columns))}")
    for file in files:
        reading = torch.load(file, weights_only=True)
        r, truths = reading["rank"], reading["truths"]
        for kind in ("z", "tokens"):
            gram = reading["probe"][f"{kind} gram"]
            volume = leading_volume(log_singular_values(gram), r) if r else None
            for size in (2_000, 20_000):
                z = reading["reference"][kind][:size]
                cells = [f"{ESTIMATES[name](z):.2f}" for name in columns[:2]]
                for k in (20, 50, *(round(share * len(z)) for share in SHARES.values())) if r else ():
                    density = NeighbourDensity.fit(z, dimension=r, k=k).log_density(reading["probe"][kind])
                    cells.append(f"{spearman(density + volume, truths['factors']):.3f}")
                name = f"{file.parent.name} {file.stem} {kind}"
                print(f"| {name} | {r or ''} | {z.shape[1]} | {len(z)} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readings", nargs="*", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.readings:
        print_readings(arguments.readings)
    else:
        print_clouds()


if __name__ == "__main__":
    main()
