"""The base of both passes over the images: a Lightning prediction that writes parts, on any number of processes."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import pyarrow as pa
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from torch import Tensor, nn
from torch.utils.data import DataLoader

from jepa_monitor.runtime.distributed import MeasurementError, fail_together
from jepa_monitor.runtime.memory import free_bytes
from jepa_train.commands.parsing import meant
from jepa_train.errors import ConfigurationError, RunFailed
from jepa_train.ranking.batches import DataSettings, Order, PartBatches, part_loader
from jepa_train.ranking.images import FilesToRank
from jepa_train.ranking.workspace import Workspace

LAYERS = 3  # of 6 networks of timm, ViT to Swin, one image takes 1.9 to 2.9 times its largest layer's input and output


class PartsPass(pl.LightningModule, ABC):
    """Predict the rows of images, and write each part when its last batch is done.

    The processes take the parts that are not there in turn. A subclass gives :meth:`rows`.

    Args:
        module: encoder.
        workspace: where parts are.
        kind: name of these parts.
        images: images by index.
        order: the parts.
        parts: numbers of those that this ranking, or shard, has.
        settings: how images are read.
        title: stage that the progress bar names.
        seconds: no part begins after that time; ``None`` is without limit.
    """

    def __init__(
        self,
        module: nn.Module,
        workspace: Workspace,
        kind: str,
        images: FilesToRank,
        order: Order,
        parts: Sequence[int],
        settings: DataSettings,
        *,
        title: str,
        seconds: float | None = None,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # more processes than parts
        self.module = module
        self.workspace, self.kind, self.images, self.order, self.parts = workspace, kind, images, order, parts
        self.settings, self.title, self.seconds = settings, title, seconds
        self.batches: PartBatches | None = None
        self._at_once: int | None = None
        self._finished: list[pa.RecordBatch] = []

    @abstractmethod
    def rows(self, batch: dict[str, Any]) -> dict[str, pa.Array]:
        """Columns of a batch's images, besides ``index``."""

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings (B, K), in forward passes that fit into memory, each of one image at least."""
        if self._at_once is None:
            self._at_once = images_at_once(self.module, x)
        return torch.cat([in_halves(self.module, part) for part in x.split(self._at_once)])

    def predict_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches of this process's share of the parts that are not there."""
        trainer = self.trainer
        share = share_of(missing_parts(trainer, self.workspace, self.kind, self.parts), trainer)
        self.batches = PartBatches(self.images, self.order, share, self.settings.batch_size)
        return part_loader(
            self.batches,
            self.settings,
            seconds=self.seconds,
            processes=trainer.num_devices,
            pin=not isinstance(trainer.accelerator, CPUAccelerator),
        )

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Make the encoder's inputs where the encoder is, in its precision."""
        x = self.images.inputs(batch["image"])
        return {**batch, "image": self.trainer.precision_plugin.convert_input(x)}

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> pa.RecordBatch:
        """Rows of one batch."""
        columns = {"index": pa.array(batch["index"].cpu().numpy()), **self.rows(batch)}
        return pa.RecordBatch.from_pydict(columns)

    def on_predict_batch_end(
        self, outputs: pa.RecordBatch, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Write the part that ends here."""
        self._finished.append(outputs)
        if batch["ends_part"]:
            part = pa.Table.from_batches(self._finished).combine_chunks()
            self.workspace.write(self.kind, int(batch["part"]), part)
            self._finished = []


class StageBar(TQDMProgressBar):
    """Lightning's bar with the stage, images a second and the time that is left."""

    BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} images [{elapsed}<{remaining}, {rate_noinv_fmt}]"

    def init_predict_tqdm(self) -> Tqdm:
        """Count images."""
        bar = super().init_predict_tqdm()
        bar.unit = " images"
        return bar

    def on_predict_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Name the stage and the number of this process's images."""
        if batch_idx == 0 and isinstance(pl_module, PartsPass) and pl_module.batches is not None:
            self.predict_progress_bar.total = pl_module.batches.count
            self.predict_progress_bar.set_description(pl_module.title)

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the images of a batch."""
        self.predict_progress_bar.update(len(batch["index"]))


def images_at_once(module: nn.Module, x: Tensor) -> int:
    """Number of images (B, C, H, W) whose forward pass takes at most half of the free memory; B on a GPU, which says.

    A forward pass takes up to ``LAYERS`` times what the layer with the largest input and output has of these.
    """
    if x.device.type != "cpu":
        return len(x)
    largest = 0

    def look(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal largest
        largest = max(largest, sum(value.nbytes for value in (*inputs, output) if isinstance(value, Tensor)))

    handles = [layer.register_forward_hook(look) for layer in module.modules()]
    try:
        module(x[:1])
    finally:
        for handle in handles:
            handle.remove()
    return max(1, free_bytes(x.device) // 2 // max(LAYERS * largest, 1))


def in_halves(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function to a batch, or to its halves where the device's memory does not suffice for all of it."""
    try:
        return function(x)
    except torch.OutOfMemoryError:
        if len(x) == 1:
            raise
    middle = len(x) // 2
    return torch.cat([in_halves(function, x[:middle]), in_halves(function, x[middle:])])


def ranking_trainer(settings: Mapping[str, Any]) -> pl.Trainer:
    """Make a Trainer that predicts and keeps nothing: no logger, no checkpoints, no sampler of its own.

    Args:
        settings: arguments of ``pl.Trainer``, such as ``devices``.

    Raises:
        ConfigurationError: for an argument that it has not.
    """
    known = inspect.signature(pl.Trainer).parameters
    if unknown := [name for name in settings if name not in known]:
        raise ConfigurationError(f"Lightning's Trainer has no argument {unknown[0]!r}{meant(unknown[0], known)}.")
    shown = settings.get("enable_progress_bar", True) is not False
    callbacks = settings.get("callbacks") or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    return pl.Trainer(
        **{
            **settings,
            "callbacks": [*([StageBar()] if shown else []), *callbacks],
            "logger": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "use_distributed_sampler": False,
        }
    )


def missing_parts(trainer: pl.Trainer, workspace: Workspace, kind: str, parts: Sequence[int]) -> list[int]:
    """Those of the parts that are not there: what the first process sees, as others may see a shared folder later."""
    there = workspace.numbers(kind)
    missing: list[int] = trainer.strategy.broadcast([number for number in parts if number not in there])
    return missing


def share_of(parts: list[int], trainer: pl.Trainer) -> list[int]:
    """This process's share; all where Lightning has not begun the other processes."""
    connected = torch.distributed.is_available() and torch.distributed.is_initialized()
    return parts[trainer.global_rank :: trainer.world_size] if connected else parts


def run_pass(trainer: pl.Trainer, module: PartsPass) -> None:
    """Predict the parts that are not there."""
    if missing_parts(trainer, module.workspace, module.kind, module.parts):
        trainer.predict(module, return_predictions=False)
        trainer.strategy.barrier("all parts are written")


@contextmanager
def failing_together(trainer: pl.Trainer) -> Iterator[None]:
    """Run a block without collectives on each process, at whose end all wait for each other, and all fail if one did.

    Raises:
        Exception: what the block raised, on the process where it did.
        RunFailed: on the others, saying which process failed and why.
    """
    try:
        with fail_together(trainer.strategy.root_device):
            yield
    except MeasurementError as error:
        raise error.__cause__ or RunFailed(str(error)) from None


def on_first_process(trainer: pl.Trainer, work: Callable[[], object]) -> None:
    """Run ``work`` on the first process while the others wait; see :func:`failing_together`."""
    with failing_together(trainer):
        if trainer.is_global_zero:
            work()
