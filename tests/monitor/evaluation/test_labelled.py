"""Queries and bank are found, have classes, and share no sample."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, SubsetRandomSampler, TensorDataset

from jepa_monitor import OnlineKNN, OnlineLinearProbe
from jepa_monitor.evaluation.labelled import Task
from tests.monitor.evaluation.helpers import classes, labelled_module, tuples
from tests.monitor.helpers import images, trainer

# the frozen part of the project is meant to be in eval mode
pytestmark = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")


def test_without_training_samples_it_says_what_to_pass(tmp_path: Path) -> None:
    run = trainer(tmp_path, OnlineKNN())
    with pytest.warns(UserWarning, match="pass reference="):
        (values,) = run.validate(labelled_module(), tuples(12), verbose=False) or [{}]
    assert values == {}


def test_a_function_that_finds_no_class_is_warned_of_once(tmp_path: Path) -> None:
    callback = OnlineKNN(labels=lambda sample: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = trainer(tmp_path, callback)
        run.fit(labelled_module(), tuples(24), tuples(12, seed=1))
    warned = [str(warning.message) for warning in caught if "OnlineKNN" in str(warning.message)]
    assert len(warned) == 1
    assert "samples of the probe have no class labels" in warned[0]
    assert "knn/accuracy" not in run.callback_metrics


def test_a_bank_sorted_by_class_is_sampled_from_all_of_it(tmp_path: Path) -> None:
    run = trainer(tmp_path, OnlineKNN(bank_size=20, num_queries=20, encoder="encoder"))
    run.fit(labelled_module(), tuples(300), tuples(300, seed=1))
    assert float(run.callback_metrics["knn/accuracy_pixels"]) > 0.6


def test_the_same_samples_are_not_on_both_sides(tmp_path: Path) -> None:
    """Labels without any relation to the images: whoever sees them twice would be right."""
    x, y = images(64), torch.randint(2, (64,), generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, y)
    copied = TensorDataset(torch.cat([x, images(30, seed=7)]), torch.cat([y, y[:30]]))
    for train, val in ((data, data), (copied, data)):
        run = trainer(tmp_path, OnlineKNN(k=1), OnlineLinearProbe(ridge=1e-6), max_epochs=1)
        run.fit(labelled_module(), DataLoader(train, batch_size=8), DataLoader(val, batch_size=8))
        assert float(run.callback_metrics["knn/accuracy_pixels"]) < 0.75
    train, val = (DataLoader(TensorDataset(x.clone(), y), batch_size=8) for _ in range(2))
    with pytest.warns(UserWarning, match="are among those to classify"):
        trainer(tmp_path, OnlineKNN(), max_epochs=1).fit(labelled_module(), train, val)


def test_two_selections_of_one_dataset_are_taken_whole(tmp_path: Path) -> None:
    data = TensorDataset(*classes(60))
    train = DataLoader(data, batch_size=8, sampler=SubsetRandomSampler(range(0, 60, 2)))
    val = DataLoader(data, batch_size=8, sampler=SubsetRandomSampler(range(1, 60, 2)))
    callback = OnlineKNN(on_error="raise")
    trainer(tmp_path, callback, max_epochs=1).fit(labelled_module(), train, val)
    queries, bank = callback.shards or (None, None)
    assert queries is not None
    assert bank is not None
    assert len(queries.positions) == len(bank.positions) == 30


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        x, y = classes(90)
        order = torch.randperm(90, generator=torch.Generator().manual_seed(0)).tolist()
        return ((x[i], int(y[i])) for i in order)


@pytest.mark.filterwarnings("ignore:Your `IterableDataset`")
def test_streams(tmp_path: Path) -> None:
    stream = DataLoader(Stream(), batch_size=8)
    callback = OnlineKNN(bank_size=40, num_queries=30, on_error="raise")
    run = trainer(tmp_path, callback, max_epochs=1)
    run.fit(labelled_module(), stream, stream)
    queries, bank = callback.shards or (None, None)
    assert queries is not None
    assert bank is not None
    assert (len(queries.positions), len(bank.positions)) == (30, 40)
    assert float(run.callback_metrics["knn/accuracy_pixels"]) > 0.6


def test_classes_of_any_number_and_those_without_one() -> None:
    labels, truth = torch.tensor([700, -1, 3, 700]), torch.tensor([3, 5, 700, -1, 900])
    task = Task.of(torch.arange(5.0)[:, None], torch.arange(4.0)[:, None], labels, truth)
    assert task.labels.tolist() == [1, 0, 1]
    assert task.bank.flatten().tolist() == [0.0, 2.0, 3.0]
    assert task.truth.tolist() == [0, -1, 1, -1]
    assert task.queries.flatten().tolist() == [0.0, 1.0, 2.0, 4.0]
    assert task.accuracy(torch.tensor([0, 0, 1, 1])) == 0.5
