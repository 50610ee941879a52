"""Checkpoints of another model, version or size are named, and what a checkpoint decides of the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from jepa_train.checkpoints.compatibility import weight_shapes, without_fetching
from jepa_train.cli import main
from jepa_train.module import JEPA
from tests.train.checkpoints.helpers import run
from tests.train.helpers import one_sentence

pytestmark = pytest.mark.usefixtures("own_folder")


def test_weights_alone_can_be_validated_but_not_gone_on_from(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = torch.load(trained, weights_only=True)
    del checkpoint["optimizer_states"]
    torch.save(checkpoint, "bad.ckpt")
    assert "holds only weights" in one_sentence(lambda: run("fit", "--ckpt_path=bad.ckpt"), capsys)
    run("validate", "--ckpt_path=bad.ckpt")


def test_images_of_another_size_are_one_sentence(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = ["--data.image_size=32", "--trainer.max_epochs=2"]
    message = one_sentence(lambda: run("fit", f"--ckpt_path={trained}", *other), capsys)
    assert re.search(r"does not fit the model \(\S+ is [\dx ]+ in the checkpoint, [\dx ]+ in the model\)", message)


def test_an_end_before_the_checkpoint_is_one_sentence(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = torch.load(trained, weights_only=True)
    checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"] = 5
    torch.save(checkpoint, "later.ckpt")
    message = one_sentence(lambda: run("fit", "--ckpt_path=later.ckpt"), capsys)
    assert "has trained 6 epochs already, more than max_epochs 1: give a larger --trainer.max_epochs" in message


def test_an_option_for_other_weights_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = one_sentence(lambda: run("validate", f"--ckpt_path={trained}", "--model.embedding_size=7"), capsys)
    assert "do not fit embedding_size 7 (the checkpoint has 2): leave out --model.embedding_size" in message


def test_an_option_that_the_checkpoint_overrides_is_named(trained: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"come from .*; ignored: learning_rate 0.5 \(the checkpoint has 0.002\)\."):
        cli = run("validate", f"--ckpt_path={trained}", "--model.learning_rate=0.5")
    assert cli.model.hparams["learning_rate"] == 0.002


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # there is no logger
def test_a_config_that_the_checkpoint_overrides_is_named(trained: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("model: {embedding_size: 5, ema_start: 0.5, target_scale: [0.15, 0.25], patch_size: 4}\n")
    data = ["--data=jepa_train.data.MixtureDataModule", "--data.num_train=128", "--data.num_probe=32"]
    quick = ["--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    with pytest.warns(
        UserWarning,
        match=r"ignored: embedding_size 5 \(the checkpoint has 2\), ema_start 0.5 \(the checkpoint has 0.98\)\.",
    ):
        main(["validate", "-c", str(config), *data, *quick, f"--ckpt_path={trained}"])


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # there is no logger
def test_without_options_of_its_own_a_resume_says_nothing(trained: Path) -> None:
    """The checkpoint's model differs from the default config, which nobody chose; warnings are errors here."""
    quick = ["--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    cli = main(["validate", "--data.num_train=128", "--data.num_probe=32", *quick, f"--ckpt_path={trained}"])
    assert cli is not None
    assert cli.model.hparams["projector_hidden"] == 16


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # the second run has another folder
def test_settings_that_the_checkpoint_does_not_know_are_named(trained: Path) -> None:
    checkpoint = torch.load(trained, weights_only=True)
    del checkpoint["hyper_parameters"]["flip"]
    torch.save(checkpoint, "older.ckpt")
    run("validate", "--ckpt_path=older.ckpt")  # by default it does what was done before, so nothing is said
    with pytest.warns(UserWarning, match=r"of an earlier version and has no flip: the values of the command line"):
        run("validate", "--ckpt_path=older.ckpt", "--model.flip=true")


WHOLE = {"token_weight": 0.0, "embedding_weight": 0.0, "centre_weight": 1.0}  # nothing is hidden


@pytest.mark.parametrize(
    "arguments",
    [
        {"encoder_overrides": {"embed_dim": 16, "depth": 1, "num_heads": 2}, "image_size": 16, "patch_size": 4},
        {"encoder": "test_resnet", "image_size": 16, **WHOLE},
    ],
    ids=["vit", "resnet"],
)
def test_shapes_are_those_of_the_weights_and_no_random_number_is_drawn(arguments: dict[str, Any]) -> None:
    before = torch.get_rng_state()
    shapes = weight_shapes(arguments)
    assert torch.equal(before, torch.get_rng_state())
    assert shapes == {name: tuple(weight.shape) for name, weight in JEPA(**arguments).state_dict().items()}


def test_of_published_weights_only_those_of_a_vision_transformer_may_have_a_class_token() -> None:
    arguments = {"pretrained": True, "encoder_overrides": {"depth": 1}}
    vit = without_fetching(arguments, {"online.encoder.vit.cls_token": 0})
    assert vit == {"pretrained": False, "encoder_overrides": {"class_token": True, "depth": 1}}
    assert without_fetching(arguments, {"online.encoder.network.conv1.weight": 0}) == {"pretrained": False}
    assert without_fetching({"pretrained": False}, {}) == {}
