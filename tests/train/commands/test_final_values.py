"""The row of a run in TensorBoard's HPARAMS tab."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from jepa_train import JEPA
from jepa_train.commands.final_values import facts_of, objective_of
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
    assert (facts["data"], facts["K"], facts["model_seed"], facts["data_seed"]) == ("Mixture", 64, 3, 5)


@pytest.mark.usefixtures("own_folder")
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_a_finished_run_has_a_row() -> None:
    folder = make_run(*MIXTURE)
    events = EventAccumulator(str(folder)).Reload()
    started = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    shown = HParamsPluginData.FromString(started).session_start_info.hparams
    assert shown["objective"].string_value == "tokens + embedding + sigreg"
    assert shown["K"].number_value == 2
    experiment = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    metrics = [found.name.tag for found in HParamsPluginData.FromString(experiment).experiment.metric_infos]
    assert metrics == ["train/loss"]
    assert "objective" not in Path(folder, "hparams.yaml").read_text()
