"""The last values of a run: its row in TensorBoard's HPARAMS tab, and the lines that the command ends with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger

from jepa_monitor.pictures.charts import ACCURACIES, OF_SETS, OF_SETS_Z
from jepa_monitor.runtime.plan import FEWEST_RANKED

FINAL = (
    "density/spearman",
    "density/stability",
    "gaussianity/sliced_ep_ratio",
    "gaussianity/effective_rank_ratio",
    "jacobian/intrinsic_dimension",
    "knn/accuracy",
    "linear_probe/accuracy",
    "monitor/keep",
    "train/loss",
)
EMBEDDINGS = {
    "gaussianity/sliced_ep_ratio": ("Gaussianity ratio", "1 is Gaussian"),
    "jacobian/intrinsic_dimension": ("intrinsic dimension", "directions in use"),
}
TERMS = {"token_weight": "tokens", "embedding_weight": "embedding", "centre_weight": "centre"}


def results(metrics: Mapping[str, float], verdict: str = "") -> list[str]:
    """Write at most three lines on what was measured last: the ranking, the features, the embeddings with the verdict.

    Args:
        metrics: tag to value; what is NaN or missing is left out.
        verdict: the monitor's sentence on the embeddings, which its story begins with, or none.
    """
    known = {tag: float(value) for tag, value in metrics.items() if math.isfinite(value)}
    return [line for line in (_on_ranking(known), _on_features(known), _on_embeddings(known, verdict)) if line]


def _on_ranking(known: Mapping[str, float]) -> str:
    ranked = known.get("monitor/samples", 0.0)
    of_samples = f"of {ranked:.0f} samples" + (", too few to rely on" if ranked < FEWEST_RANKED else "")
    if "density/spearman" in known:
        pixels = known.get("density/spearman_gaussian")
        beside = "" if pixels is None else f"; one Gaussian on the pixels: {pixels:.2f}"
        correlation = f"rank correlation with the true log density {known['density/spearman']:.2f}"
        return f"Density: {correlation} (1 is perfect{beside}), {of_samples}."
    sets = {tag.removeprefix(OF_SETS): value for tag, value in known.items() if tag.startswith(OF_SETS)}
    if sets:
        named = ", ".join(f"{name} {value:.2f}" + _without_volume(known, name) for name, value in sets.items())
        return f"Density: AUROC of other data sets: {named} (0.5 is chance, 1 is perfect)."
    if "density/stability" in known:
        stability = known["density/stability"]
        return f"Density: rank correlation with the measurement before {stability:.2f}, {of_samples}."
    return ""


def _without_volume(known: Mapping[str, float], name: str) -> str:
    """Write the value that the density of embeddings alone has: where both differ, one of them fails."""
    alone = known.get(OF_SETS_Z + name)
    return "" if alone is None else f" (without the volume {alone:.2f})"


def _on_features(known: Mapping[str, float]) -> str:
    named = []
    for name, tag in ACCURACIES.items():
        if tag in known:
            pixels = known.get(f"{tag}_pixels")
            named.append(f"{name} accuracy {known[tag]:.3f}" + ("" if pixels is None else f" (pixels {pixels:.3f})"))
    return f"Features: {', '.join(named)}." if named else ""


def _on_embeddings(known: Mapping[str, float], verdict: str) -> str:
    named = [f"{words} {known[tag]:.3g} ({meaning})" for tag, (words, meaning) in EMBEDDINGS.items() if tag in known]
    said = [f"{', '.join(named)}."] if named else []
    return f"Embeddings: {' '.join([*said, *filter(None, [verdict])])}" if said or verdict else ""


class FinalValues(pl.Callback):
    """Logs objective, data, K and seeds of a run with its last values, through the logger's ``log_hyperparams``."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log them where there is something to compare runs by."""
        found = {tag: float(trainer.callback_metrics[tag]) for tag in FINAL if tag in trainer.callback_metrics}
        metrics = {tag: value for tag, value in found.items() if math.isfinite(value)}
        if not metrics:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                facts = facts_of(pl_module.hparams, trainer.datamodule)  # type: ignore[attr-defined]  # set by its data connector
                logger.log_hyperparams(facts, metrics=metrics, step=trainer.global_step)


def facts_of(settings: Any, datamodule: Any) -> dict[str, Any]:
    """Name what runs differ in: objective, data, embedding size K, seeds, encoder and learning rate.

    TensorBoard shows the first five by the alphabet, and hides seeds.

    Args:
        settings: arguments of the module.
        datamodule: its data.
    """
    return {
        "objective": objective_of(settings),
        "data": type(datamodule).__name__.removesuffix("DataModule"),
        "embedding_size": settings["embedding_size"],
        "seed_of_model": settings["seed"],
        "seed_of_data": getattr(datamodule, "seed", "-"),
        "encoder": settings["encoder"],
        "peak_learning_rate": settings["learning_rate"],
    }


def objective_of(settings: Any) -> str:
    """Write an objective as the terms that have a weight, such as ``tokens + embedding + sigreg``."""
    terms = [name for weight, name in TERMS.items() if settings[weight] > 0.0]
    if settings["anticollapse"] != "none" and settings["anticollapse_weight"] > 0.0:
        terms.append(settings["anticollapse"])
    if settings["spectral_weight"] > 0.0:
        terms.append("spectral norm")
    return " + ".join(terms)
