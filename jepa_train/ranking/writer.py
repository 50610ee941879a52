"""A callback for ``trainer.predict`` that writes the embeddings, and ranks by them; for any LightningModule."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import pyarrow as pa
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor

from jepa_monitor.density import log_singular_values, map_grams
from jepa_train.errors import ConfigurationError
from jepa_train.ranking.arguments import check_arguments
from jepa_train.ranking.columns import wanted_columns
from jepa_train.ranking.duplicates import write_nearest
from jepa_train.ranking.embedding import NOT_FINITE, listing_order
from jepa_train.ranking.passes import failing_together, on_first_process
from jepa_train.ranking.references import draw, fit_reference, write_reference
from jepa_train.ranking.results import searches, write_results
from jepa_train.ranking.scores import nullable, write_scores
from jepa_train.ranking.table import TABLE
from jepa_train.ranking.volumes import measured
from jepa_train.ranking.workspace import (
    EMBEDDINGS,
    FORMAT,
    MEASURED,
    REFERENCE,
    VOLUMES,
    Workspace,
    holds_files,
    open_workspace,
    vector_column,
    vectors,
)

PREDICTED = "predicted"  # parts in the order in which batches came
ROWS = 1024  # a part
NAMES = ("filenames", "paths", "samples", "imgs")  # what data sets call the list of their files


class RankingWriter(BasePredictionWriter):
    """Write what ``predict_step`` returns, embeddings, and scores of them: a table as that of ``rank``.

    Embeddings are (B, K) tensors, or the first tensor of a tuple, or what a mapping has as ``embedding``. The reference
    is the predicted samples themselves. An embedding goes to disk with its part, on any number of processes.

    Args:
        output: folder to write to; ``None`` means the next free ``predictions/version_N``.
        volumes: largest K for which volumes are measured, too, exactly, by K backward passes a sample through the
            module's ``forward``; 0 for none.
        seed: seed of the draw of the reference.
    """

    def __init__(self, output: str | None = None, volumes: int = 64, seed: int = 0) -> None:
        super().__init__("batch")
        check_arguments(RankingWriter.__init__, locals())
        self.output, self.volumes, self.seed = output, volumes, seed
        self._workspace: Workspace | None = None
        self._rows: list[pa.Table] = []
        self._written = 0
        self._unmeasured: str | None = None  # why no volumes are measured

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the folder.

        Raises:
            ConfigurationError: on all processes, if there is something in it.
        """
        folder = Path(trainer.strategy.broadcast(self.output or str(_next_free(Path("predictions")))))
        manifest = {
            "format": FORMAT,
            "name": type(pl_module).__name__,
            "encoder": None,
            "preparation": None,
            "notes": [],
            "images": None,
            "root": str(Path.cwd()),
            "reference": None,
            "estimator": "exact",
            "precision": str(trainer.precision),
            "seed": self.seed,
            "versions": {name: version(name) for name in ("jepa-train", "torch")},
        }
        self._workspace, self._rows, self._written, self._unmeasured = Workspace(folder), [], 0, None
        on_first_process(trainer, partial(_begin, folder, manifest))

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Keep a batch, and write a part when there are enough.

        Raises:
            ConfigurationError: for predictions that are no embeddings, or a loader whose indices are not known.
        """
        z = embeddings_of(prediction)
        if dataloader_idx or not batch_indices:
            raise ConfigurationError(
                "RankingWriter needs one DataLoader with a batch sampler, whose indices Lightning knows: pass one."
            )
        rows = {"index": np.asarray(batch_indices, dtype=np.int64), "embedding": _column(z)}
        self._rows.append(pa.table({**rows, **self._measured(trainer, pl_module, batch, z)}))
        if sum(len(part) for part in self._rows) >= ROWS:
            self._flush(trainer)

    def _measured(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, z: Tensor
    ) -> dict[str, pa.Array]:
        """Spectra of a batch, or why there are none; once there is a reason, it holds for all that follow."""
        x, size = images_of(batch), z.shape[1]
        if size > self.volumes:
            self._unmeasured = f"no volume: K = {size} is above RankingWriter's volumes={self.volumes}"
        elif x is None:
            self._unmeasured = "no volume: a batch has no images that are a tensor of real numbers"
        if self._unmeasured is None and x is not None:
            spectrum, again = map(torch.cat, zip(*map_grams(_spectrum, pl_module, x), strict=True))
            if _agree(again, z) or _agree(_in_precision(trainer, pl_module, x), z):
                return {"spectrum": vector_column(spectrum.cpu().numpy())}
            self._unmeasured = "no volume: predict_step gives other embeddings than forward"
            rank_zero_warn("predict_step gives other embeddings than forward, so RankingWriter measures no volumes.")
        return {"unmeasured": pa.array([self._unmeasured] * len(z), pa.string())}

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the rest, and on the first process the scores."""
        with failing_together(trainer):
            if self._rows:
                self._flush(trainer)
        assert self._workspace is not None
        names = _filenames(trainer.predict_dataloaders)
        on_first_process(trainer, partial(finish, self._workspace, names, self.seed))
        rank_zero_info(f"Embeddings and scores are in {self._workspace.folder / TABLE}.")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave nothing behind of predictions that cannot be ranked, so that the next call finds its place free."""
        if self._workspace is None or not trainer.is_global_zero:
            return
        if isinstance(exception, ConfigurationError) or not self._workspace.numbers(PREDICTED):
            self._workspace.abandon()

    def _flush(self, trainer: pl.Trainer) -> None:
        assert self._workspace is not None
        number = self._written * trainer.world_size + trainer.global_rank
        self._workspace.write(PREDICTED, number, _together(self._rows))
        self._rows, self._written = [], self._written + 1


@torch.no_grad()
def _in_precision(trainer: pl.Trainer, pl_module: pl.LightningModule, x: Tensor) -> Tensor:
    """Embeddings (B, K) by the forward pass in the Trainer's precision, in which it predicts."""
    with trainer.precision_plugin.forward_context():
        return cast("Tensor", pl_module(x))


def _agree(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.allclose(
        first.float(), second.float(), rtol=1e-3, atol=1e-5, equal_nan=True
    )


def embeddings_of(prediction: Any) -> Tensor:
    """Embeddings (B, K) of what ``predict_step`` returned.

    Raises:
        ConfigurationError: if there are none.
    """
    found = prediction
    if isinstance(prediction, Mapping):
        found = prediction.get("embedding")
    elif isinstance(prediction, (tuple, list)) and prediction:
        found = prediction[0]
    if not isinstance(found, Tensor) or found.ndim != 2 or not found.is_floating_point():
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ConfigurationError(
            f"predict_step must return embeddings, a tensor (B, K) of real numbers, for RankingWriter; got {got}: pool "
            "tokens first, or return them under the name embedding."
        )
    return found


def images_of(batch: Any) -> Tensor | None:
    """Inputs of a batch: itself, its ``image``, or its first tensor; ``None`` where these are no numbers."""
    found = batch
    if isinstance(batch, Mapping):
        found = batch.get("image")
    elif isinstance(batch, (tuple, list)) and batch:
        found = batch[0]
    return found if isinstance(found, Tensor) and found.is_floating_point() else None


def finish(workspace: Workspace, names: Sequence[str] | None, seed: int) -> None:
    """Sort what was predicted by index, score it, and write table and summary.

    Args:
        workspace: has the parts of predictions.
        names: name of each sample of the data set; ``None`` means its index.
        seed: seed of the draw of the reference.
    """
    found = Predictions.of(workspace)
    order = listing_order(len(found.index), ROWS)
    for number in order.parts:
        place = order.of_part(number)
        z = found.gathered("embedding", place)
        finite = np.asarray(np.isfinite(z).all(1))
        columns = {
            "index": place,
            "filename": pa.array(
                [str(names[i]) if names else str(i) for i in found.index[place].tolist()], pa.string()
            ),
            "class": pa.nulls(len(place), pa.string()),
            "embedding": vector_column(z),
            "reason": pa.array([found.unmeasured if good else NOT_FINITE for good in finite], pa.string()),
        }
        workspace.write(EMBEDDINGS, number, pa.table(columns))
    parts, drawn = list(order.parts), draw(len(found.index), seed)
    z = found.gathered("embedding", drawn)
    reference = fit_reference(z, drawn, images="", encoder="", source="the predicted samples", trim=True)
    write_reference(workspace.folder / REFERENCE, reference)
    write_scores(workspace, reference, "", parts, torch.device("cpu"))
    if found.unmeasured is None and reference.density is not None:
        for number in parts:
            workspace.write(VOLUMES, number, _volumes(found, order.of_part(number), reference.density.rank))
    wanted = wanted_columns(None)
    if searches(wanted, len(found.index)):
        write_nearest(workspace, parts, parts, torch.device("cpu"))
    write_results(workspace, parts, wanted, workspace.folder / TABLE, reference, {}, page=False)
    workspace.remove(PREDICTED)


def _begin(folder: Path, manifest: Mapping[str, Any]) -> None:
    if holds_files(folder):
        raise ConfigurationError(f"{folder} is not empty: choose another output of RankingWriter.")
    open_workspace(folder, manifest)


def _next_free(folder: Path) -> Path:
    return next(path for number in itertools.count() if not (path := folder / f"version_{number}").exists())


def _spectrum(gram: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    return log_singular_values(gram), z


def _column(x: Tensor) -> pa.FixedSizeListArray:
    return vector_column(x.detach().float().cpu().numpy())


def _together(tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables, promote_options="default").combine_chunks()


@dataclass(frozen=True)
class Predictions:
    """Predictions by index, each once; rows stay in the files of their parts until they are gathered.

    Attributes:
        index: (N,) index in the data set of each sample, ascending.
        unmeasured: why no spectrum counts, if there is a reason.
        parts: the files' rows, mapped into memory.
        rows: (N,) number of each sample's row among those of all parts.
    """

    index: NDArray[np.int64]
    unmeasured: str | None
    parts: list[pa.Table]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, workspace: Workspace) -> Predictions:
        """Find the predictions of a folder.

        Raises:
            ConfigurationError: if there are none.
        """
        parts = [workspace.read(PREDICTED, number) for number in sorted(workspace.numbers(PREDICTED))]
        if not parts:
            raise ConfigurationError("nothing was predicted, so there is nothing to rank.")
        # a sampler may have repeated some, so that processes have equally many
        index, rows = np.unique(np.concatenate([part["index"].to_numpy() for part in parts]), return_index=True)
        reasons = (part["unmeasured"].drop_null() for part in parts if "unmeasured" in part.column_names)
        return cls(index, next((str(reason[0]) for reason in reasons if len(reason)), None), parts, rows)

    def gathered(self, name: str, places: NDArray[np.int64]) -> NDArray[Any]:
        """Vectors of the samples at some places: (len(places), K)."""
        starts = np.cumsum([0, *(len(part) for part in self.parts)])
        rows = self.rows[places]
        numbers = np.searchsorted(starts, rows, side="right") - 1
        found: NDArray[Any] | None = None
        for number in np.unique(numbers):
            here = numbers == number
            kept = vectors(self.parts[number][name])[rows[here] - starts[number]]
            found = np.empty((len(places), kept.shape[1]), kept.dtype) if found is None else found
            found[here] = kept
        assert found is not None
        return found


def _volumes(found: Predictions, places: NDArray[np.int64], rank: int) -> pa.Table:
    kept = places[np.isfinite(found.gathered("embedding", places)).all(1)]
    spectrum = (
        torch.from_numpy(found.gathered("spectrum", kept).astype(np.float64)) if len(kept) else torch.empty(0, rank)
    )
    values = measured(spectrum, rank, torch.float32, whole=True).numpy()
    columns = {name: nullable(column) for name, column in zip(MEASURED, values.T, strict=True)}
    return pa.table({"index": kept, **columns})


def _filenames(loader: Any) -> Sequence[str] | None:
    """Names of a data set's files, where it has a list of them."""
    dataset = getattr(loader, "dataset", None)
    found = next((names for name in NAMES if isinstance(names := getattr(dataset, name, None), Sequence)), None)
    if found is None or len(found) != len(dataset):  # type: ignore[arg-type]  # a data set that has names has a length
        return None
    return [str(name[0] if isinstance(name, (tuple, list)) else name) for name in found]
