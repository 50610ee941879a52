"""Sources of a monitor's data: what it was given, else what the DataModule offers, else the Trainer's loaders."""

from __future__ import annotations

import reprlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import TensorDataset

from .. import tag_groups
from ..errors import SettingError
from ..ranking import GaussianBaseline, fingerprints
from ..runtime.concise import Concise
from ..runtime.distributed import broadcast, fail_together, is_global_zero
from .facts import KnownBySample, LogDensity, Numbers, ProbeFacts, probe_facts
from .reference import FurtherReference, gaussian_baseline, require_alike
from .samples import (
    ImagesKey,
    LabelsKey,
    Samples,
    are_all_different,
    count_loaders,
    dataset_of,
    first_loader,
    is_stream,
    origin_of,
    read_stream,
)
from .shards import Shard, gather_by_index
from .sparing import PROBE, Sparing, further_set

NAMES_OF_PROBE = {PROBE, "probe"}  # among sets, and in the picture of their histograms


@dataclass(frozen=True)
class Sources:
    """Data that a callback was given; for ``None`` the DataModule and the Trainer's loaders are searched.

    Attributes:
        probe: dataset to measure on.
        reference: dataset that baselines are fitted to.
        ood: datasets of samples from elsewhere, by name.
        log_density: the truth, or several by name: functions of inputs, or numbers by index in the probe's dataset.
        images: place of the inputs in a sample.
        labels: place of the class labels in a sample.
        num_samples: number of samples read from each set, at most.
    """

    probe: Any
    reference: Any
    ood: Mapping[str, Any] | None
    log_density: LogDensity | Mapping[str, LogDensity] | None
    images: ImagesKey
    labels: LabelsKey
    num_samples: int


@dataclass(repr=False)
class Prepared(Concise):
    """Data that are read once: this process's shards, and facts of the probe that need no encoder.

    Attributes:
        samples: the probe, by index.
        size: samples of the probe, over all processes.
        probe: this process's shard.
        ood: shards of further sets.
        facts: facts of the probe that need no encoder.
        labels: (N,) classes of the probe; ``None`` where there are none, and on all processes but the first.
        left_out: parts that could not be read.
        further: reference samples that are not read yet; ``None`` where there are none.
    """

    samples: Samples
    size: int
    probe: Shard
    ood: Mapping[str, Shard]
    facts: ProbeFacts
    labels: Tensor | None
    left_out: Sparing
    further: FurtherReference | None = None


def prepare(sources: Sources, trainer: pl.Trainer, device: torch.device, *, sparing: Sparing) -> Prepared:
    """Read everything. Every process calls it. What a measurement can do without is left out where it fails.

    Raises:
        ValueError: where there is no data, or none that a probe can be read from.
    """
    load_validation(trainer)
    with fail_together(device):
        found = _find(sources, trainer)
    probe = open_samples(found.probe, sources, device)
    size = min(sources.num_samples, len(probe))

    read_shard = partial(_read_shard, sources, trainer)
    with fail_together(device):
        shard = read_shard(probe)
    labels, reference, baseline, more = None, None, None, None
    with sparing.attempt("the class labels"), fail_together(device):
        labels = probe.read_labels(range(size)) if trainer.is_global_zero else None
    if labels is not None and are_all_different(labels):
        labels = None  # numbers of the samples, which make no classes
    ood = {}
    for name, data in found.ood.items():
        with sparing.attempt(further_set(name), tag_groups.set_tags(name)):
            samples = open_samples(data, sources, device)
            with fail_together(device):
                further = read_shard(samples)
            ood[name] = further  # not before all processes have theirs
    with sparing.attempt("the reference", tag_groups.reference_tags(found.ood)):
        reference, baseline, more = _read_reference(found, sources, shard, read_shard, device)
    facts = probe_facts(
        Shard(shard.indices.to(device), shard.inputs),
        log_densities=found.log_densities,
        gaussian=baseline.score if baseline else None,
        reference=reference,
        coordinates=found.coordinates,
        sparing=sparing,
    )
    return Prepared(probe, size, shard, ood, facts, labels, sparing, more)


def read_further(sources: Sources, trainer: pl.Trainer, prepared: Prepared, total: int) -> None:
    """Read on until there are ``total`` reference samples, as far as there are, once. Every process calls it."""
    further, device = prepared.further, trainer.strategy.root_device
    if further is None or further.shard is not None or min(total, further.most) <= further.before:
        return
    prepared.further = None  # what fails once is not tried again
    samples = open_samples(further.data, sources, device, skip=further.start, count=further.most - further.before)
    further.read(samples, total, global_rank=trainer.global_rank, device=device)
    prepared.further = further


def _read_shard(sources: Sources, trainer: pl.Trainer, samples: Samples) -> Shard:
    count = sources.num_samples
    return Shard.read(samples, count, global_rank=trainer.global_rank, world_size=trainer.world_size)


@dataclass(frozen=True)
class _Found:
    """The data themselves, unread, and what they say of themselves."""

    probe: Any
    ood: Mapping[str, Any]
    reference: Any
    log_densities: Mapping[str, Callable[[Tensor], Numbers] | KnownBySample]
    coordinates: Callable[[Tensor], Tensor] | None


def load_validation(trainer: pl.Trainer) -> None:
    """Load validation data now, which Lightning loads when it first needs them.

    Without it, a run that validates every second epoch would be measured on its training data.
    """
    if trainer.state.fn == TrainerFn.FITTING and trainer.enable_validation and trainer.val_dataloaders is None:
        validating, training = trainer.validating, trainer.training
        trainer.validating = True
        try:
            trainer.fit_loop.epoch_loop.val_loop.setup_data()
        finally:
            trainer.validating, trainer.training = validating, training


def _find(sources: Sources, trainer: pl.Trainer) -> _Found:
    probe = find_probe(sources, trainer)
    origin, _ = origin_of(probe)
    return _Found(
        probe,
        find_further(sources, trainer),
        find_reference(sources, trainer),
        {name: known_of(truth, probe) for name, truth in find_truths(sources, origin).items()},
        getattr(origin, "coordinates", None),
    )


def known_of(truth: LogDensity, probe: Any) -> Callable[[Tensor], Numbers] | KnownBySample:
    """Bring a truth to the samples of the probe, which may be a DataLoader or a part of the dataset that has it."""
    if callable(truth):
        return truth
    origin, places = origin_of(probe)
    return KnownBySample(truth, None if is_stream(origin) else len(Samples.of(origin)), places)


def find_truths(sources: Sources, dataset: Any = None) -> Mapping[str, LogDensity]:
    """Find true log densities by name, the headline first: given, or the dataset's; functions, or numbers by index.

    Raises:
        SettingError: where they are something else, or one has the name of other tags.
    """
    truth = sources.log_density if sources.log_density is not None else getattr(dataset, "log_densities", {})
    named = truth if isinstance(truth, Mapping) else {"truth": truth}
    if not all(callable(value) or isinstance(value, (Tensor, np.ndarray)) for value in named.values()):
        raise SettingError(
            "log_density must be a function of inputs, or a tensor of one number for each sample of the probe's "
            f"dataset, or several of them by name, got {reprlib.repr(truth)}."
        )
    if taken := {name for name in list(named)[1:] if f"density/spearman_{name}" in tag_groups.TRUTH}:
        raise SettingError(f"log_density cannot have the name {taken.pop()!r}, because a tag has it.")
    return named


def find_further(sources: Sources, trainer: pl.Trainer) -> dict[str, Any]:
    """Find further sets, given or offered, in the same order on every process; names may be of any type.

    Raises:
        SettingError: where they have no names, two have the same name, or one has the probe's.
    """
    ood = sources.ood if sources.ood is not None else _offer(trainer, "ood_datasets") or {}
    if not isinstance(ood, Mapping):
        raise SettingError(f"ood must be a mapping from names to data, got a {type(ood).__name__}.")
    named = {str(name): data for name, data in ood.items()}
    if len(named) < len(ood):
        raise SettingError(f"two of the ood sets have the same name: {', '.join(map(repr, ood))}.")
    if taken := named.keys() & NAMES_OF_PROBE:
        raise SettingError(f"an ood set cannot have the name {taken.pop()!r} of the probe: choose another name.")
    return {name: named[name] for name in sorted(named)}


def find_probe(sources: Sources, trainer: pl.Trainer) -> Any:
    """Find the data to measure on: given, offered, or those of validation, test or training, in this order.

    Raises:
        ValueError: where there is none of these.
    """
    if sources.probe is not None:
        return sources.probe
    found = _offer(trainer, "probe_dataset")
    if found is None:
        loaders = (trainer.val_dataloaders, trainer.test_dataloaders, trainer.train_dataloader)
        found = next((loader for loader in map(first_loader, loaders) if loader is not None), None)
    if found is None:
        raise ValueError("there are no data to measure on: pass probe=, a dataset or a tensor.")
    return found


def check_probe(sources: Sources, trainer: pl.Trainer) -> None:
    """Check that a given probe can be read, and that samples have what ``images=`` and ``labels=`` name.

    Raises:
        SettingError: if not.
    """
    if sources.probe is not None and not is_stream(sources.probe):
        Samples.of(sources.probe)
    if all(key is None or callable(key) for key in (sources.images, sources.labels)):
        return
    load_validation(trainer)
    probe = find_probe(sources, trainer)
    if not is_stream(probe):
        Samples.of(probe, images=sources.images, labels=sources.labels).check_keys()


def which_loader(sources: Sources, trainer: pl.Trainer) -> str | None:
    """A sentence on the probe where it is the first of several validation loaders."""
    if sources.probe is not None or _offer(trainer, "probe_dataset") is not None:
        return None
    count = count_loaders(trainer.val_dataloaders)
    return f"measures the first of {count} validation loaders: pass probe= for another." if count > 1 else None


def advice_for_more(sources: Sources, trainer: pl.Trainer, size: int) -> str:
    """Say how to get more than ``size`` probe samples, by the DataModule's ``probe_advice`` if it has one."""
    if size == sources.num_samples:
        return "raise num_samples"
    advice = getattr(getattr(trainer, "datamodule", None), "probe_advice", None)
    return str(advice) if advice and sources.probe is None else "pass a larger probe="


def tags_of_sources(sources: Sources, trainer: pl.Trainer) -> tuple[str, ...]:
    """Tags of a measurement that did not come about: those that do not depend on what is not there."""
    try:
        found = _find(sources, trainer)
        truths, sets, has_reference = list(found.log_densities), list(found.ood), found.reference is not None
    except Exception:  # the reason why there was no measurement
        truths, sets, has_reference = ["truth"] if sources.log_density is not None else [], [], False
    of_truths = [tag for i, name in enumerate(truths) for tag in tag_groups.truth_tags(name, headline=i == 0)]
    of_sets = [tag for name in sets for tag in tag_groups.set_tags(name, has_reference=has_reference)]
    return (*tag_groups.USUAL_TAGS, *of_truths, *of_sets, *(tag_groups.REFERENCE_TAGS if has_reference else ()))


def find_reference(sources: Sources, trainer: pl.Trainer) -> Any:
    """Find training samples: given, offered, or the data of training; ``None`` where there is none of these."""
    if sources.reference is not None:
        return sources.reference
    offered = _offer(trainer, "reference_dataset")
    return offered if offered is not None else first_loader(trainer.train_dataloader)


def open_samples(
    data: Any, sources: Sources, device: torch.device, *, skip: int = 0, count: int | None = None
) -> Samples:
    """Open samples by index, from ``skip`` on; of a stream ``count`` of them, which the first process reads."""
    keys = {"images": sources.images, "labels": sources.labels}
    if not is_stream(data):
        with fail_together(device):
            return Samples.of(data, skip=skip, **keys)
    with fail_together(device):
        tensors = read_stream(data, skip=skip, count=count or sources.num_samples, **keys) if is_global_zero() else ()
    return Samples(TensorDataset(*broadcast(tensors)))


def _read_reference(
    found: _Found, sources: Sources, probe: Shard, read_shard: Callable[[Samples], Shard], device: torch.device
) -> tuple[Shard | None, GaussianBaseline | None, FurtherReference | None]:
    """Read samples that baselines are fitted to, none of them in the probe: in-sample distances say nothing."""
    if found.reference is None:
        return None, None, None
    known = set(gather_by_index(probe.indices.to(device), fingerprints(probe.inputs).to(device)).tolist())
    skip = sources.num_samples if dataset_of(found.reference) is dataset_of(found.probe) else 0
    try:
        if skip and not is_stream(found.reference) and len(dataset_of(found.reference)) <= skip:
            return None, None, None  # the probe is all there is
        samples = open_samples(found.reference, sources, device, skip=skip)
        with fail_together(device):
            # every process reads all of them, so that each shards and fits to the same
            started = time.monotonic()
            whole = Shard.read(samples, sources.num_samples)
            pace = (time.monotonic() - started) / len(whole.indices)
            require_alike(whole, probe)
            new = [i for i, one in enumerate(fingerprints(whole.inputs).tolist()) if one not in known]
            if len(new) < 2:
                rank_zero_warn("JEPAScoreMonitor computes no baselines: all reference samples are in the probe, too.")
                return None, None, None
            baseline = gaussian_baseline(whole.inputs[new]) if found.log_densities else None
            start = skip + len(whole.indices)
            more = FurtherReference(found.reference, start, len(new), whole.inputs[:1], frozenset(known), pace)
            return read_shard(Samples(whole.inputs[new])), baseline, more
    except Exception as error:
        if sources.reference is not None:
            raise
        # training data can be anything; the encoder takes what the probe has
        rank_zero_warn(f"JEPAScoreMonitor computes no baselines, as training data cannot be their reference: {error}")
        return None, None, None


def _offer(trainer: pl.Trainer, name: str) -> Any:
    """Return what the DataModule offers under this name, if there is one and it does."""
    method: Callable[[], Any] | None = getattr(getattr(trainer, "datamodule", None), name, None)
    return method() if method is not None else None
