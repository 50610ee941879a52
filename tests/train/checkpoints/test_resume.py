"""A run that was ended and is made longer goes on with the very next batch, whatever ended it and ends it next."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from jepa_train.module import JEPA
from tests.train.helpers import BATCHES, fit

STOPS = {
    "in mid-epoch": ["--trainer.max_steps=3", "--trainer.max_epochs=-1"],
    "by steps at an epoch's end": [f"--trainer.max_steps={BATCHES}", "--trainer.max_epochs=-1"],
    "in the second epoch": [f"--trainer.max_steps={BATCHES + 3}", "--trainer.max_epochs=-1"],
    "by epochs": ["--trainer.max_epochs=1"],
}
LONGER = {
    "steps": ["--trainer.max_steps=13", "--trainer.max_epochs=-1"],
    "epochs": ["--trainer.max_epochs=3", "--trainer.max_steps=-1"],
}
SAVING = {"by epochs": [], "by steps": ["--trainer.callbacks.every_n_train_steps=2"]}

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Model settings come from the checkpoint"),
]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, float]]:
    """Epoch, batch and content of all training batches of a test."""
    batches: list[tuple[int, int, float]] = []
    step = JEPA.training_step

    def recorded(self: JEPA, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        batches.append((self.current_epoch, batch_idx, float(batch["image"].sum())))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(JEPA, "training_step", recorded)
    return batches


@pytest.mark.slow
@pytest.mark.parametrize("saving", SAVING)
@pytest.mark.parametrize("longer", LONGER)
def test_it_ends_like_a_run_that_was_as_long_from_the_start(
    longer: str, saving: str, seen: list[tuple[int, int, float]], tmp_path: Path
) -> None:
    whole = fit(tmp_path / "whole", *SAVING[saving], *LONGER[longer])
    batches = list(seen)
    assert len(batches) == whole["global_step"] == (13 if longer == "steps" else 3 * BATCHES)
    for name, stop in STOPS.items():
        seen.clear()
        ended = fit(tmp_path / name, *SAVING[saving], *stop)
        assert ended["global_step"] == len(seen)
        resumed = fit(tmp_path / name, *SAVING[saving], *LONGER[longer], "--ckpt_path=last")
        assert seen == batches, name
        for key, value in whole["state_dict"].items():
            assert torch.equal(resumed["state_dict"][key], value), (name, key)


@pytest.mark.slow
@pytest.mark.parametrize("saving", SAVING)
def test_it_may_be_made_longer_again_and_again(saving: str, seen: list[tuple[int, int, float]], tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", *SAVING[saving], "--trainer.max_epochs=5")
    batches = list(seen)
    seen.clear()
    fit(tmp_path / "parts", *SAVING[saving], "--trainer.max_epochs=1")
    for epochs in (3, 4, 5):
        resumed = fit(tmp_path / "parts", *SAVING[saving], f"--trainer.max_epochs={epochs}", "--ckpt_path=last")
        assert resumed["global_step"] == epochs * BATCHES
    assert seen == batches
    for key, value in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][key], value), key


@pytest.mark.slow
@pytest.mark.parametrize("saving", SAVING)
def test_it_may_fail_in_every_epoch(saving: str, seen: list[tuple[int, int, float]], tmp_path: Path) -> None:
    settings = [*SAVING[saving], "--trainer.max_epochs=4"]
    whole = fit(tmp_path / "whole", *settings)
    resume: list[str] = []
    for step in (BATCHES + 2, 2 * BATCHES + 3, 3 * BATCHES + 1):
        failing = ["--trainer.callbacks+=tests.faults.injection.Fail", f"--trainer.callbacks.step={step}"]
        with pytest.raises(SystemExit):
            fit(tmp_path / "parts", *settings, *resume, *failing)
        resume = ["--ckpt_path=last"]
    seen.clear()
    resumed = fit(tmp_path / "parts", *settings, *resume)
    assert resumed["global_step"] == 4 * BATCHES
    assert seen[0][0] == 3
    for key, value in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][key], value), key


@pytest.mark.parametrize("saving", ["by epochs", pytest.param("by steps", marks=pytest.mark.slow)])
@pytest.mark.parametrize("stop", STOPS)
def test_a_run_that_is_over_is_left_as_it_is(
    stop: str, saving: str, seen: list[tuple[int, int, float]], tmp_path: Path
) -> None:
    ended = fit(tmp_path, *SAVING[saving], *STOPS[stop])
    trained = len(seen)
    with pytest.raises(SystemExit) as left:
        fit(tmp_path, *SAVING[saving], *STOPS[stop], "--ckpt_path=last")
    assert left.value.code == 0
    assert len(seen) == trained == ended["global_step"]


def test_a_run_shorter_than_the_distance_of_checkpoints_leaves_one(tmp_path: Path) -> None:
    ended = fit(tmp_path, "--trainer.callbacks.every_n_train_steps=100", "--trainer.max_epochs=1")
    assert ended["global_step"] == BATCHES


def test_a_checkpoint_that_is_written_in_the_background_does_not_end_training(tmp_path: Path) -> None:
    """The checkpoint of the last step may be half written, as every_n_train_steps divides it: it has just begun."""
    background = "--trainer.plugins=lightning.pytorch.plugins.io.AsyncCheckpointIO"
    ended = fit(tmp_path, background, "--trainer.callbacks.every_n_train_steps=1", "--trainer.max_epochs=1")
    assert ended["global_step"] == BATCHES
