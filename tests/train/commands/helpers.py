"""Small runs of the command line, in the folder in which a test is."""

from __future__ import annotations

from pathlib import Path

from jepa_train.cli import JEPACLI, main

SUBCOMMANDS = ["fit", "validate", "test", "predict"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--monitor=null"]
TINY = [
    *QUIET,
    "--trainer.max_epochs=1",
    "--trainer.log_every_n_steps=1",
    "--trainer.callbacks=lightning.pytorch.callbacks.ModelCheckpoint",
    "--trainer.callbacks.save_last=true",
    "--model.encoder_overrides={embed_dim: 16, depth: 1, num_heads: 2}",
    "--model.projector_hidden=16",
]
MIXTURE = ["--data.num_train=64", "--data.num_probe=32", "--data.batch_size=32"]
QUICK = (
    "fit --data.num_train=64 --data.num_probe=16 --data.batch_size=16 --data.image_size=8 --model.min_context=1 "
    "--model.encoder_overrides='{embed_dim: 16, depth: 1, num_heads: 2}' --model.predictor_width=16 "
    "--monitor=null --trainer.max_epochs=1 --trainer.accelerator=cpu --trainer.enable_progress_bar=false "
    "--trainer.enable_model_summary=false --trainer.log_every_n_steps=1 "
)


def command(*arguments: str) -> JEPACLI:
    """Run the command line to its end."""
    cli = main([*arguments])
    assert cli is not None
    return cli


def make_run(*arguments: str) -> Path:
    """The folder of a run of two steps or so."""
    return Path(command("fit", *arguments[:2], *TINY, *arguments[2:]).trainer.log_dir)


def last_of(folder: Path) -> Path:
    """The last checkpoint of a run."""
    return folder / "checkpoints" / "last.ckpt"


def versions(name: str = "mixture") -> list[str]:
    """Names of the folders of runs."""
    return sorted(path.name for path in Path("runs", name).iterdir())
