"""A plan takes the most samples that fit, exactly or by a few rows."""

from __future__ import annotations

from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from jepa_monitor.density import subspace_rows
from jepa_monitor.runtime.plan import (
    CALIBRATION_SAMPLES,
    FEWEST_SAMPLES,
    MOMENT,
    TOLERANCE,
    Plan,
    Trial,
    choose_plan,
    choose_reference,
)

positive = st.floats(1e-6, 1e4)


@given(
    seconds=st.floats(0.0, 1e5),
    per_sample=positive,
    num_samples=st.integers(1, 4096),
    size=st.integers(1, 2048),
    share=st.floats(0.0, 1.0),
)
def test_a_plan_is_the_most_that_fits(
    seconds: float, per_sample: float, num_samples: int, size: int, share: float
) -> None:
    rank = max(1, round(share * size))
    plan = choose_plan(seconds, seconds_per_sample=per_sample, num_samples=num_samples, embedding_size=size, rank=rank)
    assert min(FEWEST_SAMPLES, num_samples) <= plan.samples <= num_samples
    if plan.subspace:
        assert size >= 64
        cost = (CALIBRATION_SAMPLES + plan.samples * subspace_rows(rank, size) / size) * per_sample
    else:
        cost = plan.samples * per_sample
    if plan.samples > FEWEST_SAMPLES:
        assert cost <= seconds * TOLERANCE * (1.0 + 1e-9)
    exact = seconds / per_sample >= num_samples
    assert not exact or plan == Plan(num_samples)


def test_the_order_is_exact_then_fewer_then_a_few_rows() -> None:
    def plan(affordable: float, estimator: str = "auto", size: int = 192, rank: int = 8) -> Plan:
        return choose_plan(
            affordable,
            seconds_per_sample=1.0,
            num_samples=512,
            embedding_size=size,
            rank=rank,
            estimator=estimator,  # type: ignore[arg-type]  # each of its names
        )

    assert plan(512) == Plan(512)
    assert plan(350) == Plan(512)  # a little too much for all of them, so that short runs can be compared
    assert plan(300) == Plan(256)
    assert plan(270) == plan(300)  # in steps, so that small differences of speed make none
    assert plan(150) == Plan(512, subspace=True)
    assert plan(150, rank=96) == Plan(128)  # so many rows cost as much as all
    assert plan(150, size=32) == Plan(128)
    assert plan(55) == Plan(90, subspace=True)
    assert plan(51) == Plan(45)
    assert plan(0) == Plan(FEWEST_SAMPLES)
    assert plan(150, "exact") == Plan(128)
    assert plan(1000, "subspace") == Plan(512, subspace=True)
    assert plan(1000, "subspace", rank=128) == Plan(512)  # there are no fewer rows than directions
    assert str(plan(150)) == "a few rows of the Jacobians of 512 samples"


@given(seconds=st.floats(0.0, 1e5), per_sample=positive, rest=positive, most=st.integers(0, 10_000))
def test_reference_samples_are_doublings_of_512_for_a_quarter_of_the_time(
    seconds: float, per_sample: float, rest: float, most: int
) -> None:
    trial = Trial(1.0, 1.0, rest, 192, 8, per_reference=per_sample, most_reference=most)
    count = choose_reference(seconds, trial)
    assert count == most or count in [512 << doublings for doublings in range(40)]
    if count > 512:
        assert trial.besides(count) - rest <= 0.25 * seconds * (1.0 + 1e-6) or count == most
    if min(512, most) <= count < most:
        assert trial.besides(2 * count) - rest > 0.25 * seconds * (1.0 - 1e-6)


@given(seconds=st.floats(0.0, 1e5), per_sample=positive, num_samples=st.integers(1, 4096), sets=st.integers(1, 9))
def test_as_many_sets_have_jacobians_as_the_fewest_of_fit(
    seconds: float, per_sample: float, num_samples: int, sets: int
) -> None:
    def planned(sets: int) -> Plan:
        return choose_plan(
            seconds, seconds_per_sample=per_sample, num_samples=num_samples, embedding_size=8, rank=2, sets=sets
        )

    taken = len(planned(sets).with_jacobians([str(index) for index in range(sets)]))
    fewest = per_sample * min(FEWEST_SAMPLES, num_samples)
    allowed = max(TOLERANCE * seconds, MOMENT)
    assert taken == 1 or taken * fewest <= allowed * (1.0 + 1e-9)
    assert taken == sets or (taken + 1) * fewest > allowed * (1.0 - 1e-9)
    assert planned(sets).samples == planned(taken).samples
    assert planned(1).with_jacobians(["", "far"]) == ["", "far"]  # nothing was left out


def test_a_plan_says_which_sets_have_jacobians() -> None:
    assert str(Plan(16, further_sets=0)) == "exact Jacobians of 16 samples of the probe alone"
    assert str(Plan(16, further_sets=2)) == "exact Jacobians of 16 samples of the probe and 2 further sets"


def test_a_plan_says_how_many_reference_samples_it_embeds() -> None:
    assert str(Plan(512, reference=2048)) == "exact Jacobians of 512 samples and up to 2048 reference embeddings"


def test_a_plan_of_an_earlier_version_goes_on() -> None:
    assert Plan.restore({"samples": 90, "sketch": True}) == Plan(90, subspace=True)
    assert Plan.restore({"samples": 90, "sketch": False}) == Plan(90)
    for plan in (Plan(70), Plan(70, subspace=True), Plan(70, further_sets=1)):
        assert Plan.restore(asdict(plan)) == plan
