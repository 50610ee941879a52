"""The command line: LightningCLI over the JEPA module and any DataModule."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch.distributed as dist
import yaml
from jsonargparse import Namespace
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from jepa_monitor import JEPAScoreMonitor
from jepa_train.checkpoints.compatibility import (
    check_arguments,
    check_fits,
    data_state,
    model_arguments,
    weight_shapes,
    without_fetching,
)
from jepa_train.checkpoints.files import AtomicCheckpointIO, check_address, is_sharded, read_checkpoint
from jepa_train.checkpoints.resume import limit_reached
from jepa_train.checkpoints.stopping import ClosingCheckpoint, StopSignals
from jepa_train.commands.final_values import FinalValues, results
from jepa_train.commands.idle import idle_options
from jepa_train.commands.mistakes import one_sentence
from jepa_train.commands.options import add_monitor_option, callbacks_with_monitor, check_run
from jepa_train.commands.output import brief, counted, expect_checkpoints, trainer_output
from jepa_train.commands.parsing import Parser
from jepa_train.commands.precision import leave_slow_bfloat16
from jepa_train.commands.progress import ProgressLine
from jepa_train.commands.rank import RANK_HELP, run_rank
from jepa_train.commands.run_folder import DiscardUnbegun, SaveConfig, keep_in, plain
from jepa_train.commands.start import Start, find_start, go_on_in_folder, name_after_overlays
from jepa_train.errors import ConfigurationError
from jepa_train.export import EXPORT_HELP, run_export
from jepa_train.module import JEPA
from jepa_train.parallel import disconnect
from jepa_train.parts import LOCAL
from jepa_train.ranking import RankingWriter

PACKAGE = Path(__file__).resolve().parent
# a wheel carries the configs inside the package, a clone beside it
CONFIGS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent / "configs"
# subcommands beside Lightning's
OTHERS: dict[str, Callable[[list[str]], None]] = {"export": run_export, "rank": run_rank}


class JEPACLI(LightningCLI):
    """Lightning's command line with the image size linked to the model, and checkpoints that are checked first.

    ``--ckpt_path`` takes a file, or ``last`` for the newest one below the logger's folder. The model is built with the
    checkpoint's hyper-parameters; conflicting options are ignored with a warning, and refused where they ask for other
    weights.

    Args:
        start: checkpoint and configs that the command starts from, see :func:`find_start`.
    """

    def __init__(self, *args: Any, start: Start | None = None, **kwargs: Any) -> None:
        self.start = start or Start()
        super().__init__(*args, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the monitor; the model is built for the images that the DataModule gives."""
        add_monitor_option(parser)
        parser.link_arguments("data.image_size", "model.image_size", apply_on="instantiate")
        parser.link_arguments("data.channels", "model.channels", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, and see that the checkpoint can be used, before Lightning takes over its settings."""
        try:
            super().parse_arguments(parser, args)
        except UnicodeDecodeError:
            raise ConfigurationError("a config is not a text file: --config takes a YAML file.") from None
        config = self._settings
        check_run(config.as_dict())
        plain(config)
        if self.config.subcommand == "fit" and not self.start.is_last:
            name_after_overlays(config, self.start.overlays)
        if config.get("weights_only") is None:
            config.weights_only = True  # Lightning's own default lets what comes from the web run code
        self.checkpoint: dict[str, Any] | None = None
        self._given = self._given_options(args)
        self._insists_on_precision = "--trainer.precision" in [word.partition("=")[0] for word in _words(args)]
        self._choose_checkpoint(args)

    def _choose_checkpoint(self, args: ArgsType) -> None:
        """Find the checkpoint that the command starts from, see that it can be used, and log which it is."""
        config = self._settings
        if self.start.is_last:
            config.ckpt_path = self.start.checkpoint
            if self.config.subcommand == "fit":
                go_on_in_folder(config, Path(config.ckpt_path).parent.parent)
                expect_checkpoints(Path(config.ckpt_path).parent)
        path = config.get("ckpt_path")
        # checkpoints of sharded models and addresses are Lightning's business
        if path is not None and not (is_sharded(Path(path)) or path == "hpc" or "://" in path):
            self._check_checkpoint(path, args)
        elif path is not None and "://" in path:
            check_address(path)
        if self.start.checkpoint is not None:
            step = None if self.checkpoint is None else self.checkpoint.get("global_step")
            rank_zero_info(self.start.sentence(self.config.subcommand, step))

    def _check_checkpoint(self, path: str, args: ArgsType) -> None:
        """See that the checkpoint is of this model, and has what the subcommand needs; leave a finished run alone."""
        self.checkpoint = read_checkpoint(Path(path))
        config = self._settings
        check_arguments(self.checkpoint, Path(path), used=config.model.as_dict())
        self._check_data(self.checkpoint, path, args)
        if self.config.subcommand == "fit":
            if "optimizer_states" not in self.checkpoint:
                raise ConfigurationError(
                    f"training cannot go on from the checkpoint {path}, which holds only weights: save checkpoints "
                    "without save_weights_only."
                )
            if reached := limit_reached(self.checkpoint, config.trainer, path):
                self.parser.exit(message=f"{reached}\n")
        # what was asked for, before the checkpoint's hyper-parameters take its place
        *files, typed = self._given
        configured = [name for file in files for name in file]
        self._typed = {name: config.model[name] for name in typed if name in config.model}
        self._configured = {name: config.model[name] for name in configured if name in config.model}

    def _check_data(self, checkpoint: dict[str, Any], path: str, args: ArgsType) -> None:
        """See that data which nobody chose are of the class that the checkpoint was trained on."""
        trained_on, used = data_state(checkpoint)[0], self._settings.data.class_path.rpartition(".")[2]
        chosen = any(word.partition("=")[0] in ("--data", "--data.class_path") for word in _words(args))
        by_default = self.start.default_configs and self.start.run_config is None and not chosen
        if by_default and trained_on not in (None, used):
            raise ConfigurationError(
                f"the checkpoint {path} was trained on {trained_on}, but the config of its run is missing, and "
                f"{self.start.default_configs[0]} would give the data {used}: give -c CONFIG, or --data {trained_on} "
                "with its settings."
            )

    def before_instantiate_classes(self) -> None:
        """Warn of given options that the checkpoint overrides, and download no weights that it replaces."""
        if self.config.subcommand == "predict":
            self._keep_no_record()
        if self.checkpoint is None:
            return
        used = self._settings.model
        self._name_what_differs(self.checkpoint)
        for name, value in without_fetching(used.as_dict(), self.checkpoint["state_dict"]).items():
            used[name] = value

    def _name_what_differs(self, checkpoint: dict[str, Any]) -> None:
        path, used = self._settings.ckpt_path, self._settings.model
        typed = {name: value for name, value in self._typed.items() if used[name] != value}
        differing = typed | {name: value for name, value in self._configured.items() if used[name] != value}
        if not differing:
            return
        arguments = model_arguments(checkpoint)
        if typed and weight_shapes(arguments) != weight_shapes(arguments | typed):
            options = ", ".join(f"--model.{name}" for name in typed)
            raise ConfigurationError(
                f"the weights of the checkpoint {path} do not fit {_compared(used, typed)}: leave out {options}, or "
                "start a new run without --ckpt_path."
            )
        rank_zero_warn(f"Model settings come from the checkpoint {path}; ignored: {_compared(used, differing)}.")

    def after_instantiate_classes(self) -> None:
        """Warn of options that do nothing, and see that the checkpoint's weights are those of the model."""
        if self.config.subcommand == "fit":
            # the module itself warns of local views
            left_out = {name: reasons for name, reasons in self.model.without_part.items() if name not in LOCAL}
            for sentence in idle_options(left_out, self._given, self._settings.model.as_dict()):
                rank_zero_warn(sentence)
        if self.checkpoint is not None:
            check_fits(self.model, self.checkpoint["state_dict"], Path(self._settings.ckpt_path))
            self.checkpoint = None

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """A Trainer with the monitor, whose checkpoints are replaced whole, unless the user chose another way.

        The last of them is that of the last step.
        """
        callbacks = callbacks_with_monitor(self._settings, self.config_init[self.subcommand])
        output = trainer_output(self._settings.trainer)
        progress = [ProgressLine()] if output.get("enable_progress_bar") is False else []
        trainer = super().instantiate_trainer(callbacks=callbacks, **{**output, **kwargs})
        # a run that is resumed goes on in the precision that it began with, which its own config therefore has
        goes_on = self.config.subcommand == "fit" and self.start.run_config is not None
        self._of_precision = "" if self._insists_on_precision or goes_on else leave_slow_bfloat16(trainer)
        if self._of_precision:
            self._settings.trainer.precision = trainer.precision
            if self.config.subcommand != "fit":  # whose first line says it
                rank_zero_info(self._of_precision)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        if self.checkpoint is not None and self.config.subcommand != "fit":
            keep_in(_callbacks(trainer), self.checkpoint)
        signals = StopSignals()
        # first what listens, last what saves
        ours = [ClosingCheckpoint(signals), DiscardUnbegun(trainer)]
        attached = _callbacks(trainer)
        attached[:] = [signals, *attached, FinalValues(), *progress, *ours]
        return trainer

    @property
    def _settings(self) -> Namespace:
        return cast("Namespace", self.config[self.config.subcommand])

    def _keep_no_record(self) -> None:
        """Let ``predict`` make no folder: it logs nothing, and nobody takes what it would return."""
        self._settings.trainer.logger, self.save_config_callback = False, None
        if self._settings.return_predictions is None:
            self._settings.return_predictions = False

    def before_predict(self) -> None:
        """Let a callback write embeddings and scores, unless the user's own writes predictions."""
        callbacks = _callbacks(self.trainer)
        if not any(isinstance(callback, BasePredictionWriter) for callback in callbacks):
            callbacks.append(RankingWriter())
        untrained = "" if self._settings.ckpt_path else ", by an untrained model, as there is no --ckpt_path"
        rank_zero_info(
            f"Embedding the images that {type(self.datamodule).__name__} has for predict{untrained}; to embed others: "
            "python train.py rank FOLDER --encoder CHECKPOINT."
        )

    def _given_options(self, args: ArgsType) -> list[list[str]]:
        """Names of model options in each of the config files that the user chose, and last on the command line."""
        typed = [word.removeprefix("--model.").split("=")[0] for word in _words(args) if word.startswith("--model.")]
        # None stands for a config that was given as text
        given = [file for file in self._settings.get("config") or [] if file is not None]
        files = [yaml.safe_load(file.get_content()) for file in given]
        models = [file["model"] for file in files if isinstance(file, dict) and isinstance(file.get("model"), dict)]
        return [
            *([name.rstrip("+") for name in model] for model in models),
            [name.split(".")[0].rstrip("+") for name in typed],
        ]

    def before_fit(self) -> None:
        """Log what is trained, on what, in which precision if not as asked for, and how to watch it."""
        size = counted(sum(weight.numel() for weight in self.model.parameters() if weight.requires_grad))
        folders = (
            self._tensorboard_folders() if self.trainer.is_global_zero else []
        )  # others would count a version more
        sentences = [f"Training {size} parameters on {type(self.datamodule).__name__}.", self._of_precision]
        sentences += [f"To watch: tensorboard --logdir {folder}" for folder in folders]
        rank_zero_info(" ".join(filter(None, sentences)))

    def after_fit(self) -> None:
        """Print what was measured last, the last checkpoint, and the command that shows the run."""
        if self.trainer.is_global_zero:
            metrics = {tag: float(value) for tag, value in self.trainer.callback_metrics.items()}
            monitors = [found for found in _callbacks(self.trainer) if isinstance(found, JEPAScoreMonitor)]
            saved = [getattr(callback, "last_model_path", "") for callback in self.trainer.checkpoint_callbacks]
            sentences = [f"The last checkpoint is {path}." for path in filter(None, saved[:1])]
            folders = self._tensorboard_folders()
            if folders:
                sentences.append(
                    "To look at the run (Images begin with density/story; for curves, set Smoothing to 0):"
                )
            print("", *results(metrics, monitors[0].verdict if monitors else ""), " ".join(sentences), sep="\n")
            for folder in folders:
                print(f"\n    tensorboard --logdir {folder}\n")

    def _tensorboard_folders(self) -> list[str]:
        return [logger.log_dir for logger in self.trainer.loggers if isinstance(logger, TensorBoardLogger)]


def _callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    """The Trainer's own list, which may be changed; its callback connector sets it, unseen by type checkers."""
    return cast("list[pl.Callback]", cast("Any", trainer).callbacks)


def _compared(used: Namespace, asked: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value!r} (the checkpoint has {used[name]!r})" for name, value in asked.items())


def _words(args: ArgsType) -> list[str]:
    return args if isinstance(args, list) else sys.argv[1:]


def main(args: list[str] | None = None) -> JEPACLI | None:
    """Run the command line.

    Args:
        args: arguments; default: those of the process. Without ``--config``, or with overlays alone,
            configs/mixture.yaml is used.

    Returns:
        the finished command line, with its ``trainer``, ``model`` and ``datamodule``; ``None`` after ``export`` and
        ``rank``.

    Raises:
        SystemExit: after one sentence on stderr; with code 2 for anything a user can mend, 1 for a run that failed.
    """
    arguments = sys.argv[1:] if args is None else args
    if not arguments:
        args = arguments = ["--help"]
    cli: JEPACLI | None = None
    connected_before = dist.is_available() and dist.is_initialized()
    try:
        with one_sentence(), brief():
            if arguments[0] in OTHERS:
                OTHERS[arguments[0]](arguments[1:])
            else:
                cli = _train(arguments, args)
    except SIGTERMException:
        disconnect()
        raise
    if not connected_before:
        disconnect()  # Lightning leaves its processes connected
    return cli


def _train(arguments: list[str], args: list[str] | None) -> JEPACLI:
    start = find_start(arguments, CONFIGS / "mixture.yaml")
    defaults = [str(path) for path in start.default_configs]
    return JEPACLI(
        JEPA,
        pl.LightningDataModule,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        parser_class=Parser,
        seed_everything_default=0,
        save_config_callback=SaveConfig,
        parser_kwargs={
            "description": f"Train encoders, and watch them. {EXPORT_HELP} {RANK_HELP}",
            **{name: {"default_config_files": defaults} for name in JEPACLI.subcommands()},
        },
        args=args,
        start=start,
    )
