"""Folders of images: layouts, labels, crops made by workers, and files that are no images."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from jepa_train.data import ImageFolderDataModule
from jepa_train.data.image_folder import default_share, held_out
from jepa_train.errors import ConfigurationError
from tests.train.data.helpers import Recorder, fit

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")


def write(path: Path, *, color: int = 0, size: tuple[int, int] = (20, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (color, color, color)).save(path)


def imagenet(root: Path) -> ImageFolderDataModule:
    """Class folders b, a and c in train; c and b in val."""
    for index, name in enumerate("baacb"):
        write(root / "train" / name / f"{index}.png", color=index)
    for index, name in enumerate("cb"):
        write(root / "val" / name / f"{index}.png", color=100 + index)
    return ImageFolderDataModule(str(root), image_size=8, batch_size=2, num_workers=0)


def labels(dataset: Any) -> list[int]:
    return sorted(dataset[index]["label"] for index in range(len(dataset)))


def test_the_first_images_are_of_all_classes(tmp_path: Path) -> None:
    for index in range(60):
        write(tmp_path / "train" / "abc"[index // 20] / f"{index}.png")
    write(tmp_path / "val" / "a" / "0.png")
    first, again = (ImageFolderDataModule(str(tmp_path), image_size=8, seed=seed).make_train() for seed in (0, 1))
    assert {first[index]["label"] for index in range(12)} == {0, 1, 2}
    assert [first[index]["label"] for index in range(60)] == [again[index]["label"] for index in range(60)]


def test_the_layout_of_imagenet_is_taken_as_train_and_probe(tmp_path: Path) -> None:
    data = imagenet(tmp_path)
    assert labels(data.reference_dataset()) == [0, 0, 1, 1, 2]
    assert labels(data.probe_dataset()) == [1, 2]
    sample = data.probe_dataset()[0]
    assert sample["image"].shape == (3, 8, 8)
    assert type(sample["image"]) is torch.Tensor


@pytest.mark.parametrize("name", ["test", "valid", "validation", "dev", "Test"])
def test_the_probe_has_other_names_where_there_is_no_val(name: str, tmp_path: Path) -> None:
    imagenet(tmp_path)
    (tmp_path / "val").rename(tmp_path / name)
    assert labels(ImageFolderDataModule(str(tmp_path)).probe_dataset()) == [1, 2]


def test_of_train_without_a_known_probe_a_share_is_held_out(tmp_path: Path) -> None:
    imagenet(tmp_path)
    (tmp_path / "val").rename(tmp_path / "new")
    data = ImageFolderDataModule(str(tmp_path), probe_share=0.4)
    message = r"1 folder of .*, neither training images nor probe, is left out: 'new'; call the folder to measure val, "
    with pytest.warns(UserWarning, match=message):
        assert labels(data.reference_dataset()) == [0, 0, 1]
    assert labels(data.probe_dataset()) == [1, 2]
    assert data.make_train().root == data.make_probe().root == str(tmp_path / "train")


def test_a_flat_train_that_is_all_there_is_is_split(tmp_path: Path) -> None:
    for index in range(4):
        write(tmp_path / "train" / f"{index}.png")
    data = ImageFolderDataModule(str(tmp_path), probe_share=0.5)
    assert data.make_train().root == str(tmp_path / "train")
    assert (len(data.make_train()), len(data.make_probe())) == (2, 2)


def test_a_class_named_train_is_a_class(tmp_path: Path) -> None:
    for name in ("car", "train"):
        for index in range(4):
            write(tmp_path / name / f"{index}.png")
    data = ImageFolderDataModule(str(tmp_path), probe_share=0.5)
    assert labels(data.reference_dataset()) == labels(data.probe_dataset()) == [0, 0, 1, 1]


def test_a_folder_without_a_share_in_the_probe_keeps_its_number(tmp_path: Path) -> None:
    for index, name in enumerate("abcd"):
        write(tmp_path / name / f"{index}.png")
    data = ImageFolderDataModule(str(tmp_path), probe_share=0.5)
    assert labels(data.probe_dataset()) == [1, 3]
    assert labels(data.reference_dataset()) == [0, 2]


@pytest.mark.parametrize(("count", "share"), [(100, 0.1), (100, 0.29), (100, 0.4), (100, 0.7), (100, 0.9), (7, 0.5)])
def test_the_probe_has_the_share_it_was_told(count: int, share: float) -> None:
    exact = Fraction(str(share))
    expected = [math.floor((i + 1) * exact) > math.floor(i * exact) for i in range(count)]
    assert held_out(count, share).tolist() == expected
    assert sum(expected) == math.floor(count * exact)


def test_neither_training_nor_probe_is_empty() -> None:
    for share in (1e-12, 0.01, 0.5, 0.99, 1 - 1e-12):
        for count in range(2, 12):
            assert 0 < held_out(count, share).sum() < count
    assert held_out(12, 0.01).tolist() == 11 * [False] + [True]


def test_classes_of_the_probe_alone_are_warned_of(tmp_path: Path) -> None:
    data = imagenet(tmp_path)
    write(tmp_path / "val" / "z" / "0.png")
    with pytest.warns(
        UserWarning, match=r"^1 folder of .*val is not in .*train, so its label is unknown in training: 'z'"
    ):
        assert labels(data.probe_dataset()) == [1, 2, 3]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("part", ["train", "val"])
def test_an_unreadable_file_is_one_clear_sentence(part: str, workers: int, tmp_path: Path) -> None:
    data = imagenet(tmp_path / "images")
    data.num_workers = workers
    for dataset, size in ((data.reference_dataset(), 5), (data.probe_dataset(), 2)):  # what is listed is readable
        assert len(dataset) == size  # type: ignore[arg-type]  # torch's Dataset declares no length
    for path in (tmp_path / "images" / part).rglob("*.png"):
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ConfigurationError) as raised:
        fit(data, tmp_path / "run")
    message = str(raised.value)
    assert message.startswith(str(tmp_path))
    assert message.endswith("repair or remove it.")
    assert "\n" not in message


def test_a_scale_that_is_none_is_named(tmp_path: Path) -> None:
    for scale in ([0.0, 1.0], [0.5, 0.3], [0.3, 1.2], [0.3]):
        with pytest.raises(ConfigurationError, match="crop_scale"):
            ImageFolderDataModule(str(tmp_path), crop_scale=scale)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(("count", "measured"), [(4, 1), (40, 10), (300, 75), (512, 128), (1000, 128), (5000, 500)])
def test_the_probe_of_a_small_folder_has_a_larger_share(count: int, measured: int) -> None:
    """Embeddings of 32 numbers, as in configs/image_folder.yaml, need twice as many images."""
    assert held_out(count, default_share(count)).sum() == measured


def test_how_to_measure_more_is_known(tmp_path: Path) -> None:
    data = imagenet(tmp_path)
    assert data.probe_advice == f"put more images into {tmp_path / 'val'}"
    assert ImageFolderDataModule(str(tmp_path / "train")).probe_advice == "raise --data.probe_share"


def test_one_class_is_none(tmp_path: Path) -> None:
    for index in range(4):
        write(tmp_path / f"{index}.png")
    assert set(ImageFolderDataModule(str(tmp_path)).make_train()[0]) == {"image"}


class Colors(Recorder):
    """Writes down the left half of an image, as one number, in place of single draws."""

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        pixels = batch["image"][..., :6].flatten(1).double().sum(1)
        return super().training_step({"image": pixels.view(-1, 1, 1, 1).float(), "label": batch["label"]}, batch_idx)


def pictures(root: Path) -> Path:
    """24 pictures of noise, each a class of its own."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 2)):
        for index in range(count):
            path = root / part / f"{index:02d}" / "0.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(generator.integers(0, 255, (30, 40, 3), dtype=np.uint8)).save(path)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{"crop_scale": (0.3, 1.0), "flip": True}, {"flip": True}])
def test_crops_are_the_same_for_any_number_of_workers_and_after_a_resume(
    arguments: dict[str, Any], tmp_path: Path
) -> None:
    root = pictures(tmp_path / "images")

    def seen(folder: str, workers: int, **settings: Any) -> list[Any]:
        data = ImageFolderDataModule(str(root), image_size=12, batch_size=4, num_workers=workers, **arguments)
        return fit(data, tmp_path / folder, module=Colors, **settings).seen

    whole = seen("whole", 0)
    assert len({draw for entry in whole for draw in entry[3]}) > 24  # other crops in the second epoch
    assert seen("workers", 2) == whole
    killed = seen("parts", 1, die_at=8)
    assert killed + seen("parts", 2, resume=True) == whole


def test_a_crop_has_the_share_of_the_area_it_was_told(tmp_path: Path) -> None:
    """The range within a crop is its size, on a picture whose two channels grow along its sides."""
    height, width = 120, 200
    ramp = np.zeros((height, width, 3), dtype=np.uint8)
    ramp[..., 0] = np.linspace(0, 240, height).round()[:, None]
    ramp[..., 1] = np.linspace(0, 240, width).round()[None, :]
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        Image.fromarray(ramp).save(tmp_path / part / "ramp.png")
    data = ImageFolderDataModule(str(tmp_path), image_size=60, crop_scale=(0.3, 0.5), batch_size=1)
    augmented = data.make_augmented()
    assert augmented is not None
    mirrored = 0
    for _ in range(30):
        red, green = augmented[0]["image"][:2] * torch.tensor([0.229, 0.224]).view(2, 1, 1)
        down, right = red[-1, 0] - red[0, 0], green[0, -1] - green[0, 0]
        share = float(down * right) * (255 / 240) ** 2 * (60 / 59) ** 2
        assert 0.27 < share < 0.53
        mirrored += int(right < 0)
    assert not mirrored
    flipping = ImageFolderDataModule(str(tmp_path), image_size=60, flip=True, batch_size=1).make_augmented()
    assert flipping is not None
    right = [float(flipping[0]["image"][1, 0, -1] - flipping[0]["image"][1, 0, 0]) for _ in range(30)]
    assert 5 < sum(value < 0 for value in right) < 25


def test_without_random_views_training_reads_what_baselines_read(tmp_path: Path) -> None:
    data = imagenet(tmp_path)
    data.trainer = Trainer(accelerator="cpu", logger=False, barebones=True)
    loader = data.train_dataloader()
    assert data.make_augmented() is None
    assert loader.dataset is data.reference_dataset()
    assert not loader.pin_memory
