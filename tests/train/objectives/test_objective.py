"""The registry of terms, and the weighted sum."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch

from jepa_train.errors import ConfigurationError
from jepa_train.objectives import (
    ANTICOLLAPSE_NAMES,
    AnticollapseName,
    Objective,
    Uniformity,
    build_anticollapse,
)
from jepa_train.objectives.objective import ANTICOLLAPSE


def test_unknown_name_is_refused() -> None:
    assert build_anticollapse("none") is None
    with pytest.raises(ConfigurationError, match=", ".join(ANTICOLLAPSE_NAMES)):
        build_anticollapse("simclr")  # type: ignore[arg-type]  # the point of the test


def test_the_command_line_offers_the_names_of_the_registry() -> None:
    assert get_args(AnticollapseName) == ANTICOLLAPSE_NAMES == (*ANTICOLLAPSE, "none")


@pytest.mark.parametrize("name", ANTICOLLAPSE)
def test_a_name_builds_its_term(name: str) -> None:
    term = build_anticollapse(name, num_slices=7)
    assert type(term) is ANTICOLLAPSE[name]
    assert getattr(term, "num_slices", 7) == 7


def objective(**settings: Any) -> Objective:
    weights = dict.fromkeys(("embedding_weight", "centre_weight", "spectral_weight"), 0.0)
    weights |= {"token_weight": 1.0, "anticollapse_weight": 0.5}
    others = {"token_loss": "l2", "stop_gradient": True, "anticollapse": Uniformity(), "anticollapse_on": "embedding"}
    return Objective(**{**weights, **others, **settings})


def test_the_total_is_the_weighted_sum_of_the_terms_that_there_are() -> None:
    terms = {"tokens": torch.tensor(2.0), "anticollapse": torch.tensor(4.0)}
    assert float(objective().total(terms)) == 2.0 + 0.5 * 4.0


@pytest.mark.parametrize(
    ("settings", "embedding", "whole", "tokens"),
    [
        ({}, True, "B", False),
        ({"anticollapse_on": "tokens"}, False, "B", True),
        ({"anticollapse_on": "both"}, True, "B", True),
        ({"anticollapse_weight": 0.0}, False, "", False),
        ({"anticollapse": None, "embedding_weight": 1.0}, True, "B", False),
        ({"anticollapse_weight": 0.0, "centre_weight": 1.0}, True, "ABC", False),
        ({"token_weight": 0.0, "centre_weight": 1.0}, True, "ABC", False),
    ],
)
def test_what_the_terms_read_is_known(settings: dict[str, Any], embedding: bool, whole: str, tokens: bool) -> None:
    found = objective(**settings)
    views: Any = "ABC"
    assert (found.needs_embedding, found.guards_tokens) == (embedding, tokens)
    assert "".join(found.seen_whole(views)) == whole
    assert found.hides_patches == (settings.get("token_weight") != 0.0)


def test_tokens_of_whole_views_are_not_guarded() -> None:
    with pytest.raises(ConfigurationError, match="set anticollapse_on to embedding"):
        objective(token_weight=0.0, centre_weight=1.0, anticollapse_on="tokens")
    with pytest.raises(ConfigurationError, match="nothing is predicted"):
        objective(token_weight=0.0)


def test_the_term_against_collapse_is_a_mean_over_what_it_guards() -> None:
    views = {name: tuple(torch.randn(2, 6, 3)) for name in ("embedding", "tokens")}
    apart = [objective(anticollapse_on=name).anticollapse_term(views, 0) for name in views]
    assert torch.equal(objective(anticollapse_on="both").anticollapse_term(views, 0), torch.stack(apart).mean())
