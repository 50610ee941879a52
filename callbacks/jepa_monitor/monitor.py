"""The callback: when to measure, on which probe, on which process. No mathematics here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from numbers import Real
from typing import Any, Literal, TypeVar

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from .history import History
from .measurement import Method, read, try_out
from .pictures.illustrations import illustrate
from .probe.facts import LogDensity
from .probe.samples import ImagesKey, LabelsKey
from .probe.sources import (
    Prepared,
    Sources,
    check_probe,
    expected_tags,
    find_further,
    find_truths,
    prepare,
    which_loader,
)
from .probe.sparing import Sparing
from .ranking import rank_stability
from .readings import Readings
from .run import Run
from .runtime.budget import Budget, Estimator, Plan, Trial
from .runtime.distributed import broadcast, fail_together
from .runtime.encoder import (
    HALF_PRECISION,
    EncoderChoice,
    Pool,
    Preprocess,
    check_pool,
    in_full_precision,
    input_like,
    is_sharded,
    is_tensor_parallel,
    precision_of,
    resolve_encoder,
    resolve_preprocess,
)
from .runtime.horizon import horizon_of
from .runtime.isolation import undisturbed
from .runtime.loggers import (
    announce,
    log_histograms,
    log_introduction,
    log_pictures,
    log_scalars,
    log_text,
    tensorboards,
)
from .runtime.progress import progress_of
from .runtime.schedule import Schedule, is_fitting, is_last_batch_of_validation
from .runtime.settings import require_possible, require_whole, warn_of_followers, what_training_does
from .scalars import MESSAGES, alarms, changes, problems, scalars
from .tags import NULLS

DEFAULT_SAMPLES = 512
HALF_PRECISION_SPEEDUP = 3.0  # of training on an accelerator, beside the float32 of a trial
SHARDED_CHUNK = 16  # samples a pass where processes must make the same passes, whatever memory each has
T = TypeVar("T")
GROUPS = ("density/", "gaussianity/", "jacobian/", "alarm/", "monitor/")
HEADLINES = ("density/spearman", "gaussianity/sliced_ep_ratio")


class JEPAScoreMonitor(pl.Callback):
    """Tracks how well an encoder's Jacobian ranks samples by density, and how Gaussian its embeddings are.

    It measures a fixed probe before training, at the end of validation (or of the training epoch where there was no
    validation), and in ``validate`` and ``test``. Training with and without it is the same, bit for bit: modes, buffers
    and random-number generators are put back, and nothing is added to the module. All processes take part and all log
    the same values, so ``ModelCheckpoint(monitor="density/spearman", mode="max")`` works on any
    number of them.

    What is not given is looked for in the DataModule, which may offer ``probe_dataset()``, ``reference_dataset()`` and
    ``ood_datasets()`` (name to dataset), then in the Trainer's loaders. A dataset with ``log_densities`` (name to
    function of inputs) has a known truth; one with ``coordinates`` (inputs to (N, 2)) is drawn in that plane.

    Args:
        encoder: dotted path to a submodule, a function ``(module, inputs) -> embeddings``, or ``None`` for the first
            submodule whose name is or contains target, teacher, encoder, backbone, student, model, net or
            feature_extractor, in this order and without heads, else the module's forward; the log says which and why.
        pool: how tokens or feature maps become one vector: ``mean``, ``cls``, ``flatten`` or a function.
        preprocess: applied to inputs on the device, a function of them or the path of a submodule (an embedding table);
            Jacobians are with respect to its result.
        probe: dataset, DataLoader or tensors to measure on; default: validation data, else training data.
        reference: the same, that baselines are fitted to; default: training data.
        ood: name to dataset, DataLoader or tensor of samples from elsewhere.
        log_density: true log density of inputs, (N, ...) -> (N,), or several by name, the headline first.
        images: where the inputs are in a sample: a key, a position, or a function; the usual places are tried.
        labels: where class labels are, for the gallery; the usual places are tried.
        num_samples: of the probe, the reference and each other set, taken by index from 0. ``None`` means 512, of which
            a run too short for them takes Jacobians of fewer, the same ones to its end. At least 2 K is advised.
        rank: r of ``log_density``; ``auto`` cuts the probe's mean spectrum at its widest gap.
        every_n_epochs: measure at the end of each n-th epoch, and at the first validation where nothing was measured
            before it; 0 for no epoch.
        every_n_steps: measure also each time that many optimizer steps are done; 0 for never.
        at_start: measure before the first step (not where weights are sharded: FSDP lets training run first).
        budget: share of the training time that measurements may take in ``fit``, and at least 2 seconds a run: where
            that does not suffice for all of them, some are left out, but never the first and the last. ``None`` sets
            no limit.
        estimator: ``exact`` or ``sketch`` Jacobians; ``auto`` takes sketches where K is at least 64 and exact ones of
            256 samples exceed the budget.
        chunk: samples a pass of a Jacobian; ``None`` chooses by the encoder's size and the free memory.
        on_error: ``warn`` goes on training when a measurement fails, with NaN for its values; ``raise`` does not. What
            a measurement can do without (a further set, a truth, the reference, labels) costs its own values alone.
        name: goes before all tags, to tell several monitors apart.

    Raises:
        ValueError: for a number out of range; :class:`SettingError`, before anything is trained or measured, for one
            that can never work, such as the path of a submodule that the module lacks.
    """

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
        every_n_epochs: int = 1,
        every_n_steps: int = 0,
        at_start: bool = True,
        budget: float | None = 0.05,
        estimator: Estimator = "auto",
        chunk: int | None = None,
        on_error: Literal["warn", "raise"] = "warn",
        name: str = "",
    ) -> None:
        require_whole(1, None, num_samples=num_samples, chunk=chunk)
        require_whole(1, "auto", rank=rank)
        require_whole(0, every_n_epochs=every_n_epochs, every_n_steps=every_n_steps)
        if budget is not None and not (isinstance(budget, Real) and budget > 0.0):
            raise ValueError(f"budget must be a positive share of the training time, or None, got {budget!r}.")
        if estimator not in ("auto", "exact", "sketch") or on_error not in ("warn", "raise"):
            raise ValueError(
                f"estimator must be auto, exact or sketch and on_error warn or raise, got {estimator!r}, {on_error!r}."
            )
        check_pool(pool)
        self.encoder = encoder
        self.pool = pool
        self.preprocess = preprocess
        self.sources = Sources(
            probe, reference, ood, log_density, images, labels, DEFAULT_SAMPLES if num_samples is None else num_samples
        )
        self.num_samples = num_samples
        self.rank = rank
        self.every_n_steps = every_n_steps
        self.at_start = at_start
        self.estimator = estimator
        self.chunk = chunk
        self.on_error = on_error
        self.name = name
        self.history = History()
        self.readings: Readings | None = None
        self._budget = Budget(budget, estimator)
        self._run = Run(self._title)
        measures_first = at_start or every_n_epochs > 0 or every_n_steps > 0
        self._schedule = Schedule(every_n_epochs, measures_first=measures_first)

    @property
    def state_key(self) -> str:
        """Tells monitors apart in a checkpoint."""
        return f"JEPAScoreMonitor[{self.name}]" if self.name else "JEPAScoreMonitor"

    @property
    def every_n_epochs(self) -> int:
        """Epochs from one measurement to the next; 0 for no epoch."""
        return self._schedule.every_n_epochs

    @property
    def values(self) -> dict[str, float]:
        """Last value of each tag."""
        return self._schedule.last

    @property
    def seconds_spent(self) -> float:
        """Seconds of measurements and pictures in this run."""
        return self._budget.spent

    # when

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Data are looked for anew: another call may come with another project."""
        self._run = Run(self._title)
        self._schedule.begin(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the untrained encoder, unless training resumes."""
        self._require_possible(trainer, pl_module)
        run = self._run
        run.step_seen = trainer.global_step
        if trainer.global_step == 0:
            self.history = History()
            self._budget.forget()
        self._budget.start(trainer.global_step)
        if trainer.is_global_zero and not tensorboards(trainer):
            self._budget.record_pictures(0.0)
        # the first module of a sharded model to run takes itself for the whole: training must come first
        if self.at_start and trainer.global_step == 0 and not is_sharded(pl_module):
            self._measure(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the settings before ``validate``."""
        if not is_fitting(trainer):
            self._require_possible(trainer, pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the settings before ``test``."""
        self._require_possible(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure on a step count.

        The hook also fires between two steps when gradients accumulate, and once for the steps of several optimizers.
        """
        before, self._run.step_seen = self._run.step_seen, trainer.global_step
        if self.every_n_steps and before // self.every_n_steps < trainer.global_step // self.every_n_steps:
            self._measure_in_budget(trainer, pl_module)
            self._announce(trainer, pl_module, on_step=True)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure after the last batch.

        Weight averaging puts the averaged weights in for the epoch of validation, and takes them out in the hook at its
        end, before or after ours. Here they are in whatever the order of the callbacks.
        """
        if is_last_batch_of_validation(trainer) and self._schedule.takes_validation(trainer):
            self._measure_in_budget(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log for callbacks that follow a tag; measure here if the last batch was not known."""
        if trainer.sanity_checking:
            return
        if self._schedule.takes_validation(trainer):
            self._measure_in_budget(trainer, pl_module)
        self._schedule.end_validation()
        self._announce(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure, and log for callbacks that follow a tag, in an epoch without validation."""
        if self._schedule.is_validated(trainer):
            return
        if self._schedule.takes_epoch(trainer):
            self._measure_in_budget(trainer, pl_module)
        self._announce(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the last measurement if the budget had left that out."""
        step = self._schedule.step_measured
        if not self._run.is_painted:
            with self._budget.measuring():
                self._guarded(pl_module, "pictures", lambda: self._paint(trainer, pl_module, step))
            overhead = {"monitor/overhead(%)": self._budget.overhead_percent(trainer.global_step)}
            self.values.update(overhead)
            self.history.correct(overhead)
            self._guarded(pl_module, "scalars", lambda: log_scalars(trainer, self._named(overhead), step))
        self._budget.stop(trainer.global_step)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Stop the clock of a fit that was interrupted; another may go on."""
        self._budget.stop(self._run.step_seen)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure in ``test``."""
        self._measure(trainer, pl_module)
        self._announce(trainer, pl_module)

    def _measure_in_budget(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        is_allowed = not is_fitting(trainer) or self._budget.allows_measurement(horizon_of(trainer))
        if is_allowed or self._schedule.lacks_values:
            self._measure(trainer, pl_module)

    def _require_possible(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        def try_out() -> None:
            resolve_encoder(pl_module, self.encoder, self.pool)
            resolve_preprocess(pl_module, self.preprocess)
            find_truths(self.sources)
            find_further(self.sources, trainer)
            check_probe(self.sources, trainer)

        require_possible(pl_module, try_out)
        warn_of_followers(trainer, self._prefix, GROUPS)

    # what

    def _measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One measurement, from the probe to the loggers; every process calls it."""
        run, budget, step = self._run, self._budget, trainer.global_step
        is_first = run.prepared is None
        started = time.monotonic()
        with budget.measuring():
            failure = None
            try:
                with undisturbed(pl_module):
                    values = self._observe(trainer, pl_module)
            except Exception as error:  # whatever it was, training must not end by it
                if self.on_error == "raise":
                    raise
                failure = f"{type(error).__name__}: {error}"
                values = {}
            seconds = broadcast(time.monotonic() - started)
            values |= {"monitor/failed": float(failure is not None), "monitor/seconds(s)": seconds}
            self._tell(failure, trainer, pl_module)
            if is_fitting(trainer):
                # the first one also reads data and draws null values
                budget.record_measurement(step, run.seconds_of_reading if is_first else seconds, failed=bool(failure))
            run.is_painted = failure is not None or not is_fitting(trainer) or budget.allows_pictures()
            if run.is_painted and failure is None:
                self._guarded(pl_module, "pictures", lambda: self._paint(trainer, pl_module, step))
            if is_fitting(trainer):
                if not math.isnan(overhead := budget.overhead_percent(step)):
                    values["monitor/overhead(%)"] = overhead
                self.history.append(step, trainer.current_epoch, values)
            self._publish(trainer, pl_module, values)

    def _observe(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        """Values of the encoder by tag."""
        run = self._run
        sparing = Sparing(raises=self.on_error == "raise")
        if run.prepared is None:
            run.prepared = prepare(self.sources, trainer, pl_module.device, sparing=Sparing(raises=sparing.raises))
            rank_zero_info(self._introduction(trainer, pl_module, run.prepared))
        prepared = run.prepared
        noticed: set[str] = set()
        with fail_together(pl_module.device):
            method = replace(self._method(pl_module), notice=noticed.add)
        plan = self._plan(trainer, method, prepared)
        samples = plan.samples * (1 + len(prepared.ood)) // trainer.world_size
        started = time.monotonic()
        with progress_of(trainer, self._title, total=samples) as progress:
            self.readings = readings = read(
                replace(method, progress=progress),
                prepared.probe,
                facts=prepared.facts,
                ood=prepared.ood,
                num_samples=prepared.size,
                plan=plan,
                sparing=sparing,
            )
        run.seconds_of_reading = time.monotonic() - started
        values = scalars(readings, prepared.facts)
        values["monitor/samples"] = float(len(readings.scores.log_density))
        values["monitor/sketch_rows"] = float(readings.sketch_rows)
        density = readings.scores.log_density
        if is_fitting(trainer):
            if self.history.previous is not None:
                common = min(len(self.history.previous), len(density))
                values["density/stability"] = rank_stability(self.history.previous[:common], density[:common])
            spectrum = readings.log_singular_white
            self.history.append_ranking(trainer.global_step, density, None if spectrum is None else spectrum.nanmean(0))
        first_share, *_ = self.history.values.get("gaussianity/variance_share", [math.nan])
        ringing = alarms(values, embedding_size=readings.z.shape[1], first_variance_share=first_share)
        values |= {tag: float(tag in ringing) for tag in MESSAGES}
        run.notices.tell(changes(self.history.alarms, ringing))
        run.notices.tell_new("meaning", problems(readings, prepared.facts, advice=self._advice(trainer, prepared)))
        run.notices.tell_new("encoder", noticed)
        left_out = prepared.left_out.failures | sparing.failures
        run.notices.tell_new("left out", [f"{part} is left out: {reason}" for part, reason in left_out.items()])
        run.lost = tuple(prepared.left_out.lost | sparing.lost)
        self.history.alarms = ringing
        return values

    def _method(self, pl_module: pl.LightningModule) -> Method:
        """How the encoder is read now: weights and modules may be others than at the last measurement."""
        encode, _ = resolve_encoder(pl_module, self.encoder, self.pool)
        sharded = is_sharded(pl_module)
        if is_tensor_parallel(pl_module):
            raise ValueError("tensor-parallel weights cannot be measured: each process would read other samples.")
        preprocess = resolve_preprocess(pl_module, self.preprocess)

        def to_device(inputs: Tensor) -> Tensor:
            inputs = preprocess(input_like(pl_module, inputs, pl_module.device))
            if not inputs.is_floating_point():
                raise ValueError(
                    f"inputs are {inputs.dtype}; a Jacobian needs floating-point inputs: pass preprocess=, a "
                    "function that converts or embeds them."
                )
            return inputs.float() if inputs.dtype in HALF_PRECISION else inputs

        return Method(
            encode=encode if sharded else in_full_precision(pl_module, encode),
            to_device=to_device,
            device=pl_module.device,
            rank=None if self.rank == "auto" else self.rank,
            dtype=precision_of(pl_module, as_it_is=sharded),
            chunk=self.chunk or (SHARDED_CHUNK if sharded else None),
            strategy="loop" if sharded else "auto",
        )

    def _advice(self, trainer: pl.Trainer, prepared: Prepared) -> str:
        """Advice for more probe samples, from the DataModule's ``probe_advice`` if it has one."""
        if prepared.size == self.sources.num_samples:
            return "raise num_samples"
        advice = getattr(getattr(trainer, "datamodule", None), "probe_advice", None)
        return str(advice) if advice and self.sources.probe is None else "pass a larger probe="

    def _plan(self, trainer: pl.Trainer, method: Method, prepared: Prepared) -> Plan:
        """The plan decided at the first measurement of the run; all samples where nothing is limited."""
        budget = self._budget
        limited = is_fitting(trainer) and budget.share is not None
        if self.num_samples is not None or (budget.decided is None and not limited):
            return Plan(prepared.size, sketch=self.estimator == "sketch")
        is_new = budget.decided is None
        plan = budget.plan(
            prepared.size, horizon=horizon_of(trainer), trial=lambda: self._try_out(trainer, method, prepared)
        )
        if is_new:
            rank_zero_info(f"{self._title} {budget.text}")
        return plan

    def _try_out(self, trainer: pl.Trainer, method: Method, prepared: Prepared) -> Trial:
        trial = try_out(method, prepared.probe, sets=1 + len(prepared.ood))
        if method.device.type != "cpu" and "16" in str(trainer.precision):
            return replace(trial, per_forward=trial.per_forward / HALF_PRECISION_SPEEDUP)
        return trial

    # where to

    def _publish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, values: dict[str, float]) -> None:
        """Values to the loggers; with them, of a measurement that failed, NaN for what there was before."""
        run, step, fitting = self._run, trainer.global_step, is_fitting(trainer)
        failed = values["monitor/failed"] > 0.0
        if failed:  # each process may have found another reason, but all log the same tags
            run.lost = tuple(self.values) or broadcast(expected_tags(self.sources, trainer))
        self._schedule.record(step, values, lost=run.lost, failed=failed)
        if fitting:
            nulls = NULLS if next(iter(_monitors(trainer)), self) is self else {}
            logged = self._named(self._schedule.latest) | nulls
            self._guarded(pl_module, "scalars", lambda: log_scalars(trainer, logged, step))
        if self.values.keys() - run.introduced:
            later = dict.fromkeys(("density/stability", "monitor/overhead(%)"), 0.0)
            run.introduced |= self.values.keys() | later.keys()
            known = [*self.values, *later, *NULLS]
            of_all = [tag for monitor in _monitors(trainer) for tag in monitor._named(monitor.values | later)]
            self._guarded(
                pl_module,
                "introduction",
                lambda: log_introduction(trainer, known, [*of_all, *NULLS], step, prefix=self._prefix),
            )

    def _paint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int) -> None:
        """The last measurement's pictures and histograms, on the first process."""
        if self.readings is None or self._run.prepared is None or not tensorboards(trainer):
            return
        started = time.monotonic()
        with undisturbed(pl_module):
            log_histograms(trainer, self.readings, step, prefix=self._prefix)
            drawn = illustrate(self.readings, self._run.prepared, self.history)
            log_pictures(trainer, self._named(drawn), step)
        self._budget.record_pictures(time.monotonic() - started)

    def _announce(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *, on_step: bool = False) -> None:
        """To callbacks that follow a tag, and to the progress bar."""
        bar = [self._prefix + tag for tag in HEADLINES]
        values = self._named(self._schedule.values_for(trainer))
        self._guarded(
            pl_module, "announcement", lambda: announce(trainer, pl_module, values, on_step=on_step, on_bar=bar)
        )

    def _guarded(self, pl_module: pl.LightningModule, topic: str, function: Callable[[], None]) -> None:
        """What a process does by itself must not end training, nor leave other processes waiting."""
        try:
            with fail_together(pl_module.device):
                function()
        except Exception as error:
            if self.on_error == "raise":
                raise
            self._run.notices.tell_new(topic, [f"could not write what it measured: {type(error).__name__}: {error}"])
        else:
            self._run.notices.tell_new(topic, [])

    def _tell(self, failure: str | None, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A failure, once for each reason, and its end."""
        run, step = self._run, trainer.global_step
        if failure is None and run.failure is not None:
            run.notices.tell([f"it measures again at step {step}."])
        if failure is not None and failure != run.failure:
            outcome = what_training_does(trainer, self._prefix, GROUPS, self.values)
            text = f"could not measure at step {step}, and {outcome}: {failure}"
            run.notices.tell([text])
            self._guarded(
                pl_module, "failures", lambda: log_text(trainer, f"{self._prefix}JEPA-SCORE/failures", text, step)
            )
        run.failure = failure

    def _introduction(self, trainer: pl.Trainer, pl_module: pl.LightningModule, prepared: Prepared) -> str:
        _, encoder = resolve_encoder(pl_module, self.encoder, self.pool)
        dataset = type(prepared.samples.dataset).__name__
        text = f"{self._title} measures {encoder} on {prepared.size} samples of {dataset}."
        if loader := which_loader(self.sources, trainer):
            text += f" It {loader}"
        averaging = [type(callback).__name__ for callback in _callbacks(trainer) if hasattr(callback, "_average_model")]
        if averaging:
            text += f" After validation these are the weights of {averaging[0]}, between steps the current ones."
        return text

    def _named(self, values: Mapping[str, T]) -> dict[str, T]:
        return {self._prefix + tag: value for tag, value in values.items()}

    @property
    def _prefix(self) -> str:
        return f"{self.name}/" if self.name else ""

    @property
    def _title(self) -> str:
        return f"JEPAScoreMonitor {self.name}".strip()

    def state_dict(self) -> dict[str, Any]:
        """The measurements so far and the budget, so that a resumed run measures the same samples and goes on."""
        return self.history.state_dict() | {"last": self.values, "budget": self._budget.state_dict(self._run.step_seen)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.history.load_state_dict(state_dict)
        self._schedule.resume(state_dict.get("last", {}))
        if "budget" in state_dict:  # older checkpoints lack it
            self._budget.load_state_dict(state_dict["budget"])


def _callbacks(trainer: pl.Trainer) -> list[Any]:
    return list(getattr(trainer, "callbacks", []))


def _monitors(trainer: pl.Trainer) -> list[JEPAScoreMonitor]:
    return [callback for callback in _callbacks(trainer) if isinstance(callback, JEPAScoreMonitor)]
