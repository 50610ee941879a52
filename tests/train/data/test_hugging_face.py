"""Data sets by name through the package ``datasets``, here of local files alone."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from jepa_train.data import HuggingFaceDataModule, ImageFolderDataModule
from jepa_train.errors import ConfigurationError
from tests.train.data.helpers import fit


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, kept from the network and with a cache of its own."""
    package = pytest.importorskip("datasets", reason="the package datasets is not installed")
    monkeypatch.setattr(package.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(package.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    package.disable_progress_bars()
    return package


def folder(root: Path) -> str:
    """Folders of images, as the builder ``imagefolder`` reads them: ten to train, four to test."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 4)):
        for index in range(count):
            path = root / split / "ab"[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 255, (12, 10, 3), dtype=np.uint8)).save(path)
    return str(root)


def parquet(datasets: Any, root: Path) -> str:
    """A Parquet file whose labels are names, and whose columns have names of their own."""
    pixels = np.random.default_rng(1).integers(0, 255, (6, 9, 9), dtype=np.uint8)
    columns = {"picture": [Image.fromarray(one) for one in pixels], "kind": ["owl", "cat", "owl", "elk", "cat", "owl"]}
    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.Value("string")})
    root.mkdir()
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(root / "train.parquet"))
    return str(root)


def read(dataset: Any) -> list[dict[str, Any]]:
    return [dataset[index] for index in range(len(dataset))]


def test_a_folder_gives_images_and_class_numbers(datasets: Any, tmp_path: Path) -> None:
    data = HuggingFaceDataModule(folder(tmp_path / "images"), image_size=8)
    train, probe = read(data.reference_dataset()), read(data.probe_dataset())
    assert sorted(sample["label"] for sample in train) == 5 * [0] + 5 * [1]
    assert sorted(sample["label"] for sample in probe) == [0, 0, 1, 1]
    assert {sample["image"].shape for sample in train + probe} == {(3, 8, 8)}
    assert type(train[0]["image"]) is torch.Tensor


def test_parts_of_a_split_other_columns_and_names_as_labels(datasets: Any, tmp_path: Path) -> None:
    data = HuggingFaceDataModule(
        parquet(datasets, tmp_path / "file"),
        train_split="train[:4]",
        probe_split="train[4:]",
        image_column="picture",
        label_column="kind",
        image_size=9,
    )
    assert sorted(sample["label"] for sample in read(data.reference_dataset())) == [0, 1, 2, 2]
    probe = {sample["label"]: sample["image"] for sample in read(data.probe_dataset())}
    assert set(probe) == {0, 2}
    grey = probe[0] * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    grey = grey + torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    written = np.random.default_rng(1).integers(0, 255, (6, 9, 9), dtype=np.uint8)[4] / 255.0
    np.testing.assert_allclose(grey.numpy(), np.stack(3 * [written]), atol=1e-6)


def test_both_image_data_modules_agree_on_the_same_files(datasets: Any, tmp_path: Path) -> None:
    root = Path(folder(tmp_path / "images"))
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    pixels = np.random.default_rng(1).integers(0, 255, (12, 10, 4), dtype=np.uint8)
    Image.fromarray(pixels[..., :3]).save(root / "train/a/turned.jpg", exif=upside_down)
    Image.fromarray(pixels).save(root / "train/a/transparent.PNG")
    Image.fromarray(pixels[..., 0].astype(np.uint16) << 8).save(root / "train/b/sixteen.png")
    Image.fromarray(pixels[..., 0]).save(root / "train/b/grey.tif")
    Image.fromarray(pixels[:1, :, :3].repeat(40, 1)).save(root / "train/b/thin.webp")
    for hidden in ("a/._turned.jpg", ".ipynb_checkpoints/0.png", "__MACOSX/0.png"):
        (root / "train" / hidden).parent.mkdir(exist_ok=True)
        (root / "train" / hidden).write_bytes(b"no image")
    by_folder = ImageFolderDataModule(str(root), image_size=8, background="#123456")
    by_name = HuggingFaceDataModule(str(root), image_size=8, background="#123456")
    for part in ("reference_dataset", "probe_dataset"):
        ours, theirs = (
            sorted((one["label"], *one["image"].flatten().tolist()) for one in read(getattr(data, part)()))
            for data in (by_folder, by_name)
        )
        assert len(ours) == (15 if part == "reference_dataset" else 4)
        assert ours == theirs
    assert by_folder.preparation() == by_name.preparation()


# datasets 5.2 leaves the file of an image open that cannot be decoded
@pytest.mark.filterwarnings("ignore:unclosed file .*0.png:ResourceWarning")
def test_a_row_that_is_no_image_is_named(datasets: Any, tmp_path: Path) -> None:
    root = Path(folder(tmp_path / "images"))
    (root / "train" / "a" / "0.png").write_bytes((root / "train" / "a" / "0.png").read_bytes()[:60])
    with pytest.raises(ConfigurationError, match=r"row \d+ of the data set cannot be read .*: repair or remove it\."):
        read(HuggingFaceDataModule(str(root), image_size=8).reference_dataset())
    gc.collect()  # the file is noticed here, and not in the test that runs next


def test_labels_can_be_left_out(datasets: Any, tmp_path: Path) -> None:
    data = HuggingFaceDataModule(folder(tmp_path / "images"), label_column=None, image_size=8)
    assert set(data.reference_dataset()[0]) == {"image"}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_crops_are_the_same_for_any_number_of_workers_and_after_a_resume(datasets: Any, tmp_path: Path) -> None:
    name = folder(tmp_path / "images")

    def seen(run: str, workers: int, **settings: Any) -> list[Any]:
        data = HuggingFaceDataModule(
            name, image_size=8, crop_scale=(0.3, 1.0), flip=True, batch_size=2, num_workers=workers
        )
        return fit(data, tmp_path / run, **settings).seen

    whole = seen("whole", 0)
    assert len({draw for entry in whole for draw in entry[3]}) > 10
    assert seen("parts", 1, die_at=7) + seen("parts", 1, resume=True) == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_split": "training"}, r"split 'training' of .* cannot be loaded: .*train.*test"),
        ({"config_name": "large"}, r"cannot be loaded: .*large.*default"),
        ({"image_column": "picture"}, r"no column of images 'picture': set --data.image_column to one of \['image'\]"),
        ({"image_column": "label"}, r"no column of images 'label'"),
        ({"label_column": "kind"}, r"no column 'kind': set --data.label_column to one of \['image', 'label'\]"),
        ({"name": "no/such"}, r"split 'train' of the data set 'no/such' cannot be loaded: .*no/such"),
    ],
)
def test_mistakes_are_one_sentence_that_names_what_there_is(
    arguments: dict[str, Any], message: str, datasets: Any, tmp_path: Path
) -> None:
    data = HuggingFaceDataModule(**{"name": folder(tmp_path / "images"), **arguments})
    with pytest.raises(ConfigurationError, match=message) as raised:
        data.prepare_data()
    assert "\n" not in str(raised.value)


def test_a_data_set_that_is_a_script_is_one_sentence(datasets: Any, tmp_path: Path) -> None:
    (tmp_path / "scripted").mkdir()
    (tmp_path / "scripted" / "scripted.py").write_text("raise SystemExit\n")
    with pytest.raises(ConfigurationError, match=r"split 'train' of .*scripted.* cannot be loaded: .*script") as raised:
        HuggingFaceDataModule(str(tmp_path / "scripted")).prepare_data()
    assert "\n" not in str(raised.value)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigurationError, match=r"pip install -e '\.\[hub\]'"):
        HuggingFaceDataModule("any").prepare_data()
