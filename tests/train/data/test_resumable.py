"""A run that is killed in mid-epoch and resumed sees what an uninterrupted one sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import SequentialSampler

from jepa_train.data.resumable import DrawnPerEpoch, EpochSampler, ResumableDataLoader
from jepa_train.errors import ConfigurationError
from tests.processes import run_python
from tests.train.data.helpers import Numbered, NumberedData, fit, loader, read

pytestmark = pytest.mark.filterwarnings(
    "ignore:Checkpoint directory .* exists and is not empty",  # that is what a run goes on from
    "ignore:This DataLoader will create 4 worker processes",  # on machines with fewer cores
)
ROOT = Path(__file__).resolve().parents[3]
PER_EPOCH = 11  # batches of NumberedData


@pytest.mark.parametrize(
    ("die_at", "workers", "settings"),
    [
        (3, 0, {}),
        (PER_EPOCH + 6, 0, {}),
        (4, 1, {}),
        pytest.param(PER_EPOCH + 5, 4, {}, marks=pytest.mark.slow),
        (PER_EPOCH, 0, {}),
        (7, 0, {"accumulate_grad_batches": 2}),
        (PER_EPOCH + 4, 1, {"accumulate_grad_batches": 2}),
        (8, 0, {"val_check_interval": 3}),
        (PER_EPOCH + 8, 0, {"val_check_interval": 0.5}),
        (7 + 3, 0, {"limit_train_batches": 7}),
        (PER_EPOCH + 2, 0, {"max_steps": 20, "max_epochs": -1}),
    ],
)
def test_a_killed_run_goes_on_with_the_very_next_batch(
    die_at: int, workers: int, settings: dict[str, Any], tmp_path: Path
) -> None:
    whole = fit(NumberedData(num_workers=0), tmp_path / "whole", **settings)
    killed = fit(NumberedData(num_workers=workers), tmp_path / "parts", die_at=die_at, **settings)
    resumed = fit(NumberedData(num_workers=workers), tmp_path / "parts", resume=True, **settings)

    per_step = settings.get("accumulate_grad_batches", 1)
    begun = die_at % PER_EPOCH  # the checkpoint is of the last whole step
    trained = die_at - begun % per_step
    assert killed.seen == whole.seen[:die_at]
    assert resumed.seen == whole.seen[trained:]
    assert [entry for entry in whole.validated if entry not in killed.validated] == resumed.validated
    assert resumed.trainer.global_step == whole.trainer.global_step
    assert resumed.trainer.num_training_batches == whole.trainer.num_training_batches
    assert resumed.trainer.current_epoch == whole.trainer.current_epoch


def test_an_epoch_gives_every_image_once_and_the_next_in_another_order(tmp_path: Path) -> None:
    seen = fit(NumberedData(), tmp_path).seen
    first, second = ([index for entry in seen if entry[0] == epoch for index in entry[2]] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(44))
    assert first != second
    draws = [[draw for entry in seen if entry[0] == epoch for draw in entry[3]] for epoch in (0, 1)]
    assert len({*draws[0], *draws[1]}) == 88


@pytest.mark.parametrize("settings", [{}, {"max_steps": 2 * PER_EPOCH, "max_epochs": -1}])
def test_a_checkpoint_of_an_epochs_end_goes_on_with_the_next_epoch(settings: dict[str, Any], tmp_path: Path) -> None:
    settings = {"saving": {"every_n_epochs": 1, "save_on_train_epoch_end": True}, **settings}
    whole = fit(NumberedData(), tmp_path / "whole", **settings)
    fit(NumberedData(num_workers=1), tmp_path / "parts", die_at=PER_EPOCH + 3, **settings)
    resumed = fit(NumberedData(num_workers=1), tmp_path / "parts", resume=True, **settings)
    assert resumed.seen == whole.seen[PER_EPOCH:]


def test_a_batch_that_an_exception_broke_off_comes_again(tmp_path: Path) -> None:
    whole = fit(NumberedData(), tmp_path / "whole")
    saving = {"save_on_exception": True}
    fit(NumberedData(), tmp_path / "parts", die_at=5, saving=saving)
    assert fit(NumberedData(), tmp_path / "parts", resume=True, saving=saving).seen == whole.seen[5:]


def run_script(world_size: int, die_at: int, folder: Path) -> list[list[Any]]:
    """Read what each process of ddp_resume.py saw."""
    folder.mkdir(exist_ok=True)
    script = Path(__file__).with_name("ddp_resume.py")
    finished = run_python(script, str(world_size), str(die_at), folder, folder=folder)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return [json.loads((folder / f"{world_size}_{rank}.json").read_text()) for rank in range(world_size)]


@pytest.mark.slow
def test_two_processes_resume_like_one_that_was_never_killed(tmp_path: Path) -> None:
    (whole,) = run_script(1, 0, tmp_path / "one")
    killed = run_script(2, PER_EPOCH + 5, tmp_path / "two")
    resumed = run_script(2, 0, tmp_path / "two")
    assert len(whole) == 2 * PER_EPOCH
    for first, second, both in zip(killed[0] + resumed[0], killed[1] + resumed[1], whole, strict=True):
        assert first[:2] == second[:2] == both[:2]
        for ours, theirs, global_batch in zip(first[2:], second[2:], both[2:], strict=True):
            dealt = [value for pair in zip(ours, theirs, strict=True) for value in pair]
            assert dealt == global_batch


def test_skipped_batches_are_not_loaded(tmp_path: Path) -> None:
    fit(NumberedData(), tmp_path, die_at=PER_EPOCH + 6)
    data = NumberedData(random=False)
    resumed = fit(data, tmp_path, resume=True)
    assert len(resumed.seen) == PER_EPOCH - 6
    assert data.reference_dataset().loaded == 4 * (PER_EPOCH - 6)  # type: ignore[attr-defined]  # it is Numbered


@pytest.mark.parametrize("batch_size", [2, 16])  # of the larger one an epoch has fewer batches than were trained
def test_another_batch_size_in_mid_epoch_is_one_clear_sentence(batch_size: int, tmp_path: Path) -> None:
    fit(NumberedData(), tmp_path, die_at=6)
    message = rf"within epoch 0.*global_batch 4 -> {batch_size}.*batch_size x devices"
    with pytest.raises(ConfigurationError, match=message):
        fit(NumberedData(batch_size=batch_size), tmp_path, resume=True)


@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_lightnings_own_sampler_may_take_the_place_of_ours(tmp_path: Path) -> None:
    seen = fit(NumberedData(), tmp_path, overfit_batches=2).seen
    assert [entry[2] for entry in seen] == 2 * [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("done", [0, 2, 5])
def test_the_state_counts_what_was_handed_out(workers: int, done: int) -> None:
    whole = loader(0)
    epochs: list[Any] = []
    for epoch in range(3):
        whole.sampler.set_epoch(epoch)  # type: ignore[attr-defined]  # of an EpochSampler
        epochs.append(read(whole))
    broken = loader(workers)
    broken.sampler.set_epoch(1)  # type: ignore[attr-defined]  # as above
    batches = iter(broken)
    assert read(next(batches) for _ in range(done)) == epochs[1][:done]
    resumed = loader(workers)
    resumed.load_state_dict(broken.state_dict())
    assert resumed.state_dict() == broken.state_dict()
    batches = iter(resumed)  # before the sampler knows its epoch, as in Lightning
    resumed.sampler.set_epoch(1)  # type: ignore[attr-defined]  # as above
    assert len(resumed) == 5
    assert read(batches) == (epochs[1][done:] if done < 5 else epochs[1])
    resumed.sampler.set_epoch(2)  # type: ignore[attr-defined]  # as above
    assert resumed.state_dict()["batches"] == 0
    assert read(resumed) == epochs[2]


SIGNALLED = """
import multiprocessing, subprocess
from tests.train.data.helpers import loader, read
batches = iter(loader(1))
first = next(batches)
(worker,) = multiprocessing.active_children()
subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
worker.join(1.0)  # long enough for one that ends by it
assert worker.is_alive()
assert read([first, *batches]) == read(loader(0))
worker.terminate()
worker.join(30.0)
assert worker.exitcode == 0
"""


@pytest.mark.slow
def test_a_worker_outlives_the_signal_of_a_stranger_alone(tmp_path: Path) -> None:
    """Schedulers send SIGTERM to every process of a job; the parent's own ends a worker that is of no more use."""
    script = tmp_path / "signalled.py"
    script.write_text(SIGNALLED)
    ended = run_python(script, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr[-3000:]


def test_progress_without_a_state_is_warned_of() -> None:
    """Lightning keeps a DataModule's state by the name of its class: of another class there is none."""
    batches = loader(0)
    batches.progress = lambda: (0, 3)
    with pytest.warns(UserWarning, match="does not say after which batch"):
        read(batches)


def test_a_state_of_another_epoch_is_passed_over() -> None:
    other = loader(0)
    other.load_state_dict({**other.state_dict(), "epoch": 7, "batches": 2})
    assert read(other) == read(loader(0))


@given(size=st.integers(4, 40), processes=st.integers(1, 4), start=st.integers(0, 12), epoch=st.integers(0, 3))
def test_processes_deal_out_one_global_order(size: int, processes: int, start: int, epoch: int) -> None:
    whole = EpochSampler(Numbered(size, random=False), seed=5)
    whole.set_epoch(epoch)
    share = size // processes
    dealt = []
    for rank in range(processes):
        sampler = EpochSampler(Numbered(size, random=False), num_replicas=processes, rank=rank, seed=5)
        sampler.set_epoch(epoch)
        sampler.start = start
        dealt.append(list(sampler))
        assert len(sampler) == share
    together = [index for step in zip(*dealt, strict=True) for index in step]
    assert together == list(whole)[start * processes : share * processes]


def test_random_draws_leave_the_process_as_it_was() -> None:
    dataset = DrawnPerEpoch(Numbered(5, random=True), seed=0)
    before = torch.get_rng_state()
    first = dataset[2, 1]["image"]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(dataset[2, 1]["image"], first)
    others = [dataset[2, 0], dataset[1, 1], dataset[2], DrawnPerEpoch(Numbered(5, random=True), seed=1)[2, 1]]
    values = [float(other["image"][0, 0, 0]) for other in others]
    assert float(first[0, 0, 0]) not in values
    assert values[0] == values[2]  # an index alone is of epoch 0


def test_a_batch_is_drawn_as_its_samples_are_one_by_one() -> None:
    dataset = DrawnPerEpoch(Numbered(5, random=True), seed=0)
    keys = [(2, 1), 4, (2, 2), (0, 1)]
    before = torch.get_rng_state()
    batch = dataset.__getitems__(keys)
    assert torch.equal(torch.get_rng_state(), before)
    draws = [(sample["label"], float(sample["image"][0, 0, 0])) for sample in batch]
    assert draws == [(dataset[key]["label"], float(dataset[key]["image"][0, 0, 0])) for key in keys]
    assert len(set(draws)) == 4


def test_a_loader_of_fixed_order_can_be_read() -> None:
    dataset = Numbered(6, random=False)
    fixed = ResumableDataLoader(dataset, sampler=SequentialSampler(dataset), batch_size=2)
    fixed.load_state_dict({**fixed.state_dict(), "batches": 1})
    assert [batch["label"].tolist() for batch in fixed] == [[0, 1], [2, 3], [4, 5]]
