"""Encoders of this package: checkpoints and exports give one embedding, prepared alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa_train.checkpoints.files import read_checkpoint
from jepa_train.errors import ConfigurationError
from jepa_train.export import export, rebuilt
from jepa_train.module import JEPA
from jepa_train.ranking.encoders import load_encoder
from tests.train.helpers import TINIEST, saved_by
from tests.train.ranking.helpers import picture, written_checkpoint

IMAGES = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("hidden", [0, 8])
def test_a_checkpoint_and_its_export_give_z_and_are_prepared_alike(hidden: int, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    written_checkpoint(path, projector_hidden=hidden)
    export(path, tmp_path / "exported" / "model.safetensors")
    with torch.no_grad():
        z = rebuilt(read_checkpoint(path), path)(IMAGES)
        for name in (path, tmp_path / "exported", tmp_path / "exported" / "model.safetensors"):
            encoder = load_encoder(str(name))
            torch.testing.assert_close(encoder.module(IMAGES), z, rtol=1e-5, atol=1e-6)
            assert encoder.preparation["pooling"] == "projection"
            assert encoder.preparation["input_size"] == [1, 16, 16]
            assert encoder.preparation["mean"] == load_encoder(str(path)).preparation["mean"]
    grey = encoder.prepare(picture())
    assert grey.shape == (1, 16, 16)
    assert torch.equal(grey, load_encoder(str(path)).prepare(picture()))


@pytest.mark.parametrize(
    ("name", "overrides"), [("test_resnet", {}), ("test_convnext", {"patch_size": 1, "stem_type": "patch"})]
)
def test_encoders_of_other_families_give_z_too(name: str, overrides: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    whole = {"token_weight": 0.0, "embedding_weight": 0.0, "centre_weight": 1.0}
    written_checkpoint(path, encoder=name, encoder_overrides=overrides, **whole)
    export(path, tmp_path / "exported" / "model.safetensors")
    module = rebuilt(read_checkpoint(path), path)
    with torch.no_grad():
        for place in (path, tmp_path / "exported"):
            z, features = (load_encoder(str(place), pooling=pooling).module(IMAGES) for pooling in ("auto", "mean"))
            torch.testing.assert_close(z, module(IMAGES), rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(features, module.features(IMAGES), rtol=1e-5, atol=1e-6)


def test_a_checkpoint_with_a_convolutional_stem_is_ranked(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    written_checkpoint(path, stem="convolutional")
    with torch.no_grad():
        z = rebuilt(read_checkpoint(path), path)(IMAGES)
        torch.testing.assert_close(load_encoder(str(path)).module(IMAGES), z, rtol=1e-5, atol=1e-6)


def test_mean_is_the_token_before_the_projector(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    written_checkpoint(path)
    export(path, tmp_path / "exported" / "model.safetensors")
    with torch.no_grad():
        features = rebuilt(read_checkpoint(path), path).features(IMAGES)
        assert torch.equal(load_encoder(str(path), pooling="mean").module(IMAGES), features)
        exported = load_encoder(str(tmp_path / "exported"), pooling="mean")
        torch.testing.assert_close(exported.module(IMAGES), features, rtol=1e-5, atol=1e-6)
    assert any("1 direction of" in note for note in exported.notes)
    with pytest.raises(ConfigurationError, match=r"no pooling 'cls': choose auto \(z, .*\) or mean"):
        load_encoder(str(path), pooling="cls")


def test_the_color_behind_transparent_pixels_is_the_trainings(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    written_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["MixtureDataModule"]["background"] = "#204060"
    torch.save(checkpoint, path)
    export(path, tmp_path / "exported" / "model.safetensors")
    for name in (path, tmp_path / "exported"):
        assert load_encoder(str(name)).preparation["background"] == "#204060"


def test_what_a_checkpoint_does_not_say_is_guessed_and_said(tmp_path: Path) -> None:
    path = tmp_path / "old.ckpt"
    saved_by(JEPA(**TINIEST), path)
    encoder = load_encoder(str(path))
    assert encoder.notes[-1].startswith("old.ckpt does not say how images were prepared: ImageNet's")
    assert encoder.preparation["mean"] == [pytest.approx(0.449)]
    with pytest.warns(UserWarning, match="does not say"):
        export(path, tmp_path / "exported" / "model.safetensors")
    exported = load_encoder(str(tmp_path / "exported"))
    assert "does not say how images were prepared" in exported.notes[-1]
    assert exported.preparation["mean"] == encoder.preparation["mean"]


def test_random_weights_of_a_checkpoints_model_are_a_control(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    written_checkpoint(path)
    trained, control, again = (load_encoder(name) for name in (str(path), f"random:{path}", f"random:{path}"))
    assert control.identity == again.identity != trained.identity
    assert control.preparation == trained.preparation
    assert control.notes[-1] == "Its weights are random: a control, not a ranking to use."


def test_what_cannot_be_loaded_ends_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    written_checkpoint(path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text(json.dumps({"architecture": "none_such"}))
    for name, size, sentence in (
        (path, 32, r"last.ckpt was trained at 16 px: leave image_size out"),
        (tmp_path / "run", None, r"is the folder of a run: give its checkpoint, such as .*last.ckpt"),
        (tmp_path / "empty", None, r"is no folder of an encoder, because it has no config.json"),
        (tmp_path / "foreign", None, r"names the architecture 'none_such', which timm does not know"),
    ):
        with pytest.raises(ConfigurationError, match=sentence):
            load_encoder(str(name), image_size=size)


def test_a_damaged_projector_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    written_checkpoint(path)
    export(path, tmp_path / "exported" / "model.safetensors")
    (tmp_path / "exported" / "projector" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ConfigurationError, match=r"is no projector of an export .*: export again"):
        load_encoder(str(tmp_path / "exported"))
