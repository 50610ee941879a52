"""The callback: when to measure, on which probe, on which process. No mathematics here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from . import pictures, tags
from .encoding import EncoderChoice, Pool, evaluating, input_like, resolve_encoder
from .measurement import LogDensity, ProbeFacts, Readings, probe_facts, problems, read, scalars
from .probe import ImagesKey, Shard, load_shard, read_inputs
from .ranking import GaussianBaseline, rank_stability, spearman

HEADLINES = ("density/spearman", "gaussianity/sliced_ep_ratio")


class JEPAScoreMonitor(pl.Callback):
    """Tracks how well an encoder's Jacobian ranks samples by density, and how Gaussian its embeddings are.

    It measures a fixed probe before training, at the end of validation (or of the training epoch where there is no
    validation), and in ``validate`` and ``test``. Training with and without it is the same, bit for bit: modes and
    random-number generators are put back, and nothing is added to the module. All processes take part and all log the
    same values, so ``ModelCheckpoint(monitor="density/spearman")`` works on any number of them.

    What is not given is looked for in the DataModule, which may offer ``probe_dataset()``, ``reference_dataset()`` and
    ``ood_datasets()`` (name to dataset), then in the Trainer's loaders. A dataset with ``log_densities`` (name to
    function of inputs) has a known truth.

    Args:
        encoder: dotted path to a submodule, a function ``(module, inputs) -> embeddings``, or ``None`` for the first of
            target, teacher, encoder, backbone, student, model, net, feature_extractor, else the module's forward.
        pool: how tokens or feature maps become one vector: ``mean``, ``cls``, ``flatten`` or a function.
        probe: dataset or (N, ...) tensor to measure on; default: validation data, else training data.
        reference: dataset or tensor that baselines are fitted to; default: training data.
        ood: name to dataset or tensor of samples from elsewhere.
        log_density: true log density of inputs, (N, ...) -> (N,), or several by name, the headline first.
        images: where the inputs are in a sample: a key, a position, or a function; the usual places are tried.
        num_samples: of the probe, the reference and each other set, taken by index from 0; at least 2 K is advised.
        rank: r of ``log_density``; ``auto`` cuts the probe's mean spectrum at its widest gap.
        every_n_epochs: measure at the end of each n-th epoch; 0 for never.
        every_n_steps: measure also each time that many optimizer steps are done; 0 for never.
        at_start: measure before the first step.
        chunk: samples a pass of a Jacobian; ``None`` chooses by the encoder's size and the free memory.
    """

    def __init__(
        self,
        encoder: EncoderChoice = None,
        pool: Pool = "auto",
        probe: Any = None,
        reference: Any = None,
        ood: Mapping[str, Any] | None = None,
        log_density: LogDensity | Mapping[str, LogDensity] | None = None,
        images: ImagesKey = None,
        num_samples: int = 512,
        rank: int | Literal["auto"] = "auto",
        every_n_epochs: int = 1,
        every_n_steps: int = 0,
        at_start: bool = True,
        chunk: int | None = None,
    ) -> None:
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
        if rank != "auto" and rank < 1:
            raise ValueError(f"rank must be 'auto' or at least 1, got {rank}.")
        self.encoder = encoder
        self.pool = pool
        self.probe = probe
        self.reference = reference
        self.ood = ood
        self.log_density = log_density
        self.images = images
        self.num_samples = num_samples
        self.rank = rank
        self.every_n_epochs = every_n_epochs
        self.every_n_steps = every_n_steps
        self.at_start = at_start
        self.chunk = chunk
        self.readings: Readings | None = None
        self._previous: Tensor | None = None
        self._prepared: _Prepared | None = None
        self._warned: set[str] = set()
        self._introduced = False
        self._seconds_measuring = 0.0
        self._fit_started = 0.0
        self._last_step_measured = -1

    # when

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the untrained encoder, unless training resumes."""
        self._fit_started = time.monotonic()
        self._seconds_measuring = 0.0
        if self.at_start and trainer.global_step == 0:
            self._measure(trainer, pl_module, announce=False)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure on a step count; the hook also fires between two steps when gradients accumulate."""
        step = trainer.global_step
        if self.every_n_steps and step and step % self.every_n_steps == 0 and step != self._last_step_measured:
            self._measure(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure after validation, in ``fit`` and in ``validate``."""
        if trainer.sanity_checking:
            return
        if trainer.state.fn != TrainerFn.FITTING or self._epoch_is_due(trainer):
            self._measure(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure where there is no validation to measure after."""
        has_validation = bool(trainer.enable_validation and sum(_flat(trainer.num_val_batches)))
        if not has_validation and self._epoch_is_due(trainer):
            self._measure(trainer, pl_module)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure in ``test``."""
        self._measure(trainer, pl_module)

    def _epoch_is_due(self, trainer: pl.Trainer) -> bool:
        due = self.every_n_epochs > 0 and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        return due and trainer.global_step != self._last_step_measured

    # what

    def _measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, announce: bool = True) -> None:
        started = time.monotonic()
        fitting = trainer.state.fn == TrainerFn.FITTING
        with isolate_rng(), evaluating(pl_module), torch.no_grad():
            torch.manual_seed(0)  # datasets that augment at random give the same probe each time and everywhere
            prepared = self._prepare(trainer, pl_module)
            encode, _ = resolve_encoder(pl_module, self.encoder, self.pool)
            readings = read(
                encode,
                prepared.probe,
                facts=prepared.facts,
                ood=prepared.ood,
                to_device=lambda inputs: input_like(pl_module, inputs, pl_module.device),
                rank=None if self.rank == "auto" else self.rank,
                chunk=self.chunk,
            )
            values = scalars(readings, prepared.facts)
            self._warn(problems(readings, prepared.facts))
            if fitting:
                if self._previous is not None and len(self._previous) == len(readings.scores.log_density):
                    values["density/stability"] = rank_stability(self._previous, readings.scores.log_density)
                self._previous = readings.scores.log_density
            self.readings = readings
            self._last_step_measured = trainer.global_step
            self._paint(trainer, prepared, readings)
        seconds = time.monotonic() - started
        values["monitor/seconds(s)"] = seconds
        if fitting:
            self._seconds_measuring += seconds
            trained = time.monotonic() - self._fit_started - self._seconds_measuring
            if trainer.global_step:
                values["monitor/overhead(%)"] = 100.0 * self._seconds_measuring / max(trained, 1e-9)
        self._publish(trainer, pl_module, _same_everywhere(trainer, values), announce=announce)

    def _prepare(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> _Prepared:
        """Read the probe, once: every later measurement sees the same inputs."""
        if self._prepared is not None:
            return self._prepared
        where = {"rank": trainer.global_rank, "world_size": trainer.world_size}
        dataset = self._find_probe(trainer)
        probe = self._shard(dataset, **where)
        ood = self.ood if self.ood is not None else _offer(trainer, "ood_datasets") or {}
        reference = self._find_reference(trainer)
        baseline, reference_shard = None, None
        if reference is not None:
            # every process fits the same baseline to the same inputs, and embeds its share of them
            whole = self._shard(reference, rank=0, world_size=1)
            try:
                baseline = GaussianBaseline.fit(whole.inputs)
            except ValueError as error:
                rank_zero_warn(f"JEPAScoreMonitor leaves density/spearman_gaussian out: {error}")
            mine = slice(trainer.global_rank, None, trainer.world_size)
            start = mine if trainer.global_rank < len(whole.indices) else slice(0, 1)
            reference_shard = Shard(whole.indices[start], whole.inputs[start])
        facts = probe_facts(
            Shard(probe.indices.to(pl_module.device), probe.inputs),
            log_densities=self._find_log_densities(dataset),
            gaussian=baseline.score if baseline else None,
            reference=reference_shard,
        )
        shards = {name: self._shard(ood[name], **where) for name in sorted(ood)}
        _, description = resolve_encoder(pl_module, self.encoder, self.pool)
        rank_zero_info(
            f"JEPAScoreMonitor measures {description} on {len(facts.complexity)} samples of {type(dataset).__name__}."
        )
        self._prepared = _Prepared(dataset, probe, shards, facts)
        return self._prepared

    def _shard(self, dataset: Any, *, rank: int, world_size: int) -> Shard:
        return load_shard(dataset, count=self.num_samples, rank=rank, world_size=world_size, images=self.images)

    def _find_probe(self, trainer: pl.Trainer) -> Any:
        if self.probe is not None:
            return self.probe
        loaders = (trainer.val_dataloaders, trainer.test_dataloaders, trainer.train_dataloader)
        found = _offer(trainer, "probe_dataset")
        if found is None:
            found = next((data for data in map(_dataset_of, loaders) if data is not None), None)
        if found is None:
            raise ValueError("JEPAScoreMonitor found no data to measure on: pass probe=, a dataset or a tensor.")
        return found

    def _find_reference(self, trainer: pl.Trainer) -> Any:
        if self.reference is not None:
            return self.reference
        offered = _offer(trainer, "reference_dataset")
        return offered if offered is not None else _dataset_of(trainer.train_dataloader)

    def _find_log_densities(self, dataset: Any) -> Mapping[str, LogDensity]:
        truth = self.log_density if self.log_density is not None else getattr(dataset, "log_densities", {})
        return {"truth": truth} if callable(truth) else truth

    # where to

    def _publish(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, values: dict[str, float], *, announce: bool
    ) -> None:
        fitting = trainer.state.fn == TrainerFn.FITTING
        if fitting:
            # written here and not by pl_module.log, whose step is one behind that of the pictures
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)
                logger.save()
        if announce:
            headline = next((tag for tag in HEADLINES if tag in values), None)
            for tag, value in values.items():
                pl_module.log(
                    tag,
                    value,
                    prog_bar=fitting and tag == headline,
                    logger=False if fitting else None,  # None: to the loggers there are, without a warning if none
                    on_step=False,
                    on_epoch=True,
                    batch_size=1,
                )
        if trainer.is_global_zero and not self._introduced:
            self._introduced = True
            for experiment in _tensorboards(trainer):
                experiment.add_text(
                    "JEPA-SCORE/tags",
                    tags.explanation([*values, "monitor/overhead(%)", "density/stability"]),
                    trainer.global_step,
                )
                experiment.add_custom_scalars(tags.layout([*values, "density/stability"]))

    def _paint(self, trainer: pl.Trainer, prepared: _Prepared, readings: Readings) -> None:
        if not trainer.is_global_zero:
            return
        for experiment in _tensorboards(trainer):
            step = trainer.global_step
            for tag, picture in _pictures(readings, prepared, images=self.images).items():
                experiment.add_image(tag, picture, step)
            for name in ("log_density", "jepa_score"):
                values = getattr(readings.scores, name)
                finite = values[torch.isfinite(values)]
                if len(finite):
                    experiment.add_histogram(f"density/{name}(nats)", finite.numpy(), step)

    def _warn(self, found: list[str]) -> None:
        for problem in found:
            if problem not in self._warned:
                rank_zero_warn(f"JEPAScoreMonitor: {problem}")
        self._warned = set(found)

    def state_dict(self) -> dict[str, Any]:
        """The ranking of the last measurement, so that ``density/stability`` goes on after a resume."""
        return {"previous": self._previous}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self._previous = state_dict["previous"]


class _Prepared:
    """What is read once: the probe, other sets, and what is known of them without an encoder."""

    def __init__(self, dataset: Any, probe: Shard, ood: Mapping[str, Shard], facts: ProbeFacts) -> None:
        self.dataset = dataset
        self.probe = probe
        self.ood = ood
        self.facts = facts


def _pictures(readings: Readings, prepared: _Prepared, *, images: ImagesKey) -> dict[str, Tensor]:
    """Tag to picture, those that can be drawn."""
    found: dict[str, Tensor] = {}
    density = readings.scores.log_density
    if readings.log_singular_white is not None and torch.isfinite(readings.log_singular_white).all(1).any():
        found["jacobian/spectrum"] = pictures.spectrum_picture(readings.log_singular_white, readings.rank)
    if not torch.isfinite(density).all():
        return found
    for name, truth in prepared.facts.truths.items():
        rho = spearman(density, truth)
        picture = pictures.scatter_picture(truth, density, spearman=rho, name="log_density")
        found[f"density/score_against_{name}"] = picture
    sets = {"probe": density.numpy()} | {name: other.log_density.numpy() for name, other in readings.ood.items()}
    found["density/histogram"] = pictures.histogram_picture(sets, name="log_density")
    order = density.argsort(descending=True).tolist()
    shown = min(8, len(order) // 2)
    if shown and prepared.probe.inputs.ndim == 4:
        best, worst = order[:shown], order[::-1][:shown]
        found["density/gallery"] = pictures.gallery_picture(
            read_inputs(prepared.dataset, best, images=images),
            read_inputs(prepared.dataset, worst, images=images),
            high_scores=density[best],
            low_scores=density[worst],
        )
    return found


def _tensorboards(trainer: pl.Trainer) -> list[Any]:
    """Experiments that take pictures, whichever package their logger comes from."""
    experiments = (getattr(logger, "experiment", None) for logger in trainer.loggers)
    return [experiment for experiment in experiments if hasattr(experiment, "add_custom_scalars")]


def _same_everywhere(trainer: pl.Trainer, values: dict[str, float]) -> dict[str, float]:
    """Rank 0's values on every process: readings are equal already, seconds are not."""
    if trainer.world_size == 1:
        return values
    return dict(trainer.strategy.broadcast(values))


def _offer(trainer: pl.Trainer, name: str) -> Any:
    """What the DataModule offers under this name, if there is one and it does."""
    method: Callable[[], Any] | None = getattr(getattr(trainer, "datamodule", None), name, None)
    return method() if method is not None else None


def _dataset_of(loaders: Any) -> Any:
    first = next(iter(_flat(loaders)), None)
    return getattr(first, "dataset", None)


def _flat(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, (list, tuple)) else [value]
