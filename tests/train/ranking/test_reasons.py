"""A value that is missing is null, and reason says why."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from jepa_train.ranking.columns import COLUMNS, wanted_columns
from jepa_train.ranking.embedding import NOT_FINITE
from jepa_train.ranking.reasons import (
    ALONE,
    NO_DENSITY,
    NO_JACOBIAN,
    NOT_MEASURED,
    ONLY,
    ONLY_OF_CLASS,
    UNREADABLE,
    reasons_of,
)
from tests.train.ranking.tiny import SIZE, encoder_of, layers, pictures, rank_quietly


def reasons(of_files: list[str | None], scores: str | None = None, **columns: list[Any]) -> list[str | None]:
    """Reasons of a table in which nothing is missing but what is given."""
    whole: dict[str, list[Any]] = {name: [0.5] * len(of_files) for name in NUMBERS}
    known = pa.table({**whole, "measured": [True] * len(of_files), **columns})
    wanted = wanted_columns(None if scores is None else scores.split(","))
    found: list[str | None] = reasons_of(known, pa.chunked_array([of_files], pa.string()), wanted).to_pylist()
    return found


NUMBERS = [column.name for column in COLUMNS if column.is_number] + ["clipped"]
NONE = pa.array([None, 0.5, 0.5], pa.float64())  # of the first image alone


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ({}, None),
        ({"embedding_log_density": NONE, "mahalanobis": NONE, "log_volume": NONE, "log_density": NONE}, NO_DENSITY),
        ({"measured": [False, True, True], "clipped": NONE, "log_volume": NONE, "log_density": NONE}, NOT_MEASURED),
        ({"clipped": NONE, "log_volume": NONE, "log_density": NONE}, UNREADABLE),
        ({"log_volume": NONE, "log_density": NONE}, NO_JACOBIAN),
        ({"percentile": NONE, "class_percentile": NONE, "doubt": NONE}, ONLY),
        ({"class_percentile": NONE}, ONLY_OF_CLASS),
        ({"nearest_distance": NONE}, ALONE),
        ({"nearest_distance": NONE, "percentile": NONE}, ALONE),
        (
            {"nearest_distance": NONE, "measured": [False, True, True], "log_volume": NONE, "log_density": NONE},
            f"{NOT_MEASURED}; {ALONE}",
        ),
        ({"jepa_score": pa.array([None] * 3, pa.float64())}, None),  # a whole column, of which the summary tells
    ],
)
def test_each_cause_has_its_sentence(missing: dict[str, Any], reason: str | None) -> None:
    assert reasons([None, None, None], **missing) == [reason, None, None]


def test_a_file_that_cannot_be_read_explains_all_else() -> None:
    assert reasons(["it is broken", None, None], log_density=NONE, nearest_distance=NONE)[0] == "it is broken"


def test_what_nobody_asked_for_needs_no_reason() -> None:
    missing = {"embedding_log_density": NONE, "log_volume": NONE, "nearest_distance": NONE}
    assert reasons([None, None, None], "knn_distance", **missing) == [None, None, None]


class NoneOfBlack(nn.Module):
    """An encoder that makes NaN of black pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = layers(3)

    def forward(self, x: Tensor) -> Tensor:
        """Embed."""
        bright = (x > -0.999).any(dim=(1, 2, 3))[:, None]
        return self.layers(x) / bright  # type: ignore[no-any-return]  # modules are untyped when called


def folder(root: Path, readable: int, *, black: int = 0, broken: int = 0, nested: bool = False) -> Path:
    """Few images, some of which have no finite embedding, or are none."""
    pictures(root / "some" if nested else root, readable)
    root.mkdir(exist_ok=True)
    for number in range(black):
        Image.fromarray(np.zeros((SIZE, SIZE, 3), np.uint8)).save(root / f"black_{number}.png")
    for number in range(broken):
        (root / f"broken_{number}.png").write_bytes(b"not a picture")
    return root


def check_every_null_has_a_reason(output: Path, table: pa.Table) -> None:
    """See that the row, or a warning that names the column, says why a value is missing."""
    warnings = " ".join(json.loads((output / "summary.json").read_text())["warnings"])
    without = pc.is_null(table["reason"]).to_numpy()
    for name in set(table.column_names) - {"reason"}:
        missing = pc.is_null(table[name]).to_numpy() & without
        assert not missing.any() or (missing.sum() == without.sum() and f"no {name}" in warnings), name


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (None, ALONE),
        ("log_density,mahalanobis,compressed_size", None),
        ("percentile", ONLY),
        ("doubt", ONLY),
        ("nearest_difference", ALONE),
    ],
)
def test_one_image_has_none_to_compare_with(scores: str | None, reason: str | None, tmp_path: Path) -> None:
    one, clean = folder(tmp_path / "one", 1), pictures(tmp_path / "clean", 14, seed=9)
    table = rank_quietly(one, tmp_path / "ranked", reference=clean, scores=scores)
    assert table["reason"].to_pylist() == [reason]
    check_every_null_has_a_reason(tmp_path / "ranked", table)


def test_two_images_have_no_density(tmp_path: Path) -> None:
    table = rank_quietly(folder(tmp_path / "two", 2, black=1), tmp_path / "ranked", encoder=encoder_of(NoneOfBlack()))
    assert table["reason"].to_pylist() == [NO_DENSITY, NO_DENSITY, NOT_FINITE]
    check_every_null_has_a_reason(tmp_path / "ranked", table)


SCORES = st.lists(st.sampled_from([column.name for column in COLUMNS[2:-1]]), min_size=1, max_size=3, unique=True)
SIZES = st.integers(0, 3)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    readable=SIZES,
    black=st.integers(0, 2),
    broken=st.integers(0, 2),
    nested=st.booleans(),
    reference=st.sampled_from([0, 2, 3, 14]),
    scores=st.none() | SCORES,
    budget=st.sampled_from([None, "0s"]),
    size=st.sampled_from([3, 40]),
)
def test_every_null_of_a_small_ranking_has_a_reason(
    readable: int,
    black: int,
    broken: int,
    nested: bool,
    reference: int,
    scores: list[str] | None,
    budget: str | None,
    size: int,
) -> None:
    assume(readable + black + broken and (reference or readable > 1))
    assume((nested and readable) or "class_percentile" not in (scores or []))  # only readable ones lie in a folder
    encoder = encoder_of(NoneOfBlack() if size == 3 else layers(size))
    with TemporaryDirectory() as place:
        root = Path(place)
        images = folder(root / "images", readable, black=black, broken=broken, nested=nested)
        clean = pictures(root / "clean", reference, seed=9) if reference else None
        table = rank_quietly(images, root / "ranked", encoder=encoder, reference=clean, scores=scores, budget=budget)
        check_every_null_has_a_reason(root / "ranked", table)
