"""The card of an exported encoder is true, and its code runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml

from jepa_monitor.history import History
from jepa_train.checkpoints.files import read_checkpoint
from jepa_train.cli import main
from jepa_train.module import JEPA
from tests.train.helpers import SMALL, reference, run_export, saved_by

pytestmark = pytest.mark.usefixtures("own_folder")


def blocks(card: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", card, flags=re.DOTALL)


@pytest.mark.parametrize("which", ["target", "context"])
def test_the_card_runs_and_tells_the_truth(which: Literal["target", "context"], measured: Path) -> None:
    run_export(measured, f"--which={which}")
    card = Path("encoder.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "timm"

    images = torch.randn(5, 1, 16, 16)
    expected = reference(measured, which, images)
    names: dict[str, Any] = {}
    for code in blocks(card, "python"):
        exec(code, names)  # one after the other: the later may use what the earlier defined
        with torch.no_grad():
            assert torch.equal(names["model"](images), expected)
    module = JEPA.load_from_checkpoint(measured).eval()
    with torch.no_grad():
        embeddings = (module.target if which == "target" else module.online)(images)
        assert torch.equal(names["projector"](names["model"](images)), embeddings)
    assert torch.equal(names["transform"](images[0]), images[0])  # known images are what they are

    data, model = [yaml.safe_load(text) for text in blocks(card, "yaml")]
    assert data["class_path"] == "jepa_train.data.MixtureDataModule"
    assert data["init_args"]["num_train"] == 256
    checkpoint = read_checkpoint(measured)
    assert model["ema_start"] == 0.5
    assert model.keys() == {name for name in checkpoint["hyper_parameters"] if not name.startswith("_")}
    assert ("This is the target encoder" in card) == (which == "target")
    assert ("this file is the context encoder" in card) == (which == "context")
    assert "after 4 optimizer steps (in epoch 0" in card

    history = History()
    history.load_state_dict(checkpoint["callbacks"]["JEPAScoreMonitor"])
    value = history.values["density/spearman"][-1]
    assert f"| `density/spearman` | {value:.6g} | 4 |" in card


def test_what_was_measured_before_training_is_left_out(measured: Path) -> None:
    checkpoint = torch.load(measured, weights_only=True)
    history = History()
    history.append(0, 0, {"density/spearman": 0.125, "gaussianity/rank": 3.5})
    checkpoint["callbacks"]["JEPAScoreMonitor"] = history.state_dict()
    torch.save(checkpoint, "early.ckpt")
    main(["export", "--ckpt_path=early.ckpt", "--output=early/encoder.safetensors"])
    card = Path("early/encoder.md").read_text()
    assert "0.125" not in card
    assert "JEPAScoreMonitor measured the untrained encoder alone." in card
    history.append(2, 0, {"density/spearman": 0.25})
    history.append(4, 1, {"gaussianity/rank": 4.5})
    checkpoint["callbacks"]["JEPAScoreMonitor"] = history.state_dict()
    torch.save(checkpoint, "late.ckpt")
    main(["export", "--ckpt_path=late.ckpt", "--output=late/encoder.safetensors"])
    card = Path("late/encoder.md").read_text()
    assert "| `density/spearman` | 0.25 | 2 |\n| `gaussianity/rank` | 4.5 | 4 |" in card


def test_a_checkpoint_alone_says_what_is_not_known(measured: Path) -> None:
    checkpoint = torch.load(measured, weights_only=True)
    checkpoint["callbacks"] = {}
    torch.save(checkpoint, "alone.ckpt")
    main(["export", "--ckpt_path=alone.ckpt", "--output=encoder.safetensors"])
    card = Path("encoder.md").read_text()
    assert "Not recorded" in card
    assert "None in the checkpoint." in card


def test_saved_data_settings_are_those_of_the_checkpoint(measured: Path) -> None:
    checkpoint = torch.load(measured, weights_only=True)
    checkpoint["datamodule_hyper_parameters"] = {"root": "photographs", "_instantiator": "x"}
    torch.save(checkpoint, "with_data.ckpt")
    main(["export", "--ckpt_path=with_data.ckpt", "--output=encoder.safetensors"])
    assert yaml.safe_load(blocks(Path("encoder.md").read_text(), "yaml")[0]) == {"root": "photographs"}


@pytest.mark.filterwarnings("ignore:.* does not say how images were prepared")
@pytest.mark.parametrize("encoder", ["test_resnet", "test_convnext"])
def test_the_card_of_another_family_makes_its_features(encoder: str) -> None:
    settings = {**SMALL, "encoder": encoder, "encoder_overrides": {}, "image_size": 32}
    module = JEPA(**settings, token_weight=0.0, embedding_weight=0.0, centre_weight=1.0, ema_start=0.0, ema_end=0.0)
    images = torch.randn(8, 1, 32, 32)
    module.train()(images)  # moves statistics of batch norm
    saved_by(module, Path("convolutional.ckpt"))
    run_export(Path("convolutional.ckpt"))
    names: dict[str, Any] = {"images": images}
    codes = blocks(Path("encoder.md").read_text(), "python")
    features = re.findall(r"features = (model.*?)  #", codes[1])[0]
    module.eval()
    for code in codes:
        exec(code, names)
        names["images"] = images  # the card has one of zeros
        with torch.no_grad():
            torch.testing.assert_close(eval(features, names), module.features(images), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(names["projector"](eval(features, names)), module(images), rtol=1e-5, atol=1e-6)
