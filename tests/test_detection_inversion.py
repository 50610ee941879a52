"""The benchmark's forecasts of inversion, on made encoders of which it is known what inverts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from detect import inversion, objectives_page
from detect.inversion import FEATURES, FIXED, Case
from detect.methods import DEFAULT, KNN, SIZE
from detect.readings import Reading, Samples
from detect.sets import INSIDE, NULL

from jepa_monitor.ranking import spearman


def made_cases(*, noise: float = 0.0, seeds: int = 4) -> list[Case]:
    """Six objectives: a score inverts where ``complexity`` is above 0.2, which no other feature knows."""
    generator = np.random.default_rng(0)
    found = []
    for index in range(6):
        for _ in range(seeds):
            features = {name: float(generator.normal()) for name in FEATURES}
            inverted = features["complexity"] + noise * float(generator.normal()) > 0.2
            found.append(Case(f"objective {index}", features, inverted))
    return found


def test_the_feature_that_knows_is_chosen_on_other_objectives() -> None:
    cases = made_cases()
    assert inversion.share_right(inversion.left_out(cases, ["complexity"]), cases) > 0.85
    assert inversion.share_right(inversion.left_out(cases, FEATURES), cases) > 0.85
    assert inversion.share_right(inversion.left_out(cases, ["dimension_share"]), cases) < 0.7


def test_what_belongs_to_one_objective_alone_is_not_learned_from_it() -> None:
    # the first objective's sign is the other way round: only a rule that has seen it can be right there
    cases = [Case("odd", {FIXED: value}, value > 0.0) for value in (-1.0, 1.0)]
    cases += [Case(f"even {i}", {FIXED: value}, value < 0.0) for i in range(3) for value in (-1.0, 1.0)]
    forecasts = inversion.left_out(cases, [FIXED])
    assert [forecast == case.inverted for forecast, case in zip(forecasts, cases, strict=True)] == [False] * 2 + [
        True
    ] * 6
    assert inversion.fixed(cases) == forecasts


def test_chance_is_one_half_whatever_the_share_that_inverts() -> None:
    cases = [Case("one", {}, index < 9) for index in range(10)]
    assert inversion.share_right([True] * 10, cases) == 0.5
    assert inversion.share_right([case.inverted for case in cases], cases) == 1.0
    assert inversion.share_right([True] * 9, cases[:9]) == 1.0  # where all invert
    assert math.isnan(inversion.share_right([], []))


def test_features_are_of_those_images_that_a_score_was_measured_of() -> None:
    torch.manual_seed(0)

    def samples(count: int, measured: int) -> Samples:
        spectrum = torch.randn(measured, 3).double()
        empty = torch.empty(0, 0)
        return Samples(torch.randn(count, 3), torch.rand(count).double(), spectrum[:, 0], spectrum, spectrum, empty)

    sets = {INSIDE: samples(30, 12), NULL: samples(20, 12)}
    reading = Reading(torch.randn(100, 3), torch.zeros(100).long(), 2, samples(4, 4), sets)
    scored = {
        "Eq. 5": {name: of.spectrum.sum(1) for name, of in sets.items()},
        KNN: {name: of.z[:, 0] for name, of in sets.items()},
        SIZE.name: {name: -of.size for name, of in sets.items()},
    }
    found = inversion.features(reading, scored)
    assert list(found) == ["Eq. 5"]
    assert set(found["Eq. 5"]) == set(FEATURES)
    own, near, size = (
        torch.cat([of(sets[name])[:12].double() for name in (INSIDE, NULL)])
        for of in (lambda s: s.spectrum.sum(1), lambda s: s.z[:, 0], lambda s: s.size)
    )
    assert found["Eq. 5"][FIXED] == pytest.approx(spearman(own, near))
    assert found["Eq. 5"]["complexity"] == pytest.approx(spearman(own, size))
    assert found["Eq. 5"]["dimension_share"] == pytest.approx(2 / 3)


def test_tables_show_each_objective_and_every_rule() -> None:
    features: dict[str, Any] = dict.fromkeys(FEATURES)  # as an encoder that has collapsed keeps them
    rows = [
        {
            "label": label,
            "encoder": f"{label}_{seed}",
            "output": "z",
            "control": "",
            "set": other,
            "method": method,
            "auroc": auroc,
            "features": {"Eq. 5": features | {FIXED: 0.5 - auroc if known else None}},
        }
        for label, known in (("objective sigreg", True), ("objective vicreg", True), ("objective none", False))
        for seed in (0, 1)
        for other in ("MNIST", "digits", "upside down", NULL)
        for method, auroc in ((DEFAULT, 0.9), ("Eq. 5", 0.1))
    ]
    text = objectives_page.tables(rows)
    assert "| objective sigreg, z (2) | 0.900 | - | - | - | 0.100 | - |" in text
    assert "| MNIST | 6 of 6 |" in text
    assert "best of them" in text
