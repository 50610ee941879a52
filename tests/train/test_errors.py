"""Messages, and the checks of numbers."""

from __future__ import annotations

import math

import pytest

from jepa_train.errors import (
    ConfigurationError,
    chain,
    check_above_0,
    check_at_least,
    counted,
    nearest,
    one_line,
    some_of,
)


def test_a_chain_goes_from_an_error_to_its_first_cause() -> None:
    first, last = ValueError("first"), KeyError("last")
    last.__cause__ = first
    assert list(chain(last)) == [last, first]
    assert list(chain(None)) == []


def test_text_is_brought_to_one_line() -> None:
    assert one_line(ValueError("a\n  b\tc")) == "a b c"


@pytest.mark.parametrize(
    ("names", "text"), [(["a"], "a"), (list("abc"), "a, b, c"), (list("abcde"), "a, b, c and 2 more")]
)
def test_the_first_names_stand_for_many(names: list[str], text: str) -> None:
    assert some_of(names) == text


@pytest.mark.parametrize("value", [-1, math.nan])
def test_the_first_number_below_the_least_is_named(value: float) -> None:
    check_at_least(0, first=0, second=3.5)
    with pytest.raises(ConfigurationError, match=f"^second must be 0 or more, got {value}"):
        check_at_least(0, first=0, second=value, third=-2)


@pytest.mark.parametrize("value", [0, math.nan])
def test_the_first_number_that_is_not_above_0_is_named(value: float) -> None:
    check_above_0(first=1e-9)
    with pytest.raises(ConfigurationError, match=f"^first must be above 0, got {value}"):
        check_above_0(first=value)


@pytest.mark.parametrize(("count", "text"), [(0, "0 images"), (1, "1 image"), (2, "2 images")])
def test_nouns_agree_with_their_number(count: int, text: str) -> None:
    assert counted(count, "image") == text


def test_the_nearest_names_go_on_or_resemble() -> None:
    names = ["resnet18", "resnet50", "vit_tiny", "vit_small", "vit_base", "vit_large"]
    assert nearest("vit_", names) == names[2:]
    assert nearest("resnet81", names)[0] == "resnet18"
    assert nearest("nothing", names) == []
    assert len(nearest("nothing", names, cutoff=0.0)) == 4
