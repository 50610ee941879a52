"""Files below a folder that are images, and folders that are training images and probe."""

from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jepa_train.data import ImageFolderDataModule
from jepa_train.data.folders import EXTENSIONS, find_splits, readable_images, warn_of_skipped
from jepa_train.errors import ConfigurationError


def write(root: Path, *names: str) -> Path:
    """A small image under each of the names."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path, format="PNG")
    return root


def folders(root: Path) -> tuple[set[str], set[str]]:
    """Folders that training images and probe lie in, relative to root."""
    data = ImageFolderDataModule(str(root), probe_share=0.5)
    parts = (data.make_train(), data.make_probe())
    found = []
    for part in parts:
        paths = [Path(part.root) / os.fsdecode(path) for path in part._paths]  # type: ignore[attr-defined]
        found.append({os.fspath(path.parent.relative_to(root)) for path in paths})
    return found[0], found[1]


def test_unreadable_files_of_a_small_folder_are_named(tmp_path: Path) -> None:
    write(tmp_path, "0.png", "1.png", "2.PNG", "deep/broken.png")
    (tmp_path / "deep" / "broken.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"^1 unreadable file is left out: deep/broken.png\.$"):
        assert readable_images(tmp_path).paths == ["0.png", "1.png", "2.PNG"]


def test_of_a_big_folder_no_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(4):
        (tmp_path / f"{index}.png").write_bytes(b"no image")
    (tmp_path / "._3.png").write_bytes(b"what macOS writes beside an image on other file systems")
    opened: list[Any] = []
    monkeypatch.setattr(Image, "open", opened.append)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert readable_images(tmp_path, check_at_most=3).paths == ["0.png", "1.png", "2.png", "3.png"]
    assert not opened


def test_hidden_files_and_folders_are_no_images(tmp_path: Path) -> None:
    write(tmp_path, "cat/0.png", "dog/1.png", "__init__.png")
    hidden = (
        "cat/.0.png",
        "cat/._0.png",
        ".ipynb_checkpoints/0.png",
        "dog/.thumbnails/large/1.png",
        "__MACOSX/cat/0.png",
    )
    write(tmp_path, *hidden)
    assert readable_images(tmp_path).paths == ["__init__.png", "cat/0.png", "dog/1.png"]
    assert set().union(*folders(write(tmp_path, "cat/2.png", "dog/3.png"))) == {".", "cat", "dog"}


def test_files_that_are_skipped_are_counted_once(tmp_path: Path) -> None:
    write(tmp_path, "train/a/0.png", "train/b/0.png", "val/a/0.png", "val/b/0.png")
    for name in ("train/labels.txt", "train/a/1.HEIC", "val/2.heic", "val/LICENSE"):
        (tmp_path / name).touch()
    data = ImageFolderDataModule(str(tmp_path))
    for name in ("train/a/2.png", "val/b/3.png"):  # as git-annex leaves what is not fetched
        (tmp_path / name).symlink_to(tmp_path / ".git" / "annex" / "objects" / "0")
    message = (
        r"^Skipped: 4 files whose names are not those of images \(2 .heic, 1 .txt, 1 without a suffix\), and 2 links "
        r"that lead to no file \(are the files fetched\?\): train/a/2.png, val/b/3.png\.$"
    )
    with pytest.warns(UserWarning, match=message):
        data.make_train()
    data.make_probe()  # where warnings are errors


@pytest.mark.parametrize(
    ("count", "unreadable", "skipped", "repeated"),
    [
        (
            1,
            "1 unreadable file is left out: 0.jpg.",
            "Skipped: 1 file whose name is not that of an image (1 .txt), and 1 link that leads to no file (is the "
            "file fetched?): root/0.gif.",
            "1 link leads to a folder that is read under another name, and is left out: 0.",
        ),
        (
            6,
            "6 unreadable files are left out: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, 5.jpg.",
            "Skipped: 6 files whose names are not those of images (6 .txt), and 6 links that lead to no file (are the "
            "files fetched?): root/0.gif, root/1.gif, root/2.gif, root/3.gif, root/4.gif and 1 more.",
            "6 links lead to folders that are read under another name, and are left out: 0, 1, 2, 3, 4 and 1 more.",
        ),
    ],
)
def test_what_is_left_out_is_counted_in_singular_and_plural(
    tmp_path: Path, count: int, unreadable: str, skipped: str, repeated: str
) -> None:
    root = write(tmp_path / "root", "0.png", "1.png")
    for number in range(count):
        (root / f"{number}.jpg").write_bytes(b"no image")
        (root / f"{number}.txt").touch()
        (root / f"{number}.gif").symlink_to(root / "nothing")
        (root / f"{number}").symlink_to(root)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warn_of_skipped(readable_images(root))
    assert [str(warning.message) for warning in said] == [repeated, unreadable, skipped]


def test_every_suffix_is_one_that_pillow_reads() -> None:
    known = Image.registered_extensions()
    assert {suffix for suffix, format in known.items() if format in Image.OPEN} >= EXTENSIONS


def test_a_folder_that_links_lead_to_is_read_once(tmp_path: Path) -> None:
    root, elsewhere = write(tmp_path / "images", "cat/0.png", "owl/1.png"), write(tmp_path / "store", "2.png")
    (root / "elk").symlink_to(elsewhere)
    (root / "cat" / "loop").symlink_to(root)
    (root / "ant").symlink_to(root / "owl")  # before owl by name, but owl is the folder's own
    (root / "self").symlink_to(root / "self")
    (root / "gone.png").symlink_to(root / "nothing")
    (root / "same.png").symlink_to(elsewhere / "2.png")
    with pytest.warns(
        UserWarning, match=r"^2 links lead to folders that are read under another name, .*: ant, cat/loop\."
    ):
        assert readable_images(root).paths == ["cat/0.png", "elk/2.png", "owl/1.png", "same.png"]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    for call in (readable_images, find_splits):
        with pytest.raises(
            ConfigurationError, match=r"there is no folder .*no: point --data.root at a folder of images"
        ):
            call(tmp_path / "no")
    write(tmp_path, "only.png")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    with pytest.raises(
        ConfigurationError,
        match=r"holds 1 readable image \(and 1 .txt and 1 link that leads to no file .*: gone.png\); training and prob",
    ):
        readable_images(tmp_path)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "0.png", "secret/1.png")
    listed = os.scandir

    def refuse(folder: Path) -> Any:  # as with chmod 0, from which root reads all the same
        if Path(folder).name == "secret":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return listed(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ConfigurationError, match=r"the folder .*secret cannot be read \(Permission denied\)"):
        readable_images(tmp_path)


@pytest.mark.parametrize(
    ("train", "probe"),
    [
        ("train", "val"),
        ("Train", "Val"),
        ("TRAIN", "test"),
        ("training", "testing"),
        ("training", "validation"),
        ("train2017", "val2017"),
        ("train_images", "test_images"),
        ("seg_train", "seg_test"),
        ("images/train", "images/val"),
        ("tiny-imagenet-200/train", "tiny-imagenet-200/val"),
        ("data/images/train", "data/images/val"),
        ("ILSVRC/Data/CLS-LOC/train", "ILSVRC/Data/CLS-LOC/val"),
        ("trainset", "valset"),
        ("TrainingSet", "TestSet"),
        ("traindata", "val"),
        ("training_images", "Test"),
        ("trainval", "test"),
        ("trainA", "testA"),
    ],
)
def test_training_images_and_probe_are_found_by_their_names(train: str, probe: str, tmp_path: Path) -> None:
    names = [f"{part}/{kind}/{index}.png" for part in (train, probe) for kind in ("cat", "dog") for index in range(2)]
    write(tmp_path, *names)
    assert folders(tmp_path) == (
        {f"{train}/cat", f"{train}/dog"},
        {f"{probe}/cat", f"{probe}/dog"},
    )
    data = ImageFolderDataModule(str(tmp_path))
    for part in (data.make_train(), data.make_probe()):
        assert sorted(part[index]["label"] for index in range(4)) == [0, 0, 1, 1]  # type: ignore[index]


def test_labels_of_boxes_beside_the_images_are_no_data_set(tmp_path: Path) -> None:
    write(tmp_path, "images/train/0.png", "images/val/1.png")
    for name in ("labels/train/0.txt", "labels/val/1.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert folders(tmp_path) == ({"images/train"}, {"images/val"})


def test_a_known_word_within_another_is_none(tmp_path: Path) -> None:
    """And bullet_train is no training set to the probe test_tube."""
    write(tmp_path, *(f"{name}/{index}.png" for name in ("trainer", "bullet_train", "test_tube") for index in range(4)))
    assert folders(tmp_path) == (2 * ({"trainer", "bullet_train", "test_tube"},))


def test_classes_with_splits_of_their_own_are_refused(tmp_path: Path) -> None:
    write(tmp_path, *(f"{kind}/{part}/0.png" for kind in ("cat", "dog") for part in ("train", "val")))
    with pytest.raises(
        ConfigurationError, match=r"2 folders of .* a probe of their own \(cat, dog\): point --data.root"
    ):
        find_splits(tmp_path)


def test_folders_that_are_left_out_are_named(tmp_path: Path) -> None:
    write(tmp_path, "set/train/0.png", "set/val/1.png", "set/test/2.png", "set/more/3.png", "other/4.png")
    with pytest.warns(
        UserWarning, match="2 folders of .*, neither training images nor probe, are left out: 'other', 'set/more'."
    ):
        assert find_splits(tmp_path) == (tmp_path / "set" / "train", tmp_path / "set" / "val")


def test_of_two_names_that_differ_in_capitals_one_is_named(tmp_path: Path) -> None:
    write(tmp_path, "train/0.png", "Val/1.png", "val/2.png")
    if len(os.listdir(tmp_path)) == 2:
        pytest.skip("this file system knows no capitals")
    with pytest.warns(UserWarning, match=r"^1 folder of .*, neither training images nor probe, is left out: 'Val'\.$"):
        assert find_splits(tmp_path) == (tmp_path / "train", tmp_path / "val")


def test_a_name_that_is_alike_in_every_word_comes_first(tmp_path: Path) -> None:
    write(tmp_path, "train_images/0.png", "test_images/1.png", "val/2.png")
    assert find_splits(tmp_path) == (tmp_path / "train_images", tmp_path / "test_images")


def test_links_to_a_folder_above_are_no_further_splits(tmp_path: Path) -> None:
    write(tmp_path, "data/images/train/0.png", "data/images/val/1.png")
    (tmp_path / "again").symlink_to(tmp_path)
    with pytest.warns(UserWarning, match="left out: 'again'"):
        assert find_splits(tmp_path) == (tmp_path / "data/images/train", tmp_path / "data/images/val")


def test_splits_that_are_not_known_are_not_mixed_without_a_word(tmp_path: Path) -> None:
    names = [f"{part}/{kind}/0.png" for part in ("2019/train", "2020/test_v2") for kind in ("cat", "dog")]
    data = ImageFolderDataModule(str(write(tmp_path, *names)))
    with pytest.warns(
        UserWarning, match=r"^Images below 'train' and below 'test_v2' are mixed, and .* name them train"
    ):
        data.make_train()
