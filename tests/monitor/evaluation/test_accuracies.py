"""Accuracies of each kind of features have tags of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from jepa_monitor import OnlineKNN, OnlineLinearProbe
from jepa_monitor.evaluation import LinearProbe
from jepa_monitor.evaluation.classifiers import principal
from tests.monitor.evaluation.helpers import Labelled, classes, labelled_module, logged, tuples
from tests.monitor.helpers import trainer

# the frozen part of the project is meant to be in eval mode
pytestmark = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")


def test_pixels_are_probed_in_their_principal_components(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jepa_monitor.evaluation.accuracies.COMPONENTS", 1)
    run = trainer(tmp_path, OnlineLinearProbe(on_error="raise"), max_epochs=1)
    run.fit(labelled_module(), tuples(60), tuples(60, seed=1))
    (bank, labels), (queries, truth) = classes(60), classes(60, seed=1)
    few = principal(queries.flatten(1), bank.flatten(1), components=1)
    expected = (LinearProbe.fit(few[1], labels).predict(few[0]) == truth).double().mean()
    found = float(run.callback_metrics["linear_probe/accuracy_pixels"])
    assert found == pytest.approx(float(expected))
    whole = LinearProbe.fit(bank.flatten(1), labels).predict(queries.flatten(1))
    assert found != pytest.approx(float((whole == truth).double().mean()))


def test_a_further_encoder_has_a_tag_of_its_name(tmp_path: Path) -> None:
    run = trainer(tmp_path, OnlineKNN(encoder={"z": "forward", "early": "encoder"}, whiten=False, pixels=False))
    run.fit(Labelled(), tuples(48), tuples(24, seed=1))
    assert set(logged(run.callback_metrics)) == {"knn/accuracy", "knn/accuracy_early"}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (OnlineKNN, {"k": 20, "num_queries": 5_000, "bank_size": 5_000, "every_n_epochs": 1, "name": ""}),
        (OnlineLinearProbe, {"ridge": 1e-3, "pixels": True, "reference": None, "on_error": "warn", "pool": "auto"}),
    ],
)
def test_the_command_line_offers_every_setting_with_its_default(kind: type, settings: dict[str, Any]) -> None:
    """Settings that are passed on to a base class too, and nothing that the kind has no use for."""
    parser = ArgumentParser()
    parser.add_class_arguments(kind, "evaluation")
    offered = vars(parser.get_defaults().evaluation)
    assert settings.items() <= offered.items()
    shared = {"encoder", "pool", "probe", "images", "every_n_epochs", "on_error", "name"}
    assert shared | {"reference", "labels", "pixels", "bank_size", "num_queries"} <= offered.keys()
    assert "num_samples" not in offered
    assert "continues training if a measurement fails" in parser.format_help()
