"""The row of a run in TensorBoard's HPARAMS tab, and the lines that the command ends with."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from jepa_train import JEPA
from jepa_train.commands.final_values import facts_of, objective_of, results
from jepa_train.data import MixtureDataModule
from tests.train.commands.helpers import MIXTURE, make_run

DEFAULTS: dict[str, Any] = {name: parameter.default for name, parameter in inspect.signature(JEPA).parameters.items()}


@pytest.mark.parametrize(
    ("changed", "objective"),
    [
        ({}, "tokens + embedding + sigreg"),
        ({"anticollapse": "none", "spectral_weight": 0.1}, "tokens + embedding + spectral norm"),
        ({"embedding_weight": 0.0, "anticollapse_weight": 0.0}, "tokens"),
        ({"token_weight": 0.0, "embedding_weight": 0.0, "centre_weight": 1.0}, "centre + sigreg"),
    ],
)
def test_an_objective_is_its_terms(changed: dict[str, Any], objective: str) -> None:
    assert objective_of(DEFAULTS | changed) == objective


def test_runs_are_told_apart_by_objective_data_size_and_seeds() -> None:
    facts = facts_of(DEFAULTS | {"seed": 3}, MixtureDataModule(num_train=8, num_probe=8, seed=5))
    assert (facts["data"], facts["embedding_size"], facts["seed_of_model"], facts["seed_of_data"]) == (
        "Mixture",
        64,
        3,
        5,
    )
    assert {"objective", "data", "embedding_size", "encoder"} <= set(sorted(facts)[:5])  # those that TensorBoard shows


@pytest.mark.usefixtures("own_folder")
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_a_finished_run_has_a_row() -> None:
    folder = make_run(*MIXTURE)
    events = EventAccumulator(str(folder)).Reload()
    started = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    shown = HParamsPluginData.FromString(started).session_start_info.hparams
    assert shown["objective"].string_value == "tokens + embedding + sigreg"
    assert shown["embedding_size"].number_value == 2
    experiment = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    metrics = [found.name.tag for found in HParamsPluginData.FromString(experiment).experiment.metric_infos]
    assert metrics == ["train/loss"]
    assert "objective" not in Path(folder, "hparams.yaml").read_text()


def test_results_say_what_the_headline_values_mean() -> None:
    truth = {"density/spearman": 0.981, "density/spearman_gaussian": 0.724, "monitor/samples": 181.0}
    clouds = {"gaussianity/sliced_ep_ratio": 1.13, "jacobian/intrinsic_dimension": 2.02}
    assert results(truth | clouds, "No alarm.") == [
        "Density: rank correlation with the true log density 0.98 (1 is perfect; one Gaussian on the pixels: 0.72), of "
        "181 samples.",
        "Embeddings: Gaussianity ratio 1.13 (1 is Gaussian), intrinsic dimension 2.02 (directions in use). No alarm.",
    ]


def test_results_without_a_truth_are_of_other_sets_and_accuracies() -> None:
    sets = {"density/ood_auroc/mnist": 0.98, "density/ood_auroc_embedding/mnist": 0.3, "density/ood_auroc/noise": 1.0}
    accuracies = {"knn/accuracy": 0.8512, "knn/accuracy_pixels": 0.81, "linear_probe/accuracy": 0.86}
    assert results(sets | accuracies) == [
        "Density: AUROC of other data sets: mnist 0.98 (without the volume 0.30), noise 1.00 (0.5 is chance, 1 is "
        "perfect).",
        "Features: kNN accuracy 0.851 (pixels 0.810), linear probe accuracy 0.860.",
    ]
    (line,) = results({"density/stability": 0.9, "monitor/samples": 45.0})
    assert line == "Density: rank correlation with the measurement before 0.90, of 45 samples, too few to rely on."


def test_results_have_the_verdict_and_leave_out_what_is_not_known() -> None:
    values = {"density/spearman": math.nan, "monitor/alarm_collapse": 1.0}
    assert results(values, "Alarm: collapse.") == ["Embeddings: Alarm: collapse."]
    assert results(values) == results({}) == []
