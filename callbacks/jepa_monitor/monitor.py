"""The callback that scores density and Gaussianity: its arguments, what it measures, and its state."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from numbers import Real
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info

from .callback import Found, MeasuringCallback, OnError
from .density import DensityChoice, require_choice
from .errors import require_whole
from .history import History
from .measurement import read, try_out
from .method import Method
from .pictures.charts import EVALUATED
from .pictures.illustrations import draw_story, illustrate
from .probe.facts import LogDensity
from .probe.samples import ImagesKey, LabelsKey
from .probe.sources import (
    Prepared,
    Sources,
    advice_for_more,
    check_probe,
    find_further,
    find_truths,
    prepare,
    read_further,
    tags_of_sources,
    which_loader,
)
from .probe.sparing import Sparing
from .ranking import rank_stability
from .readings import Readings
from .runtime.budget import ROOM_FOR, Budget, horizon_of
from .runtime.callbacks import callbacks_of
from .runtime.distributed import broadcast, fail_together
from .runtime.encoder import (
    EncoderChoice,
    Preprocess,
    is_sharded,
    measured_encoder,
    precision_of,
    resolve_encoder,
    resolve_features,
    resolve_inputs,
    resolve_preprocess,
)
from .runtime.isolation import isolated
from .runtime.loggers import (
    log_description,
    log_histograms,
    log_pictures,
    log_scalars,
    log_text,
    progress_bar,
    tensorboards,
)
from .runtime.plan import Estimator, Plan, Trial
from .runtime.pooling import Pool
from .runtime.schedule import Moment, Schedule
from .scalars import MESSAGES, alarms, changes, problems, scalars
from .tags import NULLS
from .verdict import verdict

DEFAULT_SAMPLES = 512
HALF_PRECISION_SPEEDUP = 3.0  # of training on an accelerator, beside the float32 of a trial
SHARDED_CHUNK = 16  # samples a pass where processes must make the same passes, whatever memory each has


class JEPAScoreMonitor(MeasuringCallback):
    """Tracks how well an encoder's Jacobian ranks samples by density, and how Gaussian its embeddings are.

    It measures a fixed probe before training, at the end of validation (or of the training epoch where there was no
    validation), and in ``validate`` and ``test``. Training with and without it is the same, bit for bit: modes, buffers
    and random-number generators are put back, and nothing is added to the module. All processes take part and all log
    the same values, so ``ModelCheckpoint(monitor="density/spearman", mode="max")`` works on any
    number of them.

    What is not given is taken from the DataModule, which may offer ``probe_dataset()``, ``reference_dataset()`` and
    ``ood_datasets()`` (name to dataset), then from the Trainer's loaders. A dataset with ``log_densities`` (name to
    function of inputs, or to a tensor by index) has a known truth; one with ``coordinates`` (inputs to (N, 2)) is drawn
    in that plane.

    Args:
        encoder: dotted path to a submodule, or a function ``(module, inputs) -> embeddings``. ``None`` takes the first
            submodule whose name is or contains target, teacher, encoder, backbone, student, model, net or
            feature_extractor, in this order and without heads, else the module's forward; the log says what was taken
            and why.
        pool: rule by which tokens or feature maps become one vector: ``mean``, ``cls``, ``flatten`` or a function.
        preprocess: function that prepares the inputs on the device, or the path of a submodule (an embedding table);
            Jacobians are with respect to its result.
        probe: dataset, DataLoader or tensors to measure on; default: validation data, else training data.
        reference: dataset, DataLoader or tensors that the baselines and the density are fitted to; default: training
            data.
        ood: samples of other distributions: a dataset, DataLoader or tensor for each name.
        log_density: true log density: a function of inputs, (n, ...) -> (n,), or a tensor (N,) by index in the probe's
            dataset; or several by name, the headline first.
        images: place of the inputs in a sample: a key, a position, or a function; by default the monitor tries the
            usual places.
        labels: place of the class labels, for the gallery; by default the monitor tries the usual places.
        num_samples: number of samples to measure of the probe, the reference and each other set, from the first on.
            ``None`` means 512; a run that is too short for 512 computes Jacobians of fewer, always the same ones. Give
            at least 2 K.
        rank: r of ``log_density``, the number of directions that count, at most K. ``auto`` takes the density's own
            number, for the default density the intrinsic dimension of the embeddings, rounded.
        embedding_density: density of embeddings that ``log_density`` uses: ``gaussian``, ``neighbours``, ``manifold``,
            ``mixture``, ``auto`` (see :class:`EmbeddingReference`), or an object.
        every_n_epochs: measure at the end of each n-th epoch, and at the first validation if nothing was measured
            before it; 0 measures at no epoch.
        every_n_steps: measure also after each n optimizer steps; 0 measures at no step.
        at_start: measure before the first step. Sharded weights (FSDP) are first measured after the first validation.
        budget: share of the training time that measurements may take in ``fit``, and at least 2 seconds a run. If the
            time does not suffice, the monitor skips some measurements, but never the first and the last. ``None`` sets
            no limit.
        estimator: ``exact`` Jacobians, or volumes in a ``subspace`` from a few rows of each Jacobian. With the
            subspace, 48 samples have exact Jacobians for JEPA-SCORE. ``auto`` takes the subspace if K is at least 64
            and exact Jacobians of 256 samples exceed the budget.
        chunk: number of samples in a pass of a Jacobian; ``None`` chooses by the encoder's size and the free memory.
        on_error: ``warn`` continues training if a measurement fails, with NaN for its values; ``raise`` ends it. If an
            optional part fails (a further set, a truth, the reference, labels), only the values of that part are
            missing.
        name: prefix of all tags, which keeps the tags of several monitors apart.

    Raises:
        TypeError: for an embedding density that is neither a name nor an object.
        ValueError: for a number out of range; :class:`SettingError`, before anything is trained or measured, for one
            that can never work, such as the path of a submodule that the module lacks.
    """

    _on_bar = ("density/spearman", "gaussianity/sliced_ep_ratio")
    _later_tags = frozenset({"density/stability", "monitor/overhead_percent"})

    def __init__(
        self,
        encoder: EncoderChoice = None,
        pool: Pool = "auto",
        preprocess: Preprocess = None,
        probe: Any = None,
        reference: Any = None,
        ood: Mapping[str, Any] | None = None,
        log_density: LogDensity | Mapping[str, LogDensity] | None = None,
        images: ImagesKey = None,
        labels: LabelsKey = None,
        num_samples: int | None = None,
        rank: int | Literal["auto"] = "auto",
        embedding_density: DensityChoice = "auto",
        every_n_epochs: int = 1,
        every_n_steps: int = 0,
        at_start: bool = True,
        budget: float | None = 0.05,
        estimator: Estimator = "auto",
        chunk: int | None = None,
        on_error: OnError = "warn",
        name: str = "",
    ) -> None:
        require_whole(1, None, num_samples=num_samples, chunk=chunk)
        require_whole(1, "auto", rank=rank)
        require_whole(0, every_n_epochs=every_n_epochs, every_n_steps=every_n_steps)
        if budget is not None and not (isinstance(budget, Real) and budget > 0.0):
            raise ValueError(f"budget must be a positive share of the training time, or None, got {budget!r}.")
        require_choice(embedding_density)
        if estimator not in ("auto", "exact", "subspace"):
            raise ValueError(
                f"estimator must be auto, exact or subspace, which has replaced the sketch; got {estimator!r}."
            )
        samples = DEFAULT_SAMPLES if num_samples is None else num_samples
        measures_first = at_start or every_n_epochs > 0 or every_n_steps > 0
        super().__init__(
            pool=pool,
            sources=Sources(probe, reference, ood, log_density, images, labels, samples),
            schedule=Schedule(every_n_epochs, measures_first=measures_first),
            on_error=on_error,
            name=name,
        )
        self.encoder = encoder
        self.preprocess = preprocess
        self.num_samples = num_samples
        self.rank = rank
        self.embedding_density = embedding_density
        self.every_n_steps = every_n_steps
        self.at_start = at_start
        self.estimator = estimator
        self.chunk = chunk
        self.history = History()
        self.readings: Readings | None = None
        self._budget = Budget(budget, estimator, takes_all=num_samples is not None)

    @property
    def _tag_prefixes(self) -> tuple[str, ...]:
        # and the group of alarms in older versions, whose followers are told the name of now
        return "density/", "gaussianity/", "jacobian/", "monitor/", "scores/", "alarm/"

    @property
    def _kind(self) -> str:
        """Name in checkpoints and messages, of classes derived from it too."""
        return "JEPAScoreMonitor"

    @property
    def seconds_spent(self) -> float:
        """Seconds of measurements and pictures in this run."""
        return self._budget.spent

    @property
    def verdict(self) -> str:
        """Sentence on the embeddings of the run's last measurement, which its story begins with; empty without one."""
        return "" if self.readings is None else verdict(self.history.newest, num_samples=len(self.readings.z))

    def _forget(self) -> None:
        """Drop what belongs to one call of the Trainer: the data, and the state of the last measurement."""
        super()._forget()
        self.prepared: Prepared | None = None
        self._is_drawn = True  # the last measurement has its pictures
        self._has_skipped = False  # a measurement, for want of time
        self._step_seen = 0  # optimizer step at the end of the last batch
        self._reading_seconds = 0.0  # of the last reading of the encoder
        self._started = 0.0  # time of the measurement under way
        self._reads_data = True  # the measurement under way reads data too

    # hooks beside those of the base

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the untrained encoder, unless training resumes."""
        super().on_train_start(trainer, pl_module)
        step = self._step_seen = trainer.global_step
        if step == 0:
            self.history = History()
            self._budget.forget()
        self._budget.start(step)
        if trainer.is_global_zero and not tensorboards(trainer):
            self._budget.record_pictures(0.0)
        # the first module of a sharded model to run takes itself for the whole: training must come first
        if self.at_start and step == 0 and not is_sharded(pl_module):
            self.measure(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure on a step count.

        The hook also fires between two steps when gradients accumulate, and once for the steps of several optimizers.
        """
        before, self._step_seen = self._step_seen, trainer.global_step
        if self.every_n_steps and before // self.every_n_steps < trainer.global_step // self.every_n_steps:
            self._measure_if_affordable(trainer, pl_module)
            self._log_for_callbacks(trainer, pl_module, on_step=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the last measurement if the budget had left that out."""
        step = self._schedule.step_measured
        if not self._is_drawn:
            with self._budget.measuring(), self._guarded(pl_module, "pictures"):
                self._draw(trainer, pl_module, step)
            overhead = {"monitor/overhead_percent": self._budget.overhead_percent(trainer.global_step)}
            self.values.update(overhead)
            self.history.correct(overhead)
            with self._guarded(pl_module, "scalars"):
                log_scalars(trainer, self._named(overhead), step)
        self._budget.stop(trainer.global_step)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Stop the clock of a fit that was interrupted; another may go on."""
        self._budget.stop(self._step_seen)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Try the settings before ``test``."""
        self._require_possible(trainer, pl_module)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure in ``test``."""
        self.measure(trainer, pl_module)
        self._log_for_callbacks(trainer, pl_module)

    def _is_affordable(self, trainer: pl.Trainer) -> bool:
        """Return true where the budget of the run has time for a measurement at this turn; say once if it has not."""
        affordable = self._budget.allows_measurement(horizon_of(trainer))
        if not (affordable or self._schedule.lacks_values or self._has_skipped):
            self._has_skipped = True
            rank_zero_info(
                f"{self._title} skips the measurement at step {trainer.global_step}, and perhaps later ones, to stay "
                "within its share of the training time; a larger budget measures more often."
            )
        return affordable

    def _try_settings(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Resolve the encoder, and find what was given by name."""
        resolve_encoder(pl_module, self.encoder, self.pool)
        resolve_preprocess(pl_module, self.preprocess)
        find_truths(self.sources)
        find_further(self.sources, trainer)
        check_probe(self.sources, trainer)

    # a measurement

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure, by the clock of the budget."""
        self._started, self._reads_data = time.monotonic(), self.prepared is None
        with self._budget.measuring():
            super().measure(trainer, pl_module)

    def observe(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Found:
        """Read the encoder, and compute values from the readings."""
        prepared = self._prepare(trainer, pl_module)
        sparing = Sparing(raises=self.on_error == "raise")
        noticed: set[str] = set()
        with fail_together(pl_module.device):
            method = replace(self._method(pl_module), notice=noticed.add)
        plan = self._plan(trainer, pl_module, method, prepared)
        with sparing.attempt("more of the reference"):
            read_further(self.sources, trainer, prepared, plan.reference)
        started = time.monotonic()
        self.readings = readings = self._read(trainer, method, prepared, plan, sparing)
        self._reading_seconds = time.monotonic() - started
        values = scalars(readings, prepared.facts)
        values["monitor/samples"] = float(len(readings.scores.log_density))
        values["monitor/subspace_rows"] = float(readings.subspace_rows)
        values["monitor/reference"] = float(readings.reference)
        if Moment.of(trainer).is_fitting:
            values |= self._stability(trainer.global_step, readings)
        values |= self._alarms(values, readings)
        reasons = problems(readings, prepared.facts, advice=advice_for_more(self.sources, trainer, prepared.size))
        left_out = prepared.left_out.failures | sparing.failures
        reasons += [*noticed, *(f"{part} is left out: {reason}" for part, reason in left_out.items())]
        return Found(values, reasons, lost=tuple(prepared.left_out.lost | sparing.lost))

    def _prepare(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Prepared:
        """Read the data, once for each call of the Trainer."""
        if self.prepared is None:
            sparing = Sparing(raises=self.on_error == "raise")
            self.prepared = prepare(self.sources, trainer, pl_module.device, sparing=sparing)
        return self.prepared

    def _read(self, trainer: pl.Trainer, method: Method, prepared: Prepared, plan: Plan, sparing: Sparing) -> Readings:
        samples = plan.samples * len(plan.with_jacobians(["", *prepared.ood])) // trainer.world_size
        with progress_bar(trainer, self._title, total=samples) as progress:
            return read(
                replace(method, progress=progress),
                prepared.probe,
                facts=prepared.facts,
                ood=prepared.ood,
                num_samples=prepared.size,
                plan=plan,
                sparing=sparing,
                further=prepared.further,
            )

    def _stability(self, step: int, readings: Readings) -> dict[str, float]:
        """Compare the ranking with that of the measurement before, and keep it for the next."""
        density, before = readings.scores.log_density, self.history.previous
        self.history.append_ranking(step, density, readings.log_singular.nanmean(0) if readings.rank else None)
        if before is None:
            return {}
        common = min(len(before), len(density))
        return {"density/stability": rank_stability(before[:common], density[:common])}

    def _alarms(self, values: Mapping[str, float], readings: Readings) -> dict[str, float]:
        """Return 1 for each alarm that is on, 0 for others; warn of those that begin or end."""
        first_share, *_ = self.history.values.get("gaussianity/variance_share", [math.nan])
        ringing = alarms(values, embedding_size=readings.z.shape[1], first_variance_share=first_share)
        self._warnings.warn(changes(self.history.alarms, ringing))
        self.history.alarms = ringing
        return {tag: float(tag in ringing) for tag in MESSAGES}

    def _method(self, pl_module: pl.LightningModule) -> Method:
        """Choose how the encoder is read now: weights and modules may have changed since the last measurement."""
        encode, _ = resolve_encoder(pl_module, self.encoder, self.pool)
        # what a preprocessor makes of inputs is not what the module's own method takes
        features = resolve_features(pl_module, self.pool) if self.encoder is None and not self.preprocess else None
        sharded = is_sharded(pl_module)
        return Method(
            encode=measured_encoder(pl_module, encode),
            to_device=resolve_inputs(pl_module, self.preprocess, pl_module.device),
            device=pl_module.device,
            rank=None if self.rank == "auto" else self.rank,
            embedding_density=self.embedding_density,
            dtype=precision_of(pl_module, as_it_is=sharded),
            chunk=self.chunk or (SHARDED_CHUNK if sharded else None),
            strategy="loop" if sharded else "auto",
            represent=None if features is None else measured_encoder(pl_module, features),
        )

    def _plan(self, trainer: pl.Trainer, pl_module: pl.LightningModule, method: Method, prepared: Prepared) -> Plan:
        """Let the budget decide what is measured, and log in one line what is, and why when that was decided."""
        known, trial = self._budget.text, partial(self._try_out, trainer, method, prepared)
        plan = self._budget.plan(prepared.size, horizon=horizon_of(trainer), trial=trial)
        described = self._description(trainer, pl_module, prepared) if self._reads_data else ""
        decided = f"{'It' if described else self._title} {self._budget.text}" if self._budget.text != known else ""
        if described or decided:
            rank_zero_info(" ".join(filter(None, [described, decided])))
        return plan

    def _try_out(self, trainer: pl.Trainer, method: Method, prepared: Prepared) -> Trial:
        method = replace(method, notice=lambda text: None)  # the measurement itself says it
        whole = partial(self._read, trainer, method, prepared, sparing=Sparing())
        trial = try_out(method, prepared.probe, whole, sets=1 + len(prepared.ood))
        if (further := prepared.further) and further.most > further.before:
            # reading is once in the measurements that there is time for at least
            seconds = trial.per_reference + further.seconds_a_sample / (ROOM_FOR * trainer.world_size)
            trial = replace(trial, per_reference=seconds, most_reference=further.most)
        if method.device.type != "cpu" and "16" in str(trainer.precision):
            return replace(trial, per_forward=trial.per_forward / HALF_PRECISION_SPEEDUP)
        return trial

    # after a measurement

    def _complete(self, trainer: pl.Trainer, pl_module: pl.LightningModule, moment: Moment, found: Found) -> None:
        """Add what the measurement cost, draw its pictures where there is time, and remember it."""
        budget, failed = self._budget, found.failure is not None
        seconds = broadcast(time.monotonic() - self._started)
        found.values |= {"monitor/failed": float(failed), "monitor/seconds": seconds}
        if moment.is_fitting:
            self.history.append(moment.step, moment.epoch, found.values)
            self._note_evaluations(trainer)
        if not failed:
            with self._guarded(pl_module, "pictures"):
                self._tell_story(trainer, pl_module, moment.step)
        if moment.is_fitting:
            # the first one also reads data, draws null values and imports matplotlib
            cost = self._reading_seconds if self._reads_data else time.monotonic() - self._started
            budget.record_measurement(moment.step, cost, failed=failed)
        self._is_drawn = failed or not moment.is_fitting or budget.allows_pictures()
        if self._is_drawn and not failed:
            with self._guarded(pl_module, "pictures"):
                self._draw(trainer, pl_module, moment.step)
        if moment.is_fitting and not math.isnan(overhead := budget.overhead_percent(moment.step)):
            found.values["monitor/overhead_percent"] = overhead
            self.history.correct({"monitor/overhead_percent": overhead})

    def _note_evaluations(self, trainer: pl.Trainer) -> None:
        """Remember accuracies that other callbacks have measured, for the story of the run."""
        for callback in callbacks_of(trainer):
            if isinstance(callback, MeasuringCallback) and callback.step_measured >= 0 and callback is not self:
                found = {tag: value for tag, value in callback.values.items() if tag in EVALUATED}
                self.history.note(callback.step_measured, found)

    def _tell_story(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int) -> None:
        """Log the picture of the run so far, on the first process: quickly drawn, it is part of a measurement."""
        if self.readings is None or self.prepared is None or not tensorboards(trainer):
            return
        with isolated(pl_module):
            log_pictures(trainer, self._named(draw_story(self.readings, self.prepared, self.history)), step)

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int) -> None:
        """Log the other pictures and histograms of the last measurement, on the first process."""
        if self.readings is None or self.prepared is None or not tensorboards(trainer):
            return
        started = time.monotonic()
        with isolated(pl_module):
            log_histograms(trainer, self.readings, step, prefix=self._prefix)
            log_pictures(trainer, self._named(illustrate(self.readings, self.prepared, self.history)), step)
        self._budget.record_pictures(time.monotonic() - started)

    def _on_failure(self, trainer: pl.Trainer, pl_module: pl.LightningModule, moment: Moment, text: str) -> None:
        """Log a failure as a text."""
        with self._guarded(pl_module, "failures"):
            log_text(trainer, f"{self._prefix}JEPA-SCORE/failures", text, moment.step)

    def _on_recovery(self, moment: Moment) -> None:
        """Say that a failure is over."""
        self._warnings.warn([f"measurements succeed again since step {moment.step}."])

    def _expected_tags(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> tuple[str, ...]:
        """Tags that do not depend on what may not be there."""
        return broadcast(tags_of_sources(self.sources, trainer))

    def _constants(self, trainer: pl.Trainer) -> Mapping[str, float]:
        """Null values, of the first of several monitors."""
        return NULLS if next(_monitors(trainer), self) is self else {}

    def _describe(self, trainer: pl.Trainer, moment: Moment) -> None:
        """Log the page that explains the tags, and the layout of all monitors' tags on one page."""
        later = dict.fromkeys(sorted(self._later_tags), 0.0)
        known = [*self.values, *later, *NULLS]
        logged = [tag for monitor in _monitors(trainer) for tag in monitor._named(monitor.values | later)]
        log_description(trainer, known, [*logged, *NULLS], moment.step, prefix=self._prefix)

    def _description(self, trainer: pl.Trainer, pl_module: pl.LightningModule, prepared: Prepared) -> str:
        """Sentences for the log on what is measured."""
        _, encoder = resolve_encoder(pl_module, self.encoder, self.pool)
        dataset = type(prepared.samples.dataset).__name__
        text = f"{self._title} measures {encoder} on {prepared.size} samples of {dataset}."
        if loader := which_loader(self.sources, trainer):
            text += f" It {loader}"
        averaging = [
            type(callback).__name__ for callback in callbacks_of(trainer) if hasattr(callback, "_average_model")
        ]
        if averaging:
            text += f" After validation these are the weights of {averaging[0]}, between steps the current ones."
        return text

    # checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Return the measurements so far and the budget, with which a resumed run goes on with the same samples."""
        return self.history.state_dict() | super().state_dict() | {"budget": self._budget.state_dict(self._step_seen)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.history.load_state_dict(state_dict)
        super().load_state_dict({"last": {}} | state_dict)
        if "budget" in state_dict:  # older checkpoints lack it
            self._budget.load_state_dict(state_dict["budget"])


def _monitors(trainer: pl.Trainer) -> Iterator[JEPAScoreMonitor]:
    return (callback for callback in callbacks_of(trainer) if isinstance(callback, JEPAScoreMonitor))
