"""Where a monitor's data come from: what it was given, else what the DataModule offers, else the Trainer's loaders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from .agreement import from_first, together
from .measurement import LogDensity, ProbeFacts, probe_facts
from .probe import ImagesKey, LabelsKey, Samples, Shard, stream_of
from .ranking import GaussianBaseline


@dataclass(frozen=True)
class Sources:
    """What a monitor was given; ``None`` is looked for.

    Attributes:
        probe, reference: datasets.
        ood: name to dataset.
        log_density: the truth, or several by name.
        images, labels: where they are in a sample.
        num_samples: of each set, at most.
    """

    probe: Any
    reference: Any
    ood: Mapping[str, Any] | None
    log_density: LogDensity | Mapping[str, LogDensity] | None
    images: ImagesKey
    labels: LabelsKey
    num_samples: int


@dataclass(frozen=True)
class Prepared:
    """What is read once: this process's shards, and what is known of the probe without an encoder.

    Attributes:
        samples: the probe, by index.
        size: samples of the probe, over all processes.
        probe: this process's shard.
        ood: shards of further sets.
        facts: of the probe.
        labels: (N,) classes of the probe; ``None`` where there are none, and on all processes but the first.
    """

    samples: Samples
    size: int
    probe: Shard
    ood: Mapping[str, Shard]
    facts: ProbeFacts
    labels: Tensor | None


def prepare(sources: Sources, trainer: pl.Trainer, device: torch.device) -> Prepared:
    """Read everything. Every process calls it.

    Raises:
        ValueError: where there is no data, or none that a probe can be read from.
    """
    count = sources.num_samples
    probe = _samples(find_probe(sources, trainer), sources, device)
    offered = sources.ood if sources.ood is not None else _offer(trainer, "ood_datasets") or {}
    ood = {name: _samples(offered[name], sources, device) for name in sorted(offered)}
    reference = _find_reference(sources, trainer, probe, device)
    truths = _find_log_densities(sources, probe.dataset)

    def read_shard(samples: Samples) -> Shard:
        return samples.shard(count=count, rank=trainer.global_rank, world_size=trainer.world_size)

    def read() -> tuple[Shard, dict[str, Shard], Tensor | None]:
        shards = {name: read_shard(samples) for name, samples in ood.items()}
        labels = probe.read_labels(range(min(count, len(probe)))) if trainer.is_global_zero else None
        return read_shard(probe), shards, labels

    def read_reference(shard: Shard) -> tuple[Shard | None, GaussianBaseline | None]:
        if reference is None:
            return None, None
        try:
            # every process fits the same baseline to the same inputs
            baseline = _gaussian_baseline(reference, count) if truths else None
            found = read_shard(reference)
            _require_alike(found, shard)
        except ValueError as error:
            if sources.reference is not None:
                raise
            # training data can be anything; the encoder takes what the probe has
            rank_zero_warn(f"JEPAScoreMonitor leaves baselines out: training data cannot be their reference: {error}")
            return None, None
        return found, baseline

    shard, ood_shards, labels = together(read, device=device)
    reference_shard, baseline = together(lambda: read_reference(shard), device=device)
    facts = probe_facts(
        Shard(shard.indices.to(device), shard.inputs),
        log_densities=truths,
        gaussian=baseline.score if baseline else None,
        reference=reference_shard,
        coordinates=getattr(probe.dataset, "coordinates", None),
    )
    return Prepared(probe, min(count, len(probe)), shard, ood_shards, facts, labels)


def find_probe(sources: Sources, trainer: pl.Trainer) -> Any:
    """What is measured: given, offered, or the data of validation, test or training, in this order.

    Raises:
        ValueError: where there is none of these.
    """
    if sources.probe is not None:
        return sources.probe
    found = _offer(trainer, "probe_dataset")
    if found is None:
        loaders = (trainer.val_dataloaders, trainer.test_dataloaders, trainer.train_dataloader)
        found = next((loader for loader in map(_first_loader, loaders) if loader is not None), None)
    if found is None:
        raise ValueError("JEPAScoreMonitor found no data to measure on: pass probe=, a dataset or a tensor.")
    return found


def _find_reference(sources: Sources, trainer: pl.Trainer, probe: Samples, device: torch.device) -> Samples | None:
    found = sources.reference
    if found is None:
        found = _offer(trainer, "reference_dataset")
    if found is None:
        found = _first_loader(trainer.train_dataloader)
    if found is None:
        return None
    reference = _samples(found, sources, device)
    if reference.dataset is not probe.dataset:
        return reference
    # the probe itself would be nearest to itself: what comes after it
    rest = range(min(sources.num_samples, len(probe)), len(probe))
    return replace(reference, dataset=Subset(reference.dataset, rest)) if len(rest) > 1 else None


def _find_log_densities(sources: Sources, dataset: Any) -> Mapping[str, LogDensity]:
    truth = sources.log_density if sources.log_density is not None else getattr(dataset, "log_densities", {})
    return {"truth": truth} if callable(truth) else truth


def _samples(data: Any, sources: Sources, device: torch.device) -> Samples:
    """Samples by index; of a stream, those that the first process sees."""
    stream = stream_of(data)
    if stream is not None:
        start = from_first(together(lambda: list(islice(stream, sources.num_samples)), device=device))
        data = DataLoader(_Listed(start), collate_fn=data.collate_fn) if isinstance(data, DataLoader) else start
    return together(lambda: Samples.of(data, images=sources.images, labels=sources.labels), device=device)


class _Listed(Dataset[Any]):
    """A list of samples, as a dataset."""

    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def _require_alike(reference: Shard, probe: Shard) -> None:
    """Raise where an encoder that takes the one cannot be expected to take the other."""
    first, second = (f"{shard.inputs.dtype} of shape {tuple(shard.inputs[0].shape)}" for shard in (reference, probe))
    if first != second:
        raise ValueError(f"samples are {first}, those of the probe {second}; pass reference=.")


def _gaussian_baseline(reference: Samples, count: int) -> GaussianBaseline | None:
    inputs = reference.shard(count=count, rank=0, world_size=1).inputs
    try:
        return GaussianBaseline.fit(inputs)
    except ValueError as error:
        rank_zero_warn(f"JEPAScoreMonitor leaves density/spearman_gaussian out: {error}")
        return None


def _offer(trainer: pl.Trainer, name: str) -> Any:
    """What the DataModule offers under this name, if there is one and it does."""
    method: Callable[[], Any] | None = getattr(getattr(trainer, "datamodule", None), name, None)
    return method() if method is not None else None


def _first_loader(loaders: Any) -> Any:
    """The first of one or many loaders, nested in lists or dicts; ``None`` if there is none."""
    while isinstance(loaders, (Mapping, list, tuple)):
        loaders = next(iter(loaders.values() if isinstance(loaders, Mapping) else loaders), None)
    return loaders
