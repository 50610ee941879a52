"""The reference is drawn, fitted, written and read back; small and collapsed ones say what they lack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.references import (
    RankingReference,
    calibrated,
    calibration_places,
    check_reference,
    draw,
    file_identity,
    fit_reference,
    has_subspace,
    read_reference,
    typical,
    write_reference,
)
from tests.train.ranking.tiny import SIZE, layers


def reference(count: int = 80, size: int = 5) -> RankingReference:
    z = torch.randn(count, size).numpy()
    return fit_reference(z, np.arange(count), images="a", encoder="e", source="some images")


def test_draws_are_fixed_and_at_most_20000() -> None:
    assert draw(7, seed=0).tolist() == list(range(7))
    drawn = draw(100_000, seed=3)
    assert len(drawn) == len(set(drawn.tolist())) == 20_000
    assert (np.diff(drawn) > 0).all()
    assert (draw(100_000, seed=3) == drawn).all()
    assert (draw(100_000, seed=4) != drawn).any()


def test_embeddings_that_are_not_finite_are_left_out() -> None:
    z = torch.randn(30, 3).numpy()
    z[4, 1] = np.nan
    found = fit_reference(z, np.arange(30) * 2, images="a", encoder="e", source="s")
    assert found.indices.tolist() == [2 * place for place in range(30) if place != 4]
    assert found.places(np.array([0, 1, 8, 10]), "a").tolist() == [0, -1, -1, 4]
    assert found.places(np.array([0, 1, 8, 10]), "b").tolist() == [-1] * 4


def test_fewer_than_two_are_refused() -> None:
    z = np.array([[1.0, 2.0], [np.nan, 0.0]], dtype=np.float32)
    for trim, remedy in ((True, "give more images, or a --reference"), (False, "give a folder with more")):
        with pytest.raises(ConfigurationError, match=f"only 1 of 2 images of photos .* {remedy}"):
            fit_reference(z, np.arange(2), images="a", encoder="e", source="photos", trim=trim)


def test_what_lies_apart_is_not_compared_with() -> None:
    z = torch.randn(500, 4)
    z[:30] = 6.0 + 0.1 * torch.randn(30, 4)
    kept = typical(z.numpy())
    assert kept.sum() == 450
    assert not kept[:30].any()
    z[100] = torch.nan
    assert not typical(z.numpy())[100]
    found = fit_reference(z.numpy(), np.arange(500), images="a", encoder="e", source="s", trim=True)
    assert (found.places(np.arange(500), "a") >= 0).tolist() == typical(z.numpy()).tolist()
    whole = fit_reference(z.numpy(), np.arange(500), images="a", encoder="e", source="s")
    assert len(whole.z) == 499
    assert typical(z[:99].numpy()).all()
    assert typical(torch.ones(200, 3).numpy()).all()


def test_few_have_a_shrunk_gaussian_in_all_directions() -> None:
    found = reference(count=6, size=4)
    assert found.density is not None
    assert found.density.rank == 4
    assert torch.isfinite(found.density.log_density(torch.randn(3, 4).double())).all()


def test_a_point_has_no_density() -> None:
    found = fit_reference(np.ones((50, 3), np.float32), np.arange(50), images="a", encoder="e", source="s")
    assert found.density is None
    assert found.mahalanobis is None


def test_a_file_gives_the_same_again(tmp_path: Path) -> None:
    encode = layers(12)
    x = torch.randn(200, 3, SIZE, SIZE)
    with torch.no_grad():
        z = encode(x).numpy()
    made = fit_reference(z, np.arange(200), images="a", encoder="e", source="some images")
    made = calibrated(made, encode, x[calibration_places(made)])
    write_reference(tmp_path / "reference.pt", made)
    found = read_reference(tmp_path / "reference.pt", "e")
    other = torch.randn(9, 12).double()
    assert made.density is not None
    assert found.density is not None
    assert torch.equal(found.density.log_density(other), made.density.log_density(other))
    assert made.subspace is not None
    assert found.subspace is not None
    assert torch.equal(found.subspace.rows(other), made.subspace.rows(other))
    assert found.subspace.held_out_spearman == made.subspace.held_out_spearman
    assert (found.source, found.images) == ("some images", "a")
    write_reference(tmp_path / "again.pt", found)
    assert file_identity(tmp_path / "again.pt") == file_identity(tmp_path / "reference.pt")


def test_a_file_of_another_encoder_or_kind_is_refused(tmp_path: Path) -> None:
    write_reference(tmp_path / "reference.pt", reference())
    with pytest.raises(ConfigurationError, match="with another encoder"):
        read_reference(tmp_path / "reference.pt", "other")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "reference.pt").read_bytes()[:500])
    torch.save({"weights": 1}, tmp_path / "other.pt")
    flipped = bytearray((tmp_path / "reference.pt").read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / "flipped.pt").write_bytes(flipped)
    for name in ("cut.pt", "flipped.pt", "other.pt", "none.pt"):
        for read in (read_reference, check_reference, has_subspace):
            with pytest.raises(ConfigurationError, match="is damaged, or not a reference"):
                read(tmp_path / name, "e")
