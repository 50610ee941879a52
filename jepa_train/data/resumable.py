"""A training order that goes on with the very next batch after a kill in mid-epoch.

The order and every random draw of a sample are functions of (seed, epoch, index). What a checkpoint has to hold is
then one number, the batches that training is done with, whatever workers or Lightning have fetched in advance.
"""

from __future__ import annotations

import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice, repeat
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from jepa_train.errors import ConfigurationError

Sample = TypeVar("Sample")
Key = int | tuple[int, int]  # an index, or (index, epoch)


class EpochSampler(DistributedSampler[Any]):
    """The shuffled order of one process, a function of (seed, epoch); what does not divide evenly is dropped.

    Args:
        dataset: what is drawn from; only its length is used.
        num_replicas: processes.
        rank: number of this process, as torch calls it.
        seed: seed of the order.
        keyed: give (index, epoch) instead of an index, for a :class:`DrawnPerEpoch`.

    Attributes:
        start: samples that the next iteration leaves out at its beginning.
    """

    def __init__(
        self, dataset: Dataset[Any], *, num_replicas: int = 1, rank: int = 0, seed: int = 0, keyed: bool = False
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, seed=seed, drop_last=True)
        self.keyed = keyed
        self.start = 0

    def __iter__(self) -> Iterator[Any]:
        indices = islice(super().__iter__(), self.start, None)
        return zip(indices, repeat(self.epoch)) if self.keyed else indices


class MadeInBatches(Dataset[Sample], ABC):
    """A dataset that draws at random sample by sample, and makes the samples of a batch together."""

    @abstractmethod
    def draw(self) -> Any:
        """Draw all that is random about a sample, with torch's global generator."""

    @abstractmethod
    def make(self, indices: Sequence[int], draws: Sequence[Any]) -> list[Sample]:
        """Make samples by index and draw, each the same whatever is made beside it."""

    def __getitem__(self, index: int) -> Sample:
        return self.make([index], [self.draw()])[0]


class DrawnPerEpoch(Dataset[Any]):
    """A dataset that augments at random, made a function of (seed, epoch, index).

    Random numbers must come from torch's global generator on the CPU, as those of torchvision's transforms do; that of
    the process is left as it was.

    Args:
        dataset: gives a sample by index.
        seed: seed of the draws.
    """

    def __init__(self, dataset: Dataset[Any], *, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # torch's Dataset declares no length; all of ours have one

    def __getitem__(self, key: Key) -> Any:
        """The sample of (index, epoch); an index alone means epoch 0."""
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[Any]:
        """The samples of a batch, as :meth:`__getitem__` gives them one by one; torch's loaders ask for batches."""
        pairs = [key if isinstance(key, tuple) else (key, 0) for key in keys]
        with torch.random.fork_rng(devices=[]):
            if not isinstance(self.dataset, MadeInBatches):
                return [self._drawn(pair, partial(self.dataset.__getitem__, pair[0])) for pair in pairs]
            draws = [self._drawn(pair, self.dataset.draw) for pair in pairs]
        return self.dataset.make([index for index, _ in pairs], draws)

    def _drawn(self, pair: tuple[int, int], draw: Callable[[], Any]) -> Any:
        """Call ``draw`` with the random numbers of (index, epoch)."""
        index, epoch = pair
        mixed = np.random.SeedSequence([self.seed, epoch, index]).generate_state(1, np.uint64)[0]
        # torch.manual_seed would reach the accelerators' generators too, which nobody puts back
        torch.default_generator.manual_seed(int(mixed))
        return draw()


class OutliveStopSignal:
    """A worker's start that lets SIGTERM end the worker only where its own parent sends it.

    Schedulers send SIGTERM to every process of a job; a worker that goes at once ends the training step that waits for
    it. Where the sender is not known (macOS, Windows) nothing changes.

    Args:
        then: worker_init_fn of the user or of Lightning, called next.
    """

    def __init__(self, then: Callable[[int], Any] | None) -> None:
        self.then = then

    def __call__(self, worker: int) -> None:
        if hasattr(signal, "sigwaitinfo"):
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            threading.Thread(target=self._wait_for_parent, name="stop-signal", daemon=True).start()
        if self.then is not None:
            self.then(worker)

    @staticmethod
    def _wait_for_parent() -> None:
        while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
            pass
        os._exit(0)


class ImageLoader(DataLoader[Any]):
    """A DataLoader that passes on a worker's ``ConfigurationError`` as the sentence it is.

    Its workers outlive a SIGTERM to the whole job, so that the process that trains can end its step and save.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch declares a private class
        """Batches."""
        if self.num_workers and not isinstance(self.worker_init_fn, OutliveStopSignal):
            self.worker_init_fn = OutliveStopSignal(self.worker_init_fn)
        try:
            yield from super().__iter__()
        except ConfigurationError as error:
            # a worker's comes with its whole traceback as the message; the sentence is the end of it
            raise ConfigurationError(str(error).rpartition("ConfigurationError: ")[2].strip()) from None


class ResumableDataLoader(ImageLoader):
    """A DataLoader whose state is how far training got in its epoch; Lightning saves and restores it.

    It takes the arguments of ``DataLoader`` and needs an :class:`EpochSampler` to go on in mid-epoch. With any other
    sampler, such as the one Lightning puts in for ``overfit_batches``, a resumed epoch begins with its first batch.

    Args:
        progress: gives (epoch, batches of it that training is done with). Without it the epoch is the sampler's, and
            those batches count that were read: one too many in a checkpoint that is written while a batch is
            being worked on, by a signal or an exception.
    """

    def __init__(self, *args: Any, progress: Callable[[], tuple[int, int]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.progress = progress
        self._epoch_handed = (-1, 0)  # the epoch last begun, and its batches that were read
        self._resume: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch declares a private class
        # A generator: its body runs when the first batch is asked for. Lightning asks for the iterator before it sets
        # the sampler its epoch, and workers that start then would draw the order of another epoch.
        epoch = self._epoch()
        start = self._first_batch(epoch)
        self._resume = None
        self._epoch_handed = (epoch, start)
        if isinstance(self.sampler, EpochSampler):
            # resumed behind an epoch's end with max_steps, Lightning 2.6 sets the sampler an epoch too far
            self.sampler.set_epoch(epoch)
            self.sampler.start = start * (self.batch_size or 1)
        for handed, batch in enumerate(super().__iter__(), start=start + 1):
            self._epoch_handed = (epoch, handed)
            yield batch

    def state_dict(self) -> dict[str, int]:
        """``epoch``, ``batches`` of it that are done, and what a batch of that number depends on."""
        if self._resume is not None:  # nothing was trained since
            return self._resume
        epoch, batches = self._epoch_handed
        if epoch != self._epoch():  # of the epoch that comes nothing was read yet
            batches = 0
        elif self.progress is not None:
            batches = self.progress()[1]
        return {"epoch": self._epoch(), "batches": batches, **self._order()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on behind the batches of a state, if the next iteration is of its epoch."""
        self._resume = dict(state_dict)

    def _epoch(self) -> int:
        return self.progress()[0] if self.progress is not None else int(getattr(self.sampler, "epoch", 0))

    def _order(self) -> dict[str, int]:
        processes = int(getattr(self.sampler, "num_replicas", 1))
        return {
            "global_batch": processes * (self.batch_size or 1),
            "images": len(self.dataset),  # type: ignore[arg-type]  # as above
            "seed": int(getattr(self.sampler, "seed", 0)),
        }

    def _first_batch(self, epoch: int) -> int:
        state = self._resume
        if state is None and self.progress is not None and self.progress()[1]:
            rank_zero_warn(
                "The checkpoint was written in the middle of an epoch and does not say after which batch, because "
                "another DataModule or an earlier version wrote it: the rest of the epoch repeats its first batches."
            )
        if state is None or not isinstance(self.sampler, EpochSampler) or state["epoch"] != epoch:
            return 0
        whole_epoch = state["images"] // state["global_batch"]
        if not 0 < state["batches"] < whole_epoch:
            return 0
        changed = [
            f"{name} {state.get(name)} -> {now}" for name, now in self._order().items() if state.get(name) != now
        ]
        if changed:
            raise ConfigurationError(
                f"the checkpoint was written within epoch {epoch}, whose order has changed since "
                f"({', '.join(changed)}): resume with the same images, seed and batch_size x devices, or from a "
                "checkpoint of an epoch's end."
            )
        return state["batches"]
