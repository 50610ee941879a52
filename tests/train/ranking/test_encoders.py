"""Encoders of images by name: what a name stands for, and what comes with it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.encoders import GREY, load_encoder
from tests.train.ranking.helpers import picture, written_weights


def test_an_encoder_has_all_that_its_embeddings_depend_on() -> None:
    encoder = load_encoder("random:test_vit.r160_in1k", image_size=64)
    assert json.loads(json.dumps(encoder.preparation)) == encoder.preparation
    assert encoder.preparation == {
        "input_size": [3, 64, 64],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "background": "white",
        "pooling": "own",
        "embedding_size": 64,
    }
    prepared = encoder.prepare(picture())
    assert prepared.shape == (3, 64, 64)
    assert torch.equal(pickle.loads(pickle.dumps(encoder.prepare))(picture()), prepared)
    z = encoder.module(prepared[None])
    assert z.shape == (1, 64)
    assert not z.requires_grad
    assert not encoder.module.training
    assert encoder.name == "random:test_vit.r160_in1k"
    assert encoder.identity == load_encoder("random:test_vit.r160_in1k", image_size=64).identity
    assert encoder.identity != load_encoder("random:test_vit.r160_in1k", image_size=80).identity
    assert encoder.identity != load_encoder("random:test_vit", image_size=64, pooling="mean").identity


def test_the_same_weights_are_the_same_encoder_wherever_they_lie(tmp_path: Path) -> None:
    model = written_weights(tmp_path / "weights.safetensors")
    folder = tmp_path / "folder"
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    names = [
        f"test_vit.r160_in1k={tmp_path / 'weights.safetensors'}",
        str(folder),
        f"local-dir:{folder}",
        str(folder / "model.safetensors"),
    ]
    encoders = [load_encoder(name) for name in names]
    assert len({encoder.identity for encoder in encoders}) == 1
    images = torch.randn(2, 3, 160, 160)
    assert torch.equal(encoders[0].module(images), model.reset_classifier(0) or model(images))  # type: ignore[operator]


def test_a_name_of_timm_goes_before_a_folder_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    Path("test_vit").mkdir()
    for name in ("test_vit", "timm/test_vit"):
        with pytest.raises(ConfigurationError, match="the weights of test_vit cannot be fetched"):
            load_encoder(name)
    with pytest.raises(ConfigurationError, match="test_vit is no folder of an encoder"):
        load_encoder("./test_vit")


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("none.ckpt", {}, r"there is no file or folder none.ckpt: give the path"),
        ("./none", {}, r"there is no file or folder ./none: give the path"),
        ("facebook/dinov2-small", {}, r"a repository of the Hugging Face hub is hf-hub:facebook/dinov2-small"),
        ("timm/vit_none_such", {}, r"there is no file, no folder and no timm model 'vit_none_such'"),
        ("test_vit=none.pth", {}, r"there is no file none.pth: give that of the weights"),
        ("random:none", {}, r"random:none must name a model of timm's registry or a checkpoint"),
        ("test_vit", {"pooling": "sum"}, r"pooling must be one of auto, own, cls, mean, map, projection, got 'sum'"),
        ("test_vit", {"image_size": 0}, r"image_size must be 1 pixel or more, got 0"),
        (
            "random:test_vit",
            {"image_size": 3},
            r"random:test_vit cannot|timm cannot build the encoder test_vit at 3 px",
        ),
    ],
)
def test_what_is_no_encoder_ends_in_one_sentence(name: str, settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        load_encoder(name, **settings)  # type: ignore[arg-type]


def test_weights_of_which_nothing_says_the_model_are_refused(tmp_path: Path) -> None:
    written_weights(tmp_path / "weights.safetensors")
    with pytest.raises(ConfigurationError, match=r"of which model .*: give NAME=.*weights.safetensors"):
        load_encoder(str(tmp_path / "weights.safetensors"))


def test_an_encoder_of_one_channel_says_that_colors_do_not_count(tmp_path: Path) -> None:
    model = timm.create_model("test_vit", in_chans=1)
    torch.save(model.state_dict(), tmp_path / "grey.pth")
    config = {"architecture": "test_vit", "num_classes": 1000, "model_args": {"in_chans": 1}}
    (tmp_path / "config.json").write_text(json.dumps(config | {"pretrained_cfg": {"input_size": [1, 160, 160]}}))
    assert GREY in load_encoder(str(tmp_path / "grey.pth")).notes
    assert GREY not in load_encoder("random:test_vit").notes


def test_weights_with_nan_are_refused(tmp_path: Path) -> None:
    model = timm.create_model("test_vit")
    with torch.no_grad():
        model.blocks[1].mlp.fc1.weight[0, 0] = torch.nan
    torch.save(model.state_dict(), tmp_path / "bad.pth")
    with pytest.raises(ConfigurationError, match=r"are not finite \(model.blocks.1.mlp.fc1.weight\): choose others"):
        load_encoder(f"test_vit={tmp_path / 'bad.pth'}")
