"""The benchmark of selection: recordings of a run, rules on made runs, and the page."""

from __future__ import annotations

import json
import math
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import selection
import torch
import trainings
from hypothesis import given
from hypothesis import strategies as st
from keep import curves, falls, page, recording, rules
from keep.curves import ALARM, LOSS, Curve
from keep.rules import Judged, Rule
from scipy.stats import spearmanr
from study import drawing
from study.readings import folder_of

from jepa_monitor import FeatureStatistics
from jepa_monitor.evaluation import recovery
from jepa_monitor.tags import meaning_of
from jepa_train.data import MixtureDataModule
from jepa_train.data.base import ImageTensors
from jepa_train.module import JEPA

ROOT = Path(__file__).resolve().parents[1]
TINY = {"encoder_overrides": {"embed_dim": 16, "depth": 1, "num_heads": 2}, "patch_size": 4, "projector_hidden": 8}


class TwoClasses(MixtureDataModule):
    """Images with two classes that the mean pixel tells apart."""

    def judged(self) -> tuple[ImageTensors, ImageTensors]:
        labels = torch.arange(40) % 2
        images = torch.randn(40, 1, 16, 16) + 4.0 * labels[:, None, None, None]
        return ImageTensors(images, labels), ImageTensors(images.flip(3), labels)


def test_tags_and_accuracies_of_every_validation_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    module = JEPA(image_size=16, channels=1, embedding_size=4, predictor_width=16, predictor_depth=1, **TINY)
    features = FeatureStatistics(num_samples=32, encoder="features")
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "limit_val_batches": 1}
    trainer = pl.Trainer(
        max_steps=4,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        enable_model_summary=False,
        accelerator="cpu",
        callbacks=[features, recording.Record()],
        **options,
    )
    trainer.fit(module, TwoClasses(num_train=128, num_probe=32, batch_size=32))
    kept = json.loads((tmp_path / recording.MEASUREMENTS).read_text())
    assert [row["step"] for row in kept] == [2, 4]
    for row in kept:
        assert row["judge/linear_probe"] == 1.0
        assert row["judge/knn"] > 0.6
        assert 0.0 < row["features/rank_ratio"] < 1.0
        assert math.isfinite(row["train/loss"])


def test_a_value_without_meaning_is_null_and_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / recording.MEASUREMENTS
    recording.write([{"step": 1, "tag": math.nan}], path)
    assert json.loads(path.read_text()) == [{"step": 1, "tag": None}]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


# made runs: the accuracy rises and, in some, falls again; one tag follows it, one is its opposite, one is noise
RISES = [0.5, 0.6, 0.7, 0.8, 0.85, 0.9]
FALLS = [0.5, 0.7, 0.9, 0.85, 0.6, 0.5]


def curve(name: str, accuracy: list[float], seed: int = 0, **tags: list[float]) -> Curve:
    """A made run; its tags are those of the accuracy and noise, beside those given."""
    found = np.array(accuracy)
    noise = np.random.default_rng([seed, len(name)]).standard_normal(len(found))
    made = {"features/lidar": found, "features/std_mean": -found, "density/stability": noise, LOSS: np.arange(6.0)}
    made |= {tag: np.array(values) for tag, values in tags.items()}
    alarm = (found < 0.55) & (np.arange(len(found)) > 2)
    judged = {"linear probe": found, "kNN": found - 0.05}
    steps = 40.0 * np.arange(1, len(found) + 1)
    return Curve(name, seed, curves.objective_of(name), steps, judged, made, alarm.astype(float))


@pytest.fixture
def runs() -> list[Curve]:
    """Three trainings of two objectives, two seeds each."""
    made = {"objective vicreg": RISES, "spoiled no average": FALLS, "objective sigreg": FALLS, "objective none": RISES}
    return [curve(name, found, seed) for seed in range(2) for name, found in made.items()]


def test_a_rule_keeps_its_best_checkpoint_and_pays_what_that_one_lacks() -> None:
    accuracy = np.array([0.5, 0.9, 0.7])
    assert rules.regret(accuracy, 1) == 0.0
    assert rules.regret(accuracy, 2) == pytest.approx(20.0)
    assert rules.position_of_best(np.array([1.0, 3.0, math.nan])) == 1
    assert rules.position_of_best(np.array([3.0, 3.0, 1.0])) == 1  # the later of two
    assert rules.position_of_best(np.array([math.nan, math.nan, math.nan])) == 2


@pytest.mark.parametrize(
    ("better", "expected"), [("higher", 2), ("lower", 0), ("near 1", 1), ("near 0", 0)], ids=lambda value: str(value)
)
def test_values_are_turned_so_that_higher_is_better(better: str, expected: int) -> None:
    assert rules.position_of_best(rules.oriented(np.array([0.2, 1.1, 4.0]), better)) == expected


def test_directions_are_those_of_the_page_of_tags() -> None:
    assert rules.direction("features/lidar") == "higher"
    assert rules.direction("gaussianity/sliced_ep_ratio") == "lower"
    assert rules.direction("gaussianity/norm_variance_ratio") == "near 1"
    assert rules.direction("train/loss_tokens") == "lower"
    assert rules.direction("jacobian/intrinsic_dimension") == "-"


@given(st.lists(st.floats(-5.0, 5.0), min_size=4, max_size=12, unique=True), st.randoms())
def test_correlations_and_choices_depend_on_order_alone(values: list[float], random: object) -> None:
    found = np.array(values)
    accuracy = np.random.default_rng(len(values)).permutation(len(values)) / len(values)
    assert rules.agreement(found, accuracy) == pytest.approx(spearmanr(found, accuracy).statistic)
    stretched = np.exp(found)
    if len(np.unique(stretched)) == len(found):
        assert rules.position_of_best(stretched) == rules.position_of_best(found)
        assert np.array_equal(rules.ranks(stretched), rules.ranks(found))
    cost = rules.regret(accuracy, rules.position_of_best(found))
    assert 0.0 <= cost <= 100.0 * (accuracy.max() - accuracy.min())


def test_a_direction_that_nobody_states_is_that_of_other_objectives(runs: list[Curve]) -> None:
    judged = Judged(runs, "linear probe")
    assert judged.better("features/std_mean", "sigreg") == "lower"
    turned = [curve(one.name, list(one.accuracies["linear probe"]), one.seed) for one in runs]
    for one in turned:
        if one.objective == "sigreg":
            one.tags["features/std_mean"][:] = one.accuracies["linear probe"]
    judged = Judged(turned, "linear probe")
    assert judged.better("features/std_mean", "sigreg") == "lower"  # what sigreg's runs say of it is not asked
    costs = judged.regrets(Rule(("features/std_mean",)))
    assert costs[[one.objective == "sigreg" for one in turned]] == pytest.approx(40.0)


def test_what_is_chosen_for_an_objective_does_not_depend_on_its_runs(runs: list[Curve]) -> None:
    judged = Judged(runs, "linear probe")
    candidates = rules.single(judged.tags)
    chosen, costs = judged.chosen(candidates)
    assert set(judged.tags) == {"density/stability", "features/lidar", "features/std_mean", LOSS}
    assert {rule.name for rule in chosen} == {"features/lidar"}
    assert costs == pytest.approx(0.0)
    changed = [one if one.objective != "vicreg" else curve(one.name, FALLS, one.seed) for one in runs]
    again, _ = Judged(changed, "linear probe").chosen(candidates)
    of_vicreg = [i for i, one in enumerate(runs) if one.objective == "vicreg"]
    assert [again[i] for i in of_vicreg] == [chosen[i] for i in of_vicreg]
    assert judged.last() == pytest.approx([0.0, 40.0, 40.0, 0.0] * 2)
    assert judged.regrets(Rule((LOSS,))) == pytest.approx([40.0] * 8)  # the first has the lowest
    assert judged.random()[0] == pytest.approx(100.0 * (0.9 - np.mean(RISES)))


def test_two_tags_that_err_in_different_runs_are_better_together() -> None:
    accuracy = [0.5, 0.6, 0.9, 0.8]
    made = curve("objective none", accuracy, first=[0.0, 3.0, 2.0, 1.0], second=[3.0, 0.0, 2.0, 1.0])
    made.tags[LOSS] = np.arange(4.0)
    judged = Judged([made], "linear probe")
    assert judged.regrets(Rule(("first",))) == pytest.approx([30.0])
    assert judged.regrets(Rule(("second",))) == pytest.approx([40.0])
    assert judged.regrets(Rule(("first", "second"))) == pytest.approx([0.0])


def test_intervals_draw_all_seeds_of_a_training_together() -> None:
    groups = ["a", "a", "b"]
    times = rules.times_drawn(groups, draws=500)
    assert np.array_equal(times[:, 0], times[:, 1])
    assert (times[:, 0] + times[:, 2] == 2.0).all()
    value, low, high = rules.interval(np.array([1.0, 3.0, math.nan]), times)
    assert (value, low, high) == (2.0, 2.0, 2.0)
    value, low, high = rules.interval_of_ratio(np.array([1.0, 1.0, 1.0]), np.array([2.0, 2.0, 4.0]), times)
    assert value == pytest.approx(3.0 / 8.0)
    assert (low, high) == (0.25, 0.5)


def test_a_fall_is_a_tenth_of_the_best_so_far() -> None:
    assert falls.fall_of(np.array(RISES)) is None
    assert falls.fall_of(np.array([0.5, 0.9, 0.82, 0.8, 0.95])) == 3
    assert np.array_equal(falls.drops(np.array([math.nan, 1.0, 3.0, 2.5, math.nan])), [0, 0, 0, 0.5, math.inf])


def test_levels_let_at_most_a_tenth_of_sound_runs_move() -> None:
    sound = [np.array([0.0, float(i)]) for i in range(20)]
    level = falls.level_of(sound)
    assert sum(bool((found > level).any()) for found in sound) == 2
    assert falls.level_of([]) == math.inf


def test_a_tag_that_falls_earlier_than_the_accuracy_warns_of_it() -> None:
    early = [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    made = [curve("objective vicreg", RISES, seed, ahead=[1.0] * 5 + [0.9]) for seed in range(3)]
    made += [curve("objective sigreg", FALLS, seed, ahead=early) for seed in range(2)]
    for one in made:
        one.tags["ahead"] = np.array(one.tags["ahead"])
    found = falls.warnings(Judged(made, "linear probe"))
    # the accuracy falls at step 200; the direction of the tag is that of the other objectives, the lower the better
    assert found[ALARM].leads == (-40.0, -40.0)
    assert found[ALARM].in_time == 0
    assert found["features/lidar"].leads == (40.0, 40.0)
    assert found["features/lidar"].false_alarms == (False,) * 3
    assert found[ALARM].false_alarms == (False,) * 3


def test_curves_come_back_as_they_were_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "recoveries", lambda folder, steps, images: [len(images) / step for step in steps])
    monkeypatch.setattr(curves, "probe", lambda: torch.zeros(1_000))
    rows = [
        {"step": 2, "judge/linear_probe": 0.5, "judge/knn": 0.25, "monitor/alarm_collapse": 0.0, "features/lidar": None}
    ]
    rows[0] |= {"features/recovery": 0.25}
    rows += [{**rows[0], "step": 4, "features/lidar": 3.5, "monitor/seconds": 1.0, "train/lr": 0.1, "judge/knn": 0.75}]
    for seed in (0, 2):
        own = folder_of("spoiled few images", seed, tmp_path)
        own.mkdir()
        (own / recording.MEASUREMENTS).write_text(json.dumps(rows))
        (own / "losses.json").write_text(json.dumps({"loss": [4.0, 2.0, 1.0, 0.0]}))
        (own / "seconds.json").write_text("1.0")
    (first, second) = curves.recorded(tmp_path, 3)
    assert (first.name, first.seed, second.seed, first.objective) == ("spoiled few images", 0, 2, "sigreg")
    for one in (first, second):
        curves.save(one, tmp_path / "kept")
    for one in (first, curves.kept(tmp_path / "kept")[0]):
        assert list(one.steps) == [2.0, 4.0]
        assert list(one.accuracies["kNN"]) == [0.25, 0.75]
        assert set(one.tags) == {"features/lidar", "features/recovery", "monitor/keep", "train/loss"}
        assert list(one.tags["monitor/keep"]) == [256.0, 128.0]
        assert list(one.tags["train/loss"]) == [3.0, 0.5]
        assert np.array_equal(one.tags["features/lidar"], [math.nan, 3.5], equal_nan=True)


def test_recovery_is_read_from_checkpoints_of_runs_that_did_not_record_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    own = folder_of("objective none", 0, tmp_path)
    own.mkdir()
    for name in ("step_2", "last"):
        module = JEPA(image_size=16, channels=1, embedding_size=4, predictor_width=16, predictor_depth=1, **TINY)
        weights = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
        torch.save(weights | {"pytorch-lightning_version": "2.6.6"}, own / f"{name}.ckpt")
    row = {"judge/linear_probe": 0.5, "judge/knn": 0.25, "monitor/alarm_collapse": 0.0}
    (own / recording.MEASUREMENTS).write_text(json.dumps([{"step": step, **row} for step in (2, 4)]))
    (own / "losses.json").write_text(json.dumps({"loss": [4.0, 2.0, 1.0, 0.0]}))
    (own / "seconds.json").write_text("1.0")
    images = (torch.randn(40, 2) @ torch.randn(2, 256)).reshape(40, 1, 16, 16)
    monkeypatch.setattr(curves, "probe", lambda: images)
    (found,) = curves.recorded(tmp_path, 1)
    with torch.no_grad():
        last = recovery(module.eval().features(images), images.flatten(1))
    assert found.tags[curves.RECOVERY][1] == pytest.approx(last, abs=1e-6)
    assert found.tags[curves.RECOVERY][0] != found.tags[curves.RECOVERY][1]


def test_one_command_prints_and_draws(runs: list[Curve], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert selection.main(["--docs", str(tmp_path)]) == 1
    assert "fewer than two objectives" in capsys.readouterr().err
    for one in runs:
        curves.save(one, tmp_path / "selection")
    pages = [tmp_path / "selection.md", tmp_path / "selection" / "tables.md"]
    for written in pages:
        written.write_text("<!-- selection -->\n<!-- end -->\n")
    assert selection.main(["--docs", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "8 runs of 4 trainings with 3 objectives" in printed
    assert "| none | `features/lidar` |" in printed
    assert "chosen tag costs 0.00 (0.00-0.00) of keep the last, reached" in printed
    rules, others = page.tables(curves.kept(tmp_path / "selection"))
    assert printed == f"{rules}\n\n{others}\n"
    for written, tables in zip(pages, (rules, others), strict=True):
        assert written.read_text() == f"<!-- selection -->\n{tables}\n<!-- end -->\n"
    assert {path.name for path in (tmp_path / "images" / "selection").iterdir()} == {"rules.png", "curves.png"}


def test_all_runs_that_are_measured_can_be_selected_from() -> None:
    measured = {name for name, training in trainings.TRAININGS.items() if training.measured}
    assert measured == {*trainings.OBJECTIVES, *trainings.SPOILED}
    assert {curves.objective_of(name) for name in trainings.SPOILED} <= {
        curves.objective_of(name) for name in trainings.OBJECTIVES
    }


@pytest.mark.slow
def test_the_page_of_tags_says_what_it_costs_to_keep_a_checkpoint() -> None:
    found = curves.kept(ROOT / "docs" / "selection")
    verdict = page.Verdict.of(found, page.FIRST)
    kept, last = (verdict.cost(rule)[0] for rule in (curves.KEEP, page.LAST))
    tag = meaning_of(curves.KEEP)
    assert tag is not None
    spoiled = [curve.name.startswith("spoiled") for curve in found]
    assert f"Over {len(found)} short runs on Fashion-MNIST, {sum(spoiled)} of them" in tag.meaning
    assert f"this checkpoint had {kept:.1f} points" in tag.meaning
    assert f"the last one {last:.1f}" in tag.meaning
    assert verdict.ratio(page.ONE, page.LAST)[2] <= page.GOAL


def test_the_pages_show_what_the_kept_curves_print() -> None:
    text = (ROOT / "docs" / "selection.md").read_text()
    rules, others = page.tables(curves.kept(ROOT / "docs" / "selection"))
    assert rules in text
    assert others in (ROOT / "docs" / "selection" / "tables.md").read_text()
    for name in ("rules", "curves"):
        figure = ROOT / "docs" / "images" / "selection" / f"{name}.png"
        assert f"images/selection/{figure.name}" in text
        assert figure.stat().st_size <= drawing.LARGEST
