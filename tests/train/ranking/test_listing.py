"""Files that are ranked: folders and lists, odd names, and what identifies them."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.listing import Names, list_images


def write(root: Path, *names: str | bytes) -> Path:
    """Files that look like images by their names, which is all that a listing sees."""
    for name in names:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(b"some bytes")
    return root


def named(root: Path, **settings: Path) -> list[str]:
    listing = list_images(root, **settings)
    return [listing.filename(index) for index in range(len(listing))]


def test_nested_images_have_their_folder_as_class(tmp_path: Path) -> None:
    listing = list_images(write(tmp_path, "b/2.png", "a/c/1.JPG", "top.webp"))
    assert [listing.filename(index) for index in range(3)] == ["a/c/1.JPG", "b/2.png", "top.webp"]
    assert [listing.class_of(index) for index in range(3)] == ["a/c", "b", "."]
    assert listing.path(1) == tmp_path / "b" / "2.png"


def test_flat_images_have_no_class(tmp_path: Path) -> None:
    listing = list_images(write(tmp_path, "10.png", "9.png"))
    assert [listing.class_of(index) for index in range(2)] == [None, None]
    assert list(listing.filenames) == ["10.png", "9.png"]  # in the order of bytes


def test_folders_named_like_images_are_folders_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "folder.png/1.png", ".hidden.png", ".git/2.png", "__MACOSX/3.png")
    assert named(tmp_path) == ["folder.png/1.png"]


def test_loops_and_repeated_folders_are_read_once(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    with pytest.warns(UserWarning, match="^1 link leads to a folder that is read under another name"):
        assert named(tmp_path) == ["a/1.png"]


def test_images_whose_links_lead_nowhere_are_rows_and_not_said_to_be_skipped(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "not there")
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    assert named(tmp_path) == ["a.png", "gone.png", "self.jpg"]  # where warnings are errors
    (tmp_path / "gone.txt").symlink_to(tmp_path / "not there")
    with pytest.warns(UserWarning, match=rf"^Skipped: 1 link that leads to no file .*: {tmp_path.name}/gone\.txt\.$"):
        assert named(tmp_path) == ["a.png", "gone.png", "self.jpg"]


def test_odd_names_reach_the_file_and_the_table(tmp_path: Path) -> None:
    names = [b"latin-\xe9.png", b"new\nline.png", b"spa ce .png", "ü.png".encode()]
    write(tmp_path, *names)
    listing = list_images(tmp_path)
    table = [listing.filename(index) for index in range(4)]
    assert table == ["latin-\\xe9.png", "new\nline.png", "spa ce .png", "ü.png"]
    assert all(name.encode() for name in table)  # what a Parquet file can hold
    assert all(listing.path(index).read_bytes() for index in range(4))


def test_a_list_is_relative_to_its_own_folder_or_absolute(tmp_path: Path) -> None:
    write(tmp_path / "data", "1.png", "deep/2.bin", "ignored.png")
    write(tmp_path / "elsewhere", "3.png")
    lines = ["1.png", "deep/2.bin", "", "missing.png", "./1.png", str(tmp_path / "elsewhere" / "3.png")]
    lines += [str(tmp_path / "data" / "1.png")]
    file = tmp_path / "data" / "files.txt"
    file.write_bytes("\ufeff".encode() + "\r\n".join(lines).encode())
    with pytest.warns(
        UserWarning, match=r"^2 of 6 paths are repeats in the list .*files.txt: each file is ranked once"
    ):
        listing = list_images(listed=file)
    expected = [(tmp_path / "elsewhere" / "3.png").as_posix(), "1.png", "deep/2.bin", "missing.png"]
    assert list(listing.filenames) == expected
    assert listing.path(0).is_file()
    assert listing.path(2).is_file()
    assert not listing.path(3).exists()
    assert listing.class_of(0) == (tmp_path / "elsewhere").as_posix()


def test_a_list_beside_a_folder_is_relative_to_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "data", "a/1.png", "a/2.png")
    (tmp_path / "subset.txt").write_text("a/2.png\n")
    assert named(tmp_path / "data", listed=tmp_path / "subset.txt") == ["a/2.png"]


def test_one_repeat_is_counted_in_the_singular(tmp_path: Path) -> None:
    (tmp_path / "files.txt").write_text("a.png\na.png\n")
    with pytest.warns(UserWarning, match="^1 of 2 paths is a repeat in the list"):
        assert named(tmp_path, listed=tmp_path / "files.txt") == ["a.png"]


def test_nul_bytes_end_names_that_have_line_breaks(tmp_path: Path) -> None:
    write(tmp_path, "new\nline.png", "b.png")
    (tmp_path / "files").write_bytes(b"new\nline.png\0b.png\0")
    assert named(tmp_path, listed=tmp_path / "files") == ["b.png", "new\nline.png"]


def test_the_identity_is_that_of_copies_and_changes_with_names_sizes_and_contents(tmp_path: Path) -> None:
    write(tmp_path / "data", "1.png", "2.png")
    root = shutil.copytree(tmp_path / "data", tmp_path / "copied")
    os.utime(root / "1.png", (1, 1))
    known = [list_images(tmp_path / "data").identity]
    assert list_images(root).identity == known[0]
    (root / "1.png").write_bytes(bytes(40_000))
    known.append(list_images(root).identity)
    for place in (0, 39_999):  # of the same size
        content = bytearray(40_000)
        content[place] = 1
        (root / "1.png").write_bytes(content)
        known.append(list_images(root).identity)
    (root / "2.png").rename(root / "3.png")
    known.append(list_images(root).identity)
    (root / "3.png").chmod(0)
    list_images(root)
    assert len(set(known)) == 5


def test_of_many_files_a_sample_is_read(tmp_path: Path) -> None:
    names = [f"{number:04d}.png" for number in range(1500)]
    for name in names:
        (tmp_path / name).write_bytes(b"a")
    before = list_images(tmp_path).identity
    (tmp_path / names[-1]).write_bytes(b"b")
    after = list_images(tmp_path).identity
    (tmp_path / names[1]).unlink()
    assert len({before, after, list_images(tmp_path).identity}) == 3


def test_names_take_little_memory_and_can_be_pickled() -> None:
    names = [b"class/%07d.png" % index for index in range(1000)]
    kept = Names(names)
    assert list(kept) == [name.decode() for name in names]
    assert kept[-1] == names[-1].decode()
    assert kept[1:3] == [name.decode() for name in names[1:3]]
    assert len(pickle.dumps(kept)) < 1000 * (len(names[0]) + 8) + 1000
    with pytest.raises(IndexError):
        kept[1000]


@pytest.mark.filterwarnings("ignore:Skipped")
def test_what_holds_no_images_ends_in_one_sentence(tmp_path: Path) -> None:
    write(tmp_path, "text.txt", "empty/nothing.md", "image.png")
    (tmp_path / "blank").write_text("\n\n")
    for source, listed, sentence in (
        (tmp_path / "no", None, r"there is no folder .*no: give the folder of the images"),
        (tmp_path / "empty", None, r"empty holds no images, but 1 .md: give the folder that holds them"),
        (tmp_path / "text.txt", None, r"is a file: give the folder of the images, or .* --data.list .*text.txt"),
        (None, None, r"there is nothing to rank: give a folder of images, or --data.list FILE"),
        (None, tmp_path / "no.txt", r"the list .*no.txt cannot be read \(No such file or directory\)"),
        (None, tmp_path / "blank", r"the list .*blank names no files: write one path a line"),
        (tmp_path / "no", tmp_path / "blank", r"there is no folder .*no"),
    ):
        with pytest.raises(ConfigurationError, match=sentence):
            list_images(source, listed=listed)
