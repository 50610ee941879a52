"""Rules that find the number of directions that carry density, compared while training on known and on real images.

    python benchmarks/rank.py [--epochs 2] [--only NAME] [--json FILE]

For each setting, epoch by epoch: the rank that each rule reads from the probe's mean log spectrum (whitened embedding,
K = 16), the rank that would have ranked best, and the rank correlation with the true log density that each gives.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from scipy import stats
from torch import Tensor

from jepa_monitor import auto_rank
from jepa_monitor.density import EmbeddingReference, gram_and_embedding, log_density_from_spectrum
from jepa_train.cli import CONFIGS
from jepa_train.data import FashionMNISTDataModule, MixtureDataModule
from jepa_train.module import JEPA

K = 16
NUM_PROBE = 256


def widest_gap(spectrum: Tensor) -> int:
    """The widest gap, however narrow."""
    return auto_rank(spectrum, smallest_gap=0.0)


def tenth_of_largest(spectrum: Tensor) -> int:
    """Singular values above a tenth of the largest."""
    return int((spectrum >= spectrum[0] - math.log(10.0)).sum())


def profile_likelihood(spectrum: Tensor) -> int:
    """Two groups of log singular values with one variance, most likely split (Zhu and Ghodsi, 2006)."""
    size = len(spectrum)
    pooled = [
        spectrum[:r].sub(spectrum[:r].mean()).square().sum() + spectrum[r:].sub(spectrum[r:].mean()).square().sum()
        for r in range(1, size)
    ]
    return int(torch.stack(pooled).argmin()) + 1


RULES: dict[str, Callable[[Tensor], int]] = {
    "auto_rank": auto_rank,
    "widest gap": widest_gap,
    "tenth": tenth_of_largest,
    "likelihood": profile_likelihood,
}


class Spectra(pl.Callback):
    """Ranks by every rule after each epoch."""

    def __init__(self, images: Tensor, truth: Tensor | None) -> None:
        self.images, self.truth = images, truth
        self.rows: list[dict[str, Any]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure; the encoder's batch norm is put into eval mode meanwhile."""
        assert isinstance(pl_module, JEPA)
        encoder = pl_module.target.eval()
        gram, z = gram_and_embedding(encoder, self.images)
        encoder.train()
        reference = EmbeddingReference.fit(z, gram=gram)
        spectrum = reference.mean_log_spectrum
        assert spectrum is not None
        values, white = reference.log_singular_values(gram), reference.whiten(z)
        row: dict[str, Any] = {"spectrum": spectrum.tolist(), **{name: rule(spectrum) for name, rule in RULES.items()}}
        if self.truth is not None:
            row["spearman"] = [
                float(stats.spearmanr(log_density_from_spectrum(values, white, rank=r), self.truth).statistic)
                for r in range(1, len(spectrum) + 1)
            ]
        self.rows.append(row)


def train(config: str, data: Any, epochs: int, **changes: Any) -> list[dict[str, Any]]:
    """Train the config's model with a K = 16 embedding."""
    pl.seed_everything(0, verbose=False)
    options = yaml.safe_load((CONFIGS / f"{config}.yaml").read_text())["model"]
    options |= {"embedding_size": K, "image_size": data.image_size, "channels": data.channels, **changes}
    data.setup("fit")
    probe = data.probe_dataset()
    images = torch.stack([probe[index]["image"] for index in range(NUM_PROBE)])
    densities = getattr(probe, "log_densities", None)
    spectra = Spectra(images, densities["semantic"](images) if densities else None)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[spectra],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(JEPA(**options), data)
    return spectra.rows


def mixture(latent_size: int, noise: float) -> MixtureDataModule:
    """configs/mixture.yaml's images with other factors and noise."""
    return MixtureDataModule(
        image_size=16,
        latent_size=latent_size,
        num_components=2,
        separation=1.0,
        narrowest=0.4,
        contrast=0.1,
        noise=noise,
        num_train=20000,
        num_probe=1024,
        batch_size=128,
    )


def main() -> None:
    """Print one line an epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--only", default="", help="settings whose name contains this")
    parser.add_argument("--json", type=Path, help="write all values here, spectra too")
    arguments = parser.parse_args()
    settings: dict[str, Callable[[], list[dict[str, Any]]]] = {
        f"r={r} {name} noise": (lambda r=r, noise=noise: train("mixture", mixture(r, noise), arguments.epochs))
        for r in (2, 4, 8)
        for name, noise in (("low", 0.02), ("high", 0.3))
    }
    settings["Fashion-MNIST"] = lambda: train(
        "fashion_mnist", FashionMNISTDataModule(contrast=0.25, batch_size=128), arguments.epochs
    )
    print(f"K = {K}, {NUM_PROBE} probe images; rank (Spearman with the true log density at that rank)")
    print(f"{'':22}{'epoch':>6}{'best':>14}" + "".join(f"{name:>16}" for name in RULES))
    results = {}
    for name, run in settings.items():
        if arguments.only not in name:
            continue
        results[name] = run()
        for epoch, row in enumerate(results[name], 1):
            curve = row.get("spearman")
            best = f"{max(range(len(curve)), key=curve.__getitem__) + 1} ({max(curve):.3f})" if curve else "-"
            cells = (f"{row[rule]}" + (f" ({curve[row[rule] - 1]:.3f})" if curve else "") for rule in RULES)
            print(f"{name:22}{epoch:6}{best:>14}" + "".join(f"{cell:>16}" for cell in cells), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
