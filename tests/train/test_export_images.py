"""The input of an exported encoder: timm's transform of its folder gives what the DataModule gave."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import timm
import torch
from PIL import ExifTags, Image
from sklearn.datasets import load_digits
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor

from jepa_train.data import DigitsDataModule, FashionMNISTDataModule, ImageFolderDataModule, MixtureDataModule
from jepa_train.data.base import ImageDataModule
from jepa_train.export import export
from jepa_train.module import JEPA
from tests.train.data.helpers import write_idx
from tests.train.helpers import saved_by

SIZE = 24
PIXELS = np.random.default_rng(0).integers(0, 256, (61, 47, 4), dtype=np.uint8)
PLAIN = {
    "rgb.png": Image.fromarray(PIXELS[..., :3]),
    "small.png": Image.fromarray(PIXELS[:9, :7, :3]),
    "square.webp": Image.fromarray(PIXELS[:SIZE, :SIZE, :3]),
    "wide.jpg": Image.fromarray(PIXELS[:12, ..., :3]),
    "thin.png": Image.fromarray(PIXELS[:1, ..., :3]),
    "grey.png": Image.fromarray(PIXELS[..., 0]),
    "bits.png": Image.fromarray(PIXELS[..., 0]).convert("1"),
    "palette.png": Image.fromarray(PIXELS[..., :3]).quantize(32),
    "cmyk.jpg": Image.fromarray(PIXELS[..., :3]).convert("CMYK"),
}
OTHERS = {  # for which timm documents nothing but convert("RGB")
    "transparent.png": Image.fromarray(PIXELS),
    "grey_transparent.png": Image.fromarray(PIXELS[..., :2], mode="LA"),
    "sixteen.png": Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 250),
    "float.tif": Image.fromarray(PIXELS[..., 0].astype(np.float32) / 7),
    "turned.jpg": Image.fromarray(PIXELS[..., :3]),
}


def exported(data: ImageDataModule, folder: Path) -> Any:
    """The timm model of a checkpoint that a run on these data writes after one step."""
    small = {"embed_dim": 16, "depth": 1, "num_heads": 2}
    module = JEPA(
        image_size=data.image_size,
        channels=data.channels,
        patch_size=data.image_size // 4,
        encoder_overrides=small,
        projector_hidden=8,
        context_scale=(0.9, 1.0),
        target_scale=(0.05, 0.1),
        num_targets=1,
        min_context=1,
    )
    trainer = pl.Trainer(
        max_steps=1,
        limit_val_batches=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(module, data)
    trainer.save_checkpoint(folder / "one.ckpt")
    export(folder / "one.ckpt", folder / "exported" / "model.safetensors")
    return timm.create_model(f"local-dir:{folder / 'exported'}", pretrained=True).eval()


def images_by_path(data: ImageFolderDataModule) -> dict[str, Tensor]:
    found = {}
    for part in (data.make_train(), data.make_probe()):
        paths = part._paths.tolist()  # type: ignore[attr-defined]  # of ImageFiles
        found |= {path.decode(): part[index]["image"] for index, path in enumerate(paths)}
    return found


def test_files_of_any_size_and_mode_are_prepared_as_the_data_module_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = 6
    for name, picture in {**PLAIN, **OTHERS}.items():
        picture.save(images / name, **({"exif": tags} if name == "turned.jpg" else {}))
    data = ImageFolderDataModule(str(images), image_size=SIZE, background="#204060", batch_size=4, num_workers=0)
    vit = exported(data, tmp_path)
    config = resolve_data_config({}, model=vit)
    assert list(config["input_size"]) == [3, SIZE, SIZE]
    transform = create_transform(**config)
    expected = images_by_path(data)
    assert expected.keys() == PLAIN.keys() | OTHERS.keys()
    for name in PLAIN:
        assert torch.equal(transform(Image.open(images / name).convert("RGB")), expected[name]), name

    monkeypatch.chdir(tmp_path / "exported")
    names: dict[str, Any] = {}
    card = Path("model.md").read_text()
    for code in re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL):
        exec(code, names)
    (line,) = re.findall(r"with `(image = transform\(.*\))`", card)
    for name in expected:
        exec(line, names | {"path": images / name}, found := {})
        assert torch.equal(found["image"], expected[name]), name
        if name in OTHERS:
            assert not torch.equal(transform(Image.open(images / name).convert("RGB")), expected[name]), name


@pytest.mark.parametrize("kind", ["fashion", "digits", "mixture"])
def test_data_in_memory_are_prepared_with_one_mean_a_channel(kind: str, tmp_path: Path) -> None:
    if kind == "fashion":
        write_idx(tmp_path / "idx")
        data: ImageDataModule = FashionMNISTDataModule(str(tmp_path / "idx"), contrast=0.25)
        raw, _ = data._fashion("train")  # type: ignore[attr-defined]  # the pixels as they are in the files
        pictures: list[Any] = [Image.fromarray(image.numpy()) for image in raw]
    elif kind == "digits":
        data = DigitsDataModule(contrast=0.5)
        digits = torch.from_numpy(load_digits().images).float().unsqueeze(1) / 16
        pictures = [digit for place, digit in enumerate(digits) if place % 6]
    else:
        data = MixtureDataModule(num_train=128, num_probe=4)
        pictures = list(data.make_train().images)
    vit = exported(data, tmp_path)
    config = resolve_data_config({}, model=vit)
    assert len(config["mean"]) == len(config["std"]) == 1
    transform = create_transform(**config)
    prepared = torch.stack([transform(picture) for picture in pictures])
    assert torch.equal(prepared, data.make_train().images)  # type: ignore[attr-defined]  # of ImageTensors


def test_a_model_without_a_projector_has_none_and_leaves_none(tmp_path: Path) -> None:
    data = MixtureDataModule(num_train=128, num_probe=4)
    exported(data, tmp_path)
    projector = tmp_path / "exported" / "projector" / "model.safetensors"
    assert projector.is_file()
    plain = JEPA(
        image_size=16,
        channels=1,
        patch_size=4,
        encoder_overrides={"embed_dim": 16, "depth": 1, "num_heads": 2},
        embedding_weight=0.0,
        anticollapse="none",
        anticollapse_weight=0.0,
    )
    saved_by(plain, tmp_path / "plain.ckpt")
    with pytest.warns(UserWarning, match=r"plain.ckpt does not say how images were prepared .* take ImageNet's values"):
        written = export(tmp_path / "plain.ckpt", tmp_path / "exported" / "model.safetensors", overwrite=True)
    assert len(written) == 3
    assert not projector.exists()
    assert "## Embedding" not in (tmp_path / "exported" / "model.md").read_text()
    assert "Not recorded: how images were prepared" in (tmp_path / "exported" / "model.md").read_text()
    assert "mean" not in json.loads((tmp_path / "exported" / "config.json").read_text())["pretrained_cfg"]
