"""The command line: LightningCLI over the JEPA module and any DataModule."""

from __future__ import annotations

import sys
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from jepa_train.errors import ConfigurationError
from jepa_train.module import JEPA

PACKAGE = Path(__file__).resolve().parent
# a wheel carries the configs inside the package, a clone beside it
CONFIGS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent / "configs"
SUBCOMMANDS = ("fit", "validate", "test", "predict")


class SaveConfig(SaveConfigCallback):
    """Keeps the resolved config beside the run, as a file and as a page in TensorBoard."""

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the page; the file is written by Lightning."""
        text = self.parser.dump(self.config, skip_none=False)
        for logger in trainer.loggers:
            add_text = getattr(getattr(logger, "experiment", None), "add_text", None)
            if add_text is not None:
                add_text("config", f"```yaml\n{text}\n```")


class JEPACLI(LightningCLI):
    """Lightning's command line with the image size linked to the model and ``--ckpt_path last`` resolved."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The model is built for the images that the DataModule gives."""
        parser.link_arguments("data.image_size", "model.image_size", apply_on="instantiate")
        parser.link_arguments("data.channels", "model.channels", apply_on="instantiate")

    def before_instantiate_classes(self) -> None:
        """Let ``last`` mean the newest checkpoint below the logger's folder, and go on in that run's folder."""
        config = self.config[self.config.subcommand]
        if config.get("ckpt_path") != "last":
            return
        logger = config.trainer.logger
        if "init_args" not in (logger or {}) or not logger.init_args.get("name"):
            raise ConfigurationError("--ckpt_path last looks below the logger's folder: name a logger, or give a path.")
        folder = Path(logger.init_args.save_dir) / logger.init_args.name
        checkpoints = sorted(folder.glob("*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
        if not checkpoints:
            raise ConfigurationError(f"there is no last.ckpt below {folder} to go on from: run fit first.")
        config.ckpt_path = str(checkpoints[-1])
        logger.init_args.version = checkpoints[-1].parent.parent.name

    def after_fit(self) -> None:
        """Say where the run lies and how to look at it."""
        folder = self.trainer.log_dir  # every process asks: the answer is broadcast
        if folder is not None and self.trainer.is_global_zero:
            print(f"\nThe run lies in {folder}. To look at it:\n\n    tensorboard --logdir {folder}\n")


def main(args: list[str] | None = None) -> JEPACLI:
    """Run the command line.

    Args:
        args: arguments; default: those of the process. Without ``--config``, configs/mixture.yaml is used.

    Returns:
        the finished command line, with its ``trainer``, ``model`` and ``datamodule``.

    Raises:
        SystemExit: with one readable message, for anything a user can mend.
    """
    arguments = sys.argv[1:] if args is None else args
    # a default config is not merged with a given one: settings of one would leak into the other
    given = any(argument.split("=")[0] in ("-c", "--config") for argument in arguments)
    defaults = [] if given else [str(CONFIGS / "mixture.yaml")]
    try:
        return JEPACLI(
            JEPA,
            pl.LightningDataModule,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={name: {"default_config_files": defaults} for name in SUBCOMMANDS},
            args=args,
        )
    except ConfigurationError as error:
        raise SystemExit(f"error: {error}") from None
