"""The reference of other images, of a file, and of the ranked images themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.references import read_reference
from tests.train.ranking.tiny import encoder_of, layers, pictures, rank_quietly, tiny_encoder, values


def test_images_are_compared_with_a_folder_or_its_file(photos: Path, tmp_path: Path) -> None:
    clean = pictures(tmp_path / "clean", 60, seed=9)
    by_folder = rank_quietly(photos, tmp_path / "one", reference=clean)
    by_file = rank_quietly(photos, tmp_path / "two", reference=tmp_path / "one" / "reference.pt")
    assert by_folder.equals(by_file)
    itself = rank_quietly(photos, tmp_path / "three")
    assert not np.allclose(values(itself, "mahalanobis")[:5], values(by_folder, "mahalanobis")[:5])


def test_one_image_is_compared_with_a_folder(tmp_path: Path) -> None:
    clean, one = pictures(tmp_path / "clean", 60, seed=9), pictures(tmp_path / "one", 1)
    table = rank_quietly(one, tmp_path / "ranked", reference=clean)
    assert table["log_density"].null_count == 0
    assert table["nearest_filename"].null_count == 1


def test_a_reference_can_be_made_alone(photos: Path, tmp_path: Path) -> None:
    assert rank_quietly(photos, tmp_path / "shared", stage="reference") is None
    assert (tmp_path / "shared" / "reference.pt").is_file()
    with_it = rank_quietly(photos, tmp_path / "one", reference=tmp_path / "shared" / "reference.pt")
    itself = rank_quietly(photos, tmp_path / "two")
    for name in ("log_density", "mahalanobis", "knn_distance"):  # each compared with the others, in both
        np.testing.assert_allclose(values(with_it, name), values(itself, name), atol=1e-4)


def test_a_reference_of_another_encoder_is_refused(photos: Path, tmp_path: Path) -> None:
    rank_quietly(photos, tmp_path / "shared", stage="reference")
    with pytest.raises(ConfigurationError, match="with another encoder"):
        rank_quietly(photos, tmp_path / "one", reference=tmp_path / "shared" / "reference.pt", encoder=tiny_encoder(6))


def test_a_reference_for_exact_volumes_has_no_subspace(photos: Path, tmp_path: Path) -> None:
    rank_quietly(photos, tmp_path / "shared", stage="reference", estimator="exact")
    with pytest.raises(ConfigurationError, match="was made for exact volumes, or for none: make it"):
        rank_quietly(photos, tmp_path / "one", reference=tmp_path / "shared" / "reference.pt", estimator="subspace")


def test_images_that_are_typical_by_their_name_alone_are_taken_whole(tmp_path: Path) -> None:
    clean = pictures(tmp_path / "clean", 100)

    def counted(output: str, **settings: Any) -> int:
        rank_quietly(clean, tmp_path / output, scores="mahalanobis", **settings)
        return len(read_reference(tmp_path / output / "reference.pt", tiny_encoder().identity).z)

    said = r"^The reference leaves out 10 of 100 images of .*clean, those farthest .* give their folder as --reference"
    with pytest.warns(UserWarning, match=said):
        assert counted("alone", stage="reference") == 90
    assert counted("ranked") == 90  # here and below warnings are errors
    assert counted("whole", stage="reference", reference=clean) == 100
    assert counted("compared", reference=clean) == 100
    with pytest.raises(ConfigurationError, match=r'begun with another reference \(taken: "trimmed", not "whole"\)'):
        counted("alone", stage="reference", reference=clean)


JEPA_SCORE = {"scores": "jepa_score"}


@pytest.mark.parametrize(
    ("size", "first", "second"),
    [
        (5, {}, JEPA_SCORE),  # auto is exact for 5 numbers
        (5, {}, {"estimator": "exact"}),
        (5, JEPA_SCORE, {}),
        (40, {"scores": "mahalanobis"}, JEPA_SCORE),  # no volume was measured
        (40, {"estimator": "exact"}, {}),
        (40, {}, {"estimator": "subspace"}),
        (40, {"estimator": "subspace"}, {}),
    ],
)
def test_an_estimator_that_is_in_use_is_no_other(
    photos: Path, tmp_path: Path, size: int, first: dict[str, str], second: dict[str, str]
) -> None:
    encoder, output = encoder_of(layers(size)), tmp_path / "ranked"
    rank_quietly(photos, output, encoder=encoder, **first)
    measured = {path: path.stat().st_mtime_ns for path in output.rglob("*.arrow")}
    table = rank_quietly(photos, output, encoder=encoder, **second)
    assert measured.items() <= {path: path.stat().st_mtime_ns for path in output.rglob("*.arrow")}.items()
    alike = second or first  # auto goes on with what is in use
    at_once = rank_quietly(photos, tmp_path / "once", encoder=encoder, **{**alike, "scores": second.get("scores")})
    assert table.equals(at_once)


def test_another_estimator_than_that_in_use_is_refused(photos: Path, tmp_path: Path) -> None:
    encoder, output = encoder_of(layers(40)), tmp_path / "ranked"
    rank_quietly(photos, output, encoder=encoder)
    with pytest.raises(ConfigurationError, match=r'another estimator of volumes \("subspace", not "exact"\)'):
        rank_quietly(photos, output, encoder=encoder, **JEPA_SCORE)
    (output / "reference.pt").unlink()
    with pytest.raises(ConfigurationError, match="another estimator"):
        rank_quietly(photos, output, encoder=encoder, **JEPA_SCORE)


class Detached(nn.Module):
    """An encoder that autograd cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = layers(40)

    def forward(self, x: Tensor) -> Tensor:
        """Embed."""
        with torch.no_grad():
            return self.layers(x)  # type: ignore[no-any-return]  # modules are untyped when called


def test_an_encoder_without_derivative_is_refused_before_the_first_pass(photos: Path, tmp_path: Path) -> None:
    encoder = encoder_of(Detached())
    for settings in ({}, {"stage": "reference"}, {"scores": "percentile"}):
        with pytest.raises(ConfigurationError, match="volumes need the derivative of tiny, which has none"):
            rank_quietly(photos, tmp_path / "ranked", encoder=encoder, **settings)
    assert not (tmp_path / "ranked").exists()
    table = rank_quietly(photos, tmp_path / "ranked", encoder=encoder, scores="mahalanobis,nearest_distance")
    assert table["mahalanobis"].null_count == 1


def test_volumes_that_are_asked_for_later_are_those_of_one_call(photos: Path, tmp_path: Path) -> None:
    encoder = encoder_of(layers(40))
    rank_quietly(photos, tmp_path / "two", encoder=encoder, scores="mahalanobis")
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["volumes"] is None
    later, at_once = (rank_quietly(photos, tmp_path / name, encoder=encoder) for name in ("two", "one"))
    assert later.equals(at_once)
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["volumes"]["estimator"] == "subspace"
