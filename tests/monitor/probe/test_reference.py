"""Further reference samples: how many there are, and that none of them is in the probe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, TensorDataset

from jepa_monitor.probe.reference import KEPT_BYTES, LARGEST_REFERENCE, FurtherReference
from tests.monitor.helpers import Autoencoder, images, loader, monitor, trainer

pytestmark = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")


def further(count: int, like: Tensor) -> FurtherReference:
    data = TensorDataset(torch.empty(count, 1).expand(count, 1))
    return FurtherReference(data, 100, 90, like, frozenset(), 0.0)


def test_they_are_as_many_as_there_are_within_a_bound_of_memory() -> None:
    small, large = torch.zeros(1, 1, 4, 4), torch.zeros(1, 3, 224, 224)
    assert further(1000, small).most == 990  # 10 of the first 100 were the probe's
    assert further(10**6, small).most == LARGEST_REFERENCE
    assert further(10**6, large).most == KEPT_BYTES // (4 * 3 * 224 * 224)
    assert further(10**6, torch.zeros(1, 10**9, device="meta")).most == 90  # what was read stays


class Stream(IterableDataset[Tensor]):
    def __init__(self, inputs: Tensor) -> None:
        self.inputs = inputs

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.inputs)


@pytest.mark.parametrize("kind", [TensorDataset, Stream])
def test_samples_of_the_probe_are_not_their_own_neighbours(tmp_path: Path, kind: Callable[[Tensor], Any]) -> None:
    probe, reference, module = images(16, seed=2), images(60, seed=4), Autoencoder()
    copies = [3, 20, 41]
    reference[copies] = probe[:3]
    others = reference[[i for i in range(60) if i not in copies]]
    scores = []
    for data in (kind(reference), others):
        callback = monitor(probe=probe, reference=data, num_samples=16)
        trainer(tmp_path, callback).validate(module, loader(), verbose=False)
        assert callback.values["monitor/reference"] == 57.0
        assert callback.readings is not None
        scores.append(callback.readings.scores.log_density)
    torch.testing.assert_close(*scores)


def test_more_of_the_reference_that_fails_costs_nothing_else(tmp_path: Path) -> None:
    class Torn(TensorDataset):
        def __getitem__(self, index: int) -> tuple[Tensor, ...]:
            if index >= 30:
                raise OSError("the disk is gone")
            return super().__getitem__(index)

    callback = monitor(probe=images(16, seed=2), reference=Torn(images(60, seed=4)), num_samples=16, on_error="warn")
    with pytest.warns(UserWarning, match="more of the reference is left out: .*the disk is gone"):
        trainer(tmp_path, callback).validate(Autoencoder(), loader(), verbose=False)
    assert callback.values["monitor/reference"] == 16.0
    assert math.isfinite(callback.values["density/spearman"])
