"""Damage within a checkpoint, down to a single bit, is noticed by whoever reads it."""

from __future__ import annotations

import random
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from jepa_train.checkpoints.files import AtomicCheckpointIO, read_checkpoint
from jepa_train.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("own_folder")

DAMAGED = {
    "nothing on the stack": (b"\x80\x02.", IndexError),
    "a memo that is not there": (b"\x80\x02h\x07.", KeyError),
    "a call without arguments": (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", TypeError),
    "a tensor of an integer": (b"\x80\x02K\x01Q.", AssertionError),
    "a number cut off": (b"\x80\x02M\x01", struct.error),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_within_the_file_is_the_same_sentence(kind: str, trained: Path) -> None:
    steps, error = DAMAGED[kind]
    with zipfile.ZipFile(trained) as whole, zipfile.ZipFile("bad.ckpt", "w") as damaged:
        for name in whole.namelist():
            damaged.writestr(name, steps if name.endswith("/data.pkl") else whole.read(name))
    with pytest.raises(error):
        torch.load("bad.ckpt", weights_only=True, mmap=True)
    with pytest.raises(ConfigurationError, match=r"^bad.ckpt is not a whole checkpoint \(it is cut off, damaged, or"):
        read_checkpoint(Path("bad.ckpt"))


def test_a_single_bit_is_noticed_wherever_it_lies(trained: Path) -> None:
    """Bits of what is kept; those of an archive's directory that change nothing of it may differ."""
    content = bytearray(trained.read_bytes())
    with zipfile.ZipFile(trained) as whole:
        records = [record for record in whole.infolist() if record.file_size]
    draw = random.Random(0)
    for _ in range(100):
        record = draw.choice(records)
        # behind its name and padding, whose lengths stand at 26 and 28 of its header
        name, padding = struct.unpack_from("<HH", content, record.header_offset + 26)
        place = record.header_offset + 30 + name + padding + draw.randrange(record.file_size)
        bit = 1 << draw.randrange(8)
        content[place] ^= bit
        Path("bad.ckpt").write_bytes(content)
        content[place] ^= bit
        with pytest.raises(
            ConfigurationError, match=r"^bad.ckpt is not a whole checkpoint \(it is cut off, damaged, or"
        ):
            read_checkpoint(Path("bad.ckpt"))


def weights_or_refusal(path: Path) -> dict[str, torch.Tensor] | str:
    """Weights of a checkpoint, or the sentence with which it is refused."""
    try:
        weights: dict[str, torch.Tensor] = read_checkpoint(path)["state_dict"]
    except ConfigurationError as error:
        return str(error)
    return weights


def test_damage_anywhere_is_the_sentence_or_changes_nothing(trained: Path) -> None:
    """Headers and directory too, of which some bits mean nothing."""
    content = bytearray(trained.read_bytes())
    good = read_checkpoint(trained)["state_dict"]
    draw = random.Random(0)
    directory = len(content) - 8_000
    for place in [draw.randrange(directory, len(content)) for _ in range(60)]:
        content[place] ^= 1 << (place % 8)
        Path("bad.ckpt").write_bytes(content)
        content[place] ^= 1 << (place % 8)
        read = weights_or_refusal(Path("bad.ckpt"))
        if isinstance(read, str):
            assert "is not a whole checkpoint" in read
        else:
            assert all(torch.equal(weight, read[name]) for name, weight in good.items())


def test_a_record_that_claims_to_be_compressed_is_the_same_sentence(trained: Path) -> None:
    """One bit of the archive's directory."""
    content = bytearray(trained.read_bytes())
    with zipfile.ZipFile(trained) as whole:
        directory = whole.start_dir
    content[directory + 10] ^= 8  # the method of the first record: stored becomes deflated
    Path("bad.ckpt").write_bytes(content)
    with pytest.raises(ConfigurationError, match="is not a whole checkpoint"):
        read_checkpoint(Path("bad.ckpt"))


def test_a_tensor_of_the_wrong_kind_is_the_same_sentence(trained: Path) -> None:
    """A type that became another by damage: AttributeError."""
    with zipfile.ZipFile(trained) as whole, zipfile.ZipFile("bad.ckpt", "w") as damaged:
        for name in whole.namelist():
            content = whole.read(name)
            damaged.writestr(name, content.replace(b"ctorch\nFloatStorage\n", b"X\x03\x00\x00\x00abc"))
    with pytest.raises(AttributeError):
        torch.load("bad.ckpt", weights_only=True, mmap=True)
    with pytest.raises(ConfigurationError, match="is not a whole checkpoint"):
        read_checkpoint(Path("bad.ckpt"))


def test_lightning_reads_with_the_same_checks(trained: Path) -> None:
    content = bytearray(trained.read_bytes())
    content[len(content) // 2] ^= 1
    Path("bad.ckpt").write_bytes(content)
    io = AtomicCheckpointIO()
    with pytest.raises(ConfigurationError, match=r"bad.ckpt is not a whole checkpoint"):
        io.load_checkpoint(Path("bad.ckpt"))
    with pytest.raises(ConfigurationError, match="there is no checkpoint"):
        io.load_checkpoint(Path("missing.ckpt"))
    loaded = io.load_checkpoint(f"file://{trained}")
    trained_weights = torch.load(trained, weights_only=True)["state_dict"]
    assert all(torch.equal(weight, loaded["state_dict"][name]) for name, weight in trained_weights.items())
