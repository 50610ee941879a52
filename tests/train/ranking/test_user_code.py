"""Encoders that a function of the user's returns: pooled, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.encoders import load_encoder
from tests.train.ranking.helpers import picture

MODELS = """
import timm, torch
from torch import nn
from jepa_train.ranking.encoders import ImageEncoder

CONFIG = {"input_size": (3, 16, 16), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}

class Net(nn.Module):
    def __init__(self, kind, config=CONFIG):
        super().__init__()
        self.layer, self.kind = nn.Conv2d(3, 8, 4, 4), kind
        if config:
            self.data_config = config

    def forward(self, images):
        maps = self.layer(images.to(self.layer.weight.dtype))
        tokens = maps.flatten(2).transpose(1, 2)
        vector = maps.mean((2, 3))
        return {"maps": maps, "tokens": tokens, "vector": vector, "tuple": (vector, tokens), "dict": {"z": vector},
                "object": type("Output", (), {"last_hidden_state": tokens})(), "five": maps[:, None],
                "batch": vector - vector.mean(0), "nan": vector / 0 * 0}[self.kind]

maps, tokens, vector, pair, mapping, hidden, five, batch, nan = (
    (lambda kind: lambda: Net(kind))(kind)
    for kind in ("maps", "tokens", "vector", "tuple", "dict", "object", "five", "batch", "nan")
)
silent = lambda: Net("vector", None)
half = lambda: Net("vector").bfloat16()
number = 3
seven = lambda: 7
of_timm = lambda: timm.create_model("test_vit", num_classes=0)

def whole():
    return ImageEncoder(Net("vector"), lambda image: torch.zeros(3, 16, 16), "", "abc", {}, ("mine",))
"""


@pytest.fixture(autouse=True)
def _models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models_of_a_user.py").write_text(MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "models_of_a_user", raising=False)


def load(function: str, **settings: object) -> object:
    return load_encoder(f"models_of_a_user:{function}", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("function", ["maps", "tokens", "vector", "pair", "hidden"])
def test_tokens_maps_and_tuples_become_one_vector(function: str) -> None:
    encoder = load_encoder(f"models_of_a_user:{function}")
    images = torch.randn(2, 3, 16, 16)
    layer = encoder.module.model.layer  # type: ignore[union-attr]
    torch.testing.assert_close(encoder.module(images), layer(images).mean((2, 3)))  # type: ignore[operator]
    assert encoder.preparation["mean"] == [0.5, 0.5, 0.5]
    assert not encoder.module.training
    assert not any(parameter.requires_grad for parameter in encoder.module.parameters())


def test_the_first_token_can_be_asked_for() -> None:
    encoder = load_encoder("models_of_a_user:tokens", pooling="cls")
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(encoder.module(images), encoder.module.model(images)[:, 0])  # type: ignore[operator]


@pytest.mark.parametrize(
    ("function", "pooling", "sentence"),
    [
        ("mapping", "auto", r"cannot encode images of 3 x 16 x 16 \(.*returned a dict.*\): .*forward returns \(B, K\)"),
        ("five", "auto", r"cannot encode images .*\(2, 1, 8, 4, 4\)"),
        ("batch", "auto", r"embeds an image differently in a batch than alone"),
        ("nan", "auto", r"makes NaN or infinity"),
        ("vector", "map", r"has no pooling 'map': choose auto, mean or cls"),
        ("seven", "auto", r"returned a int, not an nn.Module or an ImageEncoder"),
        ("number", "auto", r"is a int: name a function that returns an nn.Module"),
        ("nothing", "auto", r"the module models_of_a_user has no nothing"),
    ],
)
def test_what_is_no_encoder_is_refused(function: str, pooling: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        load(function, pooling=pooling)


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"no_such_module:f cannot be imported .*put its folder on PYTHONPATH"):
        load_encoder("no_such_module:f")


def test_guesses_are_said() -> None:
    encoder = load_encoder("models_of_a_user:silent", image_size=32)
    assert encoder.preparation["input_size"] == [3, 32, 32]
    assert any("32 px with ImageNet's mean and deviation are guessed" in note for note in encoder.notes)


def test_half_precision_becomes_float32_and_says_so() -> None:
    encoder = load_encoder("models_of_a_user:half")
    assert encoder.module(torch.randn(1, 3, 16, 16)).dtype == torch.float32
    assert next(encoder.module.parameters()).dtype == torch.float32
    assert any("half precision" in note for note in encoder.notes)


def test_timms_own_config_is_read_from_a_module() -> None:
    encoder = load_encoder("models_of_a_user:of_timm")
    assert encoder.preparation["input_size"] == [3, 160, 160]
    assert encoder.preparation["crop_pct"] == 0.95


def test_a_whole_encoder_is_taken_as_it_is() -> None:
    encoder = load_encoder("models_of_a_user:whole")
    assert (encoder.name, encoder.identity, encoder.notes) == ("models_of_a_user:whole", "abc", ("mine",))
    assert encoder.prepare(picture()).shape == (3, 16, 16)
