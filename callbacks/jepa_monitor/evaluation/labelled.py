"""The base of evaluations that need class labels: queries, bank, and the accuracies of each kind of features."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from ..callback import Found
from ..errors import require_whole
from ..probe.pixels import has_pixels, pixels
from ..probe.samples import NO_CLASS, LabelsKey, are_all_different, dataset_of, is_stream
from ..probe.shards import BatchedShard, compute_everywhere
from ..probe.sources import find_probe, find_reference, open_samples
from ..ranking import fingerprints
from ..runtime.concise import Concise
from ..runtime.distributed import fail_together, is_global_zero
from ..runtime.encoder import Encoders, resolve_encoders
from .features import why_unclassifiable
from .online import BatchFunction, OnlineEvaluation, choose, shard_of

HEADLINE = ""  # kind of the first encoder's features, whose tags have no name
RESERVED = {"unwhitened", "pixels", "pixels_whitened"}
FINGERPRINT, PIXELS = "/fingerprint", "/pixels"  # beside the names of encoders
NO_BANK = "there are no training samples to learn from: pass reference=, a dataset with labels."
NO_CLASSES = (
    "labels of {} are no classes (numbers with a fraction, or vectors that are not one-hot), so there is no accuracy: "
    "pass labels=, a function of a sample."
)
NUMBERED = (
    "labels are all different, of {} samples of the probe and of {} training samples: they number the samples, and are "
    "no classes. Pass labels=, a key or a function of a sample."
)
NO_LABELS = "{} have no class labels, so there is no accuracy: pass labels=, a key or a function of a sample."
Features = dict[str, Tensor]


@dataclass(frozen=True, repr=False)
class Task(Concise):
    """Features to learn from and to classify.

    Attributes:
        queries: (Q, D) features to classify.
        bank: (B, D) features to learn from.
        labels: (B,) classes of the bank, from 0.
        truth: (Q,) classes of the queries; -1 for a class that the bank lacks.
    """

    queries: Tensor
    bank: Tensor
    labels: Tensor
    truth: Tensor

    @classmethod
    def of(cls, queries: Tensor, bank: Tensor, labels: Tensor, truth: Tensor) -> Task:
        """Renumber classes 0..C-1 in the bank's order and drop samples with a negative label."""
        of_bank, of_queries = labels >= 0, truth >= 0
        classes, places = torch.unique(labels[of_bank], return_inverse=True)
        truth = truth[of_queries]
        found = torch.searchsorted(classes, truth).clamp_max(len(classes) - 1)
        found = torch.where(classes[found] == truth, found, -1)
        return cls(queries[of_queries], bank[of_bank], places, found)

    def accuracy(self, predicted: Tensor) -> float:
        """Share of the queries that are classified right."""
        return float((predicted == self.truth).double().mean())


class OnLabels(OnlineEvaluation):
    """Classifies samples of the probe by what it learns from labelled training samples, the bank.

    Samples without a class (or with a negative one) are left out, and from the bank those that are among the queries.
    Without any labels there is one warning, and no tag. Each kind says in :meth:`scores` how it classifies.

    Args:
        bank_size: number of labelled training samples, chosen at random, the same at each measurement.
        num_queries: number of probe samples to classify, chosen at random, the same at each measurement.
        encoder: as ``JEPAScoreMonitor`` takes it, or the name of a method of the module (``features``, ``forward``), or
            several by name, the headline first: ``{"tokens": "features", "embedding": "forward"}``. ``None`` means
            ``features`` and, as ``embedding``, the forward, where the module has a ``features``; else the usual names.
        reference: labelled training samples, as ``JEPAScoreMonitor`` takes them; default: training data.
        labels: place of the class labels in a sample; by default the usual places are tried.
        pixels: measure the raw inputs too, as the line to beat.
        settings: as :class:`OnlineEvaluation` takes them.
    """

    group = ""

    def __init__(
        self,
        *,
        bank_size: int = 5_000,
        num_queries: int = 5_000,
        encoder: Encoders = None,
        reference: Any = None,
        labels: LabelsKey = None,
        pixels: bool = True,
        **settings: Any,  # no Unpack[TypedDict], by which jsonargparse loses defaults and help texts
    ) -> None:
        super().__init__(num_samples=num_queries, **settings)
        require_whole(1, bank_size=bank_size)
        if isinstance(encoder, Mapping) and (taken := RESERVED & set(list(encoder)[1:])):
            raise ValueError(f"an encoder cannot have the name {', '.join(sorted(taken))}, because a tag has it.")
        self.encoder = encoder
        self.sources = replace(self.sources, reference=reference, labels=labels)
        self.bank_size = bank_size
        self.with_pixels = pixels

    @abstractmethod
    def ends(self, kind: str) -> tuple[str, ...]:
        """Ends of the tags of a kind of features: ``HEADLINE``, ``pixels``, or a further encoder's name."""

    @abstractmethod
    def scores(self, task: Task, kind: str, found: Found) -> tuple[float, ...]:
        """Compute the values of these."""

    def _expected_tags(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> tuple[str, ...]:
        """Accuracies of all encoders."""
        _, *further = resolve_encoders(pl_module, self.encoder, self.pool)
        return tuple(f"{self.group}/{end}" for kind in (HEADLINE, *further) for end in self.ends(kind))

    def _forget(self) -> None:
        """Drop what belongs to one call of the Trainer: the sets, and what is known of them."""
        super()._forget()
        self.shards: tuple[BatchedShard, BatchedShard] | None = None  # queries and bank
        self._is_new: Tensor | None = None  # in the bank, and not among the queries
        self._pixels: tuple[Tensor, Tensor] | None = None  # until they were used
        self._pixels_found = Found()
        self._missing: str | None = None

    def gather(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Callable[[], Found]:
        """Gather features of queries and bank."""
        device = pl_module.device
        if self.shards is None and self._missing is None:
            self.shards = self._open(trainer, device)
        if self.shards is None or self._missing is not None:
            missing = self._missing or NO_BANK
            return lambda: Found(reasons=[missing])
        first = self._is_new is None
        with fail_together(device):
            functions = self.encoders(pl_module)
            names = list(functions)
            if first:
                functions |= self._input_functions()
        queries, bank = (compute_everywhere(shard, functions, device=device) for shard in self.shards)
        # from here on all processes have the same, and go the same way
        if first or self._is_new is None:
            self._is_new = ~torch.isin(bank[FINGERPRINT], queries[FINGERPRINT])
            self._pixels = (queries[PIXELS], bank[PIXELS]) if PIXELS in functions and is_global_zero() else None
            self._missing = _why_missing(queries["labels"], bank["labels"], self._is_new)
        is_new = self._is_new
        return lambda: self._compute(queries, {name: values[is_new] for name, values in bank.items()}, names)

    def _open(self, trainer: pl.Trainer, device: torch.device) -> tuple[BatchedShard, BatchedShard] | None:
        sources, count = self.sources, self.sources.num_samples
        with fail_together(device):
            probe, reference = find_probe(sources, trainer), find_reference(sources, trainer)
        if reference is None:
            self._missing = NO_BANK
            return None
        shared = dataset_of(reference) is dataset_of(probe)
        queries = open_samples(probe, sources, device)
        in_stream = count if shared and is_stream(reference) else 0
        bank = open_samples(reference, replace(sources, num_samples=self.bank_size), device, skip=in_stream)
        if shared and not in_stream and len(queries) == len(bank) == len(dataset_of(probe)):
            # the same samples, not two selections of them
            count = min(count, max(1, len(bank) // 2))
            positions = choose(len(bank), self.bank_size, after=count)
        else:
            positions = choose(len(bank), self.bank_size)
        if not len(positions):
            self._missing = NO_BANK
            return None
        return shard_of(queries, choose(len(queries), count), trainer), shard_of(bank, positions, trainer)

    def _input_functions(self) -> dict[str, BatchFunction]:
        """Choose what is read of the inputs themselves, once."""
        functions: dict[str, BatchFunction] = {FINGERPRINT: lambda inputs, _: fingerprints(inputs)}
        shown = [shard.peek() for shard in self.shards or ()]
        if self.with_pixels and all(map(has_pixels, shown)) and len({pixels(one).shape for one in shown}) == 1:
            functions[PIXELS] = lambda inputs, _: pixels(inputs)
        return functions

    def _compute(self, queries: Features, bank: Features, names: list[str]) -> Found:
        if self._missing is not None:
            return Found(reasons=[self._missing])
        found = Found()
        for position, name in enumerate(names):
            task = Task.of(queries[name], bank[name], bank["labels"], queries["labels"])
            self._judge(task, name if position else HEADLINE, found)
        if self._pixels is not None and self._is_new is not None:
            of_queries, of_bank = self._pixels
            task = Task.of(of_queries, of_bank[self._is_new], bank["labels"], queries["labels"])
            self._pixels_found = Found()
            self._judge(task, "pixels", self._pixels_found)
            self._pixels = None
        return Found(found.values | self._pixels_found.values, found.reasons + self._pixels_found.reasons)

    def _judge(self, task: Task, kind: str, found: Found) -> None:
        tags = [f"{self.group}/{end}" for end in self.ends(kind)]
        why = why_unclassifiable(task.queries, task.bank, task.labels)
        if why is not None:
            found.reasons.append(f"there is no accuracy of {kind or 'features'}: {why}.")
        values = (math.nan,) * len(tags) if why else self.scores(task, kind, found)
        found.values |= dict(zip(tags, values, strict=True))


def _why_missing(truth: Tensor, labels: Tensor, is_new: Tensor) -> str | None:
    """Say why there is nothing to measure; (Q,) and (B,) labels, negative for none."""
    if not is_new.any():
        return "all labelled training samples are among those to classify: pass reference=, other samples."
    if are_all_different(truth) and are_all_different(labels):
        return NUMBERED.format(len(truth), len(labels))
    for name, classes in {"samples of the probe": truth, "training samples": labels[is_new]}.items():
        if (classes == NO_CLASS).any():
            return NO_CLASSES.format(name)
        if not (classes >= 0).any():
            return NO_LABELS.format(name)
    return None
