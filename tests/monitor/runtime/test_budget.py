"""Measurements are planned, and left out, within a share of the training time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepa_monitor.runtime.budget import GRACE_SECONDS, UNKNOWN_SECONDS, Budget, Horizon, horizon_of
from jepa_monitor.runtime.plan import (
    FEWEST_SAMPLES,
    Plan,
    Trial,
)
from tests.monitor.helpers import Autoencoder, loader

TRIAL = Trial(per_jacobian=0.01, per_forward=1e-4, rest=0.0, embedding_size=32, rank=8)


class Run:
    """A run by a clock of its own: steps, turns of the measurement, and what they cost."""

    def __init__(self, budget: float | None, *, step_seconds: float, steps: int, known: bool = True) -> None:
        self.now = 0.0
        self.budget = Budget(budget, clock=lambda: self.now)
        self.step_seconds, self.steps, self.known = step_seconds, steps, known
        self.measured: list[int] = []

    def horizon(self, step: int) -> Horizon:
        return Horizon(step, self.steps - step if self.known else None, samples_a_step=100)

    def measure(self, step: int, seconds: float, *, failed: bool = False) -> None:
        with self.budget.measuring():
            self.now += seconds
            self.budget.record_measurement(step, seconds, failed=failed)
        self.measured.append(step)

    def train(self, *, every: int, seconds: float, until: int | None = None) -> None:
        """Measure before training and at each turn that is allowed."""
        self.budget.start(0)
        self.measure(0, seconds)
        for step in range(every, (until or self.steps) + 1, every):
            self.now += every * self.step_seconds
            if self.budget.allows_measurement(self.horizon(step)):
                self.measure(step, seconds)


@given(
    budget=st.floats(0.01, 0.5),
    step_seconds=st.floats(1e-3, 10.0),
    turns=st.integers(1, 60),
    every=st.integers(1, 50),
    seconds=st.floats(1e-3, 50.0),
)
def test_a_run_keeps_its_budget_and_measures_its_first_and_its_last_turn(
    budget: float, step_seconds: float, turns: int, every: int, seconds: float
) -> None:
    run = Run(budget, step_seconds=step_seconds, steps=turns * every)
    run.train(every=every, seconds=seconds)
    assert run.measured[0] == 0
    assert run.measured[-1] == turns * every
    allowed = max(GRACE_SECONDS, budget * turns * every * step_seconds)
    assert run.budget.spent <= max(allowed, 2.0 * seconds) * (1.0 + 1e-9)
    if allowed > 1.0 + (turns + 1) * seconds:
        assert run.measured == list(range(0, turns * every + 1, every))  # there is time for all of them
    assert run.budget.trained == pytest.approx(turns * every * step_seconds)


def test_measurements_are_spread_over_the_run() -> None:
    run = Run(0.05, step_seconds=0.1, steps=1000)
    run.budget.record_pictures(0.4)
    run.train(every=10, seconds=0.9)
    assert len(run.measured) == 5  # of the 5 seconds, 0.4 are kept for the last pictures
    gaps = [b - a for a, b in zip(run.measured, run.measured[1:], strict=False)]
    assert max(gaps) - min(gaps) <= 20


@given(budget=st.floats(0.02, 0.5), seconds=st.floats(0.1, 20.0))
def test_without_a_known_end_only_what_was_earned_is_spent(budget: float, seconds: float) -> None:
    run = Run(budget, step_seconds=1.0, steps=2000, known=False)
    run.train(every=10, seconds=seconds)
    for turn, step in enumerate(run.measured[1:], start=2):
        assert turn * seconds <= max(GRACE_SECONDS, budget * step) * (1.0 + 1e-9)


def test_without_a_limit_all_turns_are_measured() -> None:
    run = Run(None, step_seconds=1e-6, steps=50)
    run.train(every=10, seconds=100.0)
    assert run.measured == [0, 10, 20, 30, 40, 50]
    assert run.budget.allows_pictures()


def test_max_time_ends_a_run_too() -> None:
    run = Run(0.05, step_seconds=1.0, steps=10**6)
    run.budget.start(0)
    run.measure(0, 4.0)
    run.now += 99.0
    assert not run.budget.allows_measurement(Horizon(99, None, seconds_left=101.0))  # 10 s in all, of which 4 are spent
    run.now += 99.0
    assert run.budget.allows_measurement(Horizon(198, None, seconds_left=2.0))  # the last


def test_a_first_measurement_that_failed_is_made_again() -> None:
    run = Run(0.05, step_seconds=1e-3, steps=100)
    run.budget.start(0)
    run.measure(0, 60.0, failed=True)
    run.now += 0.01
    assert run.budget.allows_measurement(run.horizon(10))


def test_pictures_wait_until_they_are_earned() -> None:
    run = Run(0.05, step_seconds=1.0, steps=100)
    run.budget.record_pictures(0.5)
    assert run.budget.allows_pictures()  # within what a run may always spend
    run.budget.start(0)
    run.measure(0, 1.0)
    assert not run.budget.allows_pictures()  # the last measurement and its pictures will cost 1.5 seconds more
    run.now += 60.0
    assert run.budget.allows_pictures()


def test_the_overhead_is_nan_before_training() -> None:
    run = Run(0.05, step_seconds=1.0, steps=100)
    run.budget.start(0)
    run.measure(0, 1.0)
    assert math.isnan(run.budget.overhead_percent(0))
    run.now += 50.0
    assert run.budget.overhead_percent(50) == pytest.approx(2.0)


def decided(run: Run, trial: Trial = TRIAL, *, num_samples: int = 512) -> Plan:
    return run.budget.plan(num_samples, horizon=run.horizon(0), trial=lambda: trial)


@pytest.mark.parametrize(
    ("steps", "known", "plan"),
    [
        (100, True, Plan(45)),  # 2 s in all, of which two measurements may take 0.5 s each
        (10_000, True, Plan(512)),  # a step takes 0.04 s by the trial, 5 % of them are 20 s
        (10_000, False, Plan(512)),  # 5 s each
    ],
)
def test_it_is_decided_at_the_first_measurement_and_kept(steps: int, known: bool, plan: Plan) -> None:
    run = Run(0.05, step_seconds=0.04, steps=steps, known=known)
    assert decided(run) == plan
    assert str(plan) in run.budget.text
    assert "the length of the run is unknown" in run.budget.text or known
    slower = Trial(per_jacobian=10.0, per_forward=1.0, rest=9.0, embedding_size=192, rank=8)
    assert decided(run, slower) == plan
    run.train(every=steps, seconds=100.0)
    assert decided(run, slower) == plan


def test_all_that_a_measurement_does_counts() -> None:
    def plan(trial: Trial) -> Plan:
        return decided(Run(0.05, step_seconds=0.04, steps=10_000), trial)  # 20 s, of which two may take 9.65 s each

    quick = replace(TRIAL, rest=0.2, per_reference=1e-4, most_reference=8192)
    assert plan(quick) == Plan(512, reference=8192)
    assert quick.besides(8192) == pytest.approx(4.0 * 0.2 + 0.8192)
    slow = replace(quick, rest=8.0)  # fitting to more would add more than a quarter
    assert plan(slow) == Plan(181, reference=512)


def test_samples_are_not_given_up_where_that_saves_little() -> None:
    busy = Run(0.05, step_seconds=0.04, steps=10_000)  # 9.65 s for each of two measurements
    plan = decided(busy, replace(TRIAL, rest=9.64))
    assert plan.samples * TRIAL.per_jacobian == pytest.approx(0.25 * 9.65, rel=0.3)  # and not 16 samples


def test_a_choice_of_few_samples_says_what_to_change() -> None:
    run = Run(0.05, step_seconds=0.04, steps=10)
    assert decided(run, Trial(1.0, 1e-4, 0.0, 64, 8)) == Plan(FEWEST_SAMPLES)
    assert "raise budget or give num_samples" in run.budget.text


def test_a_resumed_run_goes_on_with_its_plan_and_what_it_spent() -> None:
    whole = Run(0.05, step_seconds=0.1, steps=1000)
    plan = decided(whole)
    whole.train(every=10, seconds=0.9)
    first = Run(0.05, step_seconds=0.1, steps=1000)
    decided(first)
    first.train(every=10, seconds=0.9, until=500)
    resumed = Run(0.05, step_seconds=0.1, steps=1000)
    resumed.budget.load_state_dict(first.budget.state_dict(500))
    assert decided(resumed, Trial(100.0, 1.0, 1.0, 192, 8)) == plan
    resumed.budget.start(500)
    assert resumed.budget.spent == first.budget.spent
    for step in range(510, 1001, 10):
        resumed.now += 1.0
        if resumed.budget.allows_measurement(resumed.horizon(step)):
            resumed.measure(step, 0.9)
    assert first.measured + resumed.measured == whole.measured
    resumed.budget.stop(1000)
    assert resumed.budget.trained == pytest.approx(100.0)


@pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")  # as the project means it
@pytest.mark.parametrize(
    ("settings", "steps_left", "has_seconds"),
    [
        ({"max_epochs": 3}, 18, False),
        ({"max_steps": 4}, 4, False),
        ({"max_epochs": 3, "accumulate_grad_batches": 2}, 9, False),
        ({"max_epochs": -1, "max_time": "00:00:01:00"}, None, True),
        ({"max_epochs": -1, "limit_train_batches": 2, "max_steps": 6}, 6, False),
    ],
)
def test_the_trainer_knows_how_long_a_run_will_be(
    settings: dict[str, Any], steps_left: int | None, has_seconds: bool
) -> None:
    class Stop(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            found.append(horizon_of(trainer))
            trainer.should_stop = True

    found: list[Horizon] = []
    trainer = pl.Trainer(
        accelerator="cpu",
        callbacks=[Stop()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **settings,
    )
    trainer.fit(Autoencoder(), loader(), loader(seed=1))
    (horizon,) = found
    assert horizon.steps_left == steps_left
    assert horizon.samples_a_step == 8 * settings.get("accumulate_grad_batches", 1)
    assert (horizon.seconds_left is not None) == has_seconds
    assert horizon.seconds_left is None or 50.0 < horizon.seconds_left <= 60.0


def test_of_an_unknown_length_a_measurement_takes_a_few_seconds() -> None:
    run = Run(0.05, step_seconds=0.04, steps=1, known=False)
    assert decided(run, Trial(0.1, 1e-4, 1.0, 8, 2)).samples * 0.1 <= UNKNOWN_SECONDS - 1.0
