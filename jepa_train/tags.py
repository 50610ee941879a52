"""Meanings of the ``train/`` tags, as the text page of a run gives them."""

from __future__ import annotations

import lightning.pytorch as pl

MEANINGS = {
    "train/loss": "weighted sum of the terms below, of the global batch: what is minimised",
    "train/loss_tokens": "prediction error of the target tokens",
    "train/loss_embedding": "mean squared error of the predicted embedding",
    "train/loss_anticollapse": "the term against collapse, such as SIGReg",
    "train/loss_spectral": "half the sum of the online encoder's squared spectral norms",
    "train/ema_momentum": "share of the target encoder that a step keeps",
    "train/lr": "learning rate of the step",
    "train/weight_decay": "weight decay of the step, of those parameters that decay",
    "train/context_tokens": "patches of an image that the context encoder sees",
    "train/target_tokens": "patches of an image that are predicted, over all of its blocks",
    "train/masks": "picture: images, what the context encoder sees of them, and what is predicted",
}


def explanation() -> str:
    """A Markdown table of all tags; the losses have no common scale, so a rising one is no alarm by itself."""
    rows = [f"| `{tag}` | {meaning} |" for tag, meaning in MEANINGS.items()]
    return "\n".join(["| tag | what it is |", "|---|---|", *rows])


def log_text(trainer: pl.Trainer, tag: str, text: str) -> None:
    """Write a page of Markdown to every logger that takes one, on the first process."""
    for logger in trainer.loggers if trainer.is_global_zero else []:
        add_text = getattr(getattr(logger, "experiment", None), "add_text", None)
        if add_text is not None:
            add_text(tag, text)
