"""A run of two steps, begun by the command line in the folder in which a test is."""

from __future__ import annotations

from jepa_train.cli import JEPACLI, main

TINY = [
    "--trainer.max_epochs=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.log_every_n_steps=1",
    "--monitor=null",
    "--trainer.callbacks=lightning.pytorch.callbacks.ModelCheckpoint",
    "--trainer.callbacks.save_last=true",
    "--data.num_train=128",
    "--data.num_probe=32",
    "--data.batch_size=64",
    "--model.encoder_overrides={embed_dim: 16, depth: 1, num_heads: 2}",
    "--model.projector_hidden=16",
    "--model.predictor_width=16",
]


def run(subcommand: str, *arguments: str) -> JEPACLI:
    cli = main([subcommand, *TINY, "--trainer.logger.save_dir=runs", *arguments])
    assert cli is not None
    return cli
