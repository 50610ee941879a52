"""An exported encoder: timm loads it without this package, and its card is true and runs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
import timm
import torch

from jepa_train.checkpoints.files import read_checkpoint
from jepa_train.cli import main
from jepa_train.export import export, rebuilt
from jepa_train.module import JEPA
from tests.train.helpers import SMALL, one_sentence, reference, run_export, saved_by

# one worker trains the run that they share
pytestmark = [pytest.mark.usefixtures("own_folder"), pytest.mark.xdist_group("export")]


def timm_arguments(measured: Path) -> tuple[str, dict[str, Any]]:
    encoder = rebuilt(read_checkpoint(measured), measured).target.encoder
    return encoder.name, dict(encoder.timm_arguments)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["target", "context"])
def test_timm_gives_bitwise_the_mean_token(which: Literal["target", "context"], measured: Path) -> None:
    run_export(measured, f"--which={which}")
    images = torch.randn(5, 1, 16, 16)
    expected = reference(measured, which, images)
    name, settings = timm_arguments(measured)
    by_arguments = timm.create_model(name, checkpoint_path="encoder.safetensors", **settings).eval()
    by_folder = timm.create_model("local-dir:.", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(by_arguments(images), expected)
        assert torch.equal(by_folder(images), expected)
    if which == "target":
        module = JEPA.load_from_checkpoint(measured).eval()
        with torch.no_grad():
            assert torch.equal(module.features(images), expected)
        assert not torch.equal(reference(measured, "context", images), expected)


def test_the_weights_are_all_there_and_strictly(measured: Path) -> None:
    run_export(measured)
    module = rebuilt(read_checkpoint(measured), measured)
    name, settings = timm_arguments(measured)
    vit = timm.create_model(name, **settings)
    timm.models.load_checkpoint(vit, "encoder.safetensors", strict=True)
    for key, weight in module.target.encoder.vit.state_dict().items():
        assert torch.equal(vit.state_dict()[key], weight), key
    settings["depth"] = 3
    with pytest.raises(RuntimeError, match="Missing key"):
        timm.create_model(name, checkpoint_path="encoder.safetensors", **settings)


def test_every_argument_in_the_card_is_necessary(measured: Path) -> None:
    """The weights do not load without it, or the output is another; except those that equal timm's own default."""
    run_export(measured)
    images = torch.randn(5, 1, 16, 16)
    expected = reference(measured, "target", images)
    name, settings = timm_arguments(measured)
    unneeded = set()
    for left_out in settings:
        others = {key: value for key, value in settings.items() if key != left_out}
        try:
            with torch.no_grad():
                same = torch.equal(
                    timm.create_model(name, checkpoint_path="encoder.safetensors", **others).eval()(images), expected
                )
        except (RuntimeError, AssertionError):
            same = False
        if same:
            unneeded.add(left_out)
    assert unneeded == {"drop_path_rate"}  # matters in training alone


@pytest.mark.filterwarnings("ignore:.* does not say how images were prepared")
@pytest.mark.parametrize("class_token", [True, False])
def test_nothing_is_fetched_for_a_model_that_started_from_published_weights(class_token: bool) -> None:
    """Those may have a class token, which the settings do not tell."""
    overrides = {"embed_dim": 16, "depth": 1, "num_heads": 2}
    module = JEPA(image_size=16, channels=1, patch_size=4, encoder_overrides={**overrides, "class_token": class_token})
    saved_by(module, Path("started.ckpt"))
    checkpoint = torch.load("started.ckpt", weights_only=True)
    checkpoint["hyper_parameters"] |= {"pretrained": True, "encoder_overrides": overrides}
    torch.save(checkpoint, "started.ckpt")
    main(["export", "--ckpt_path=started.ckpt", "--output=encoder.safetensors"])
    assert "pretrained: true" in Path("encoder.md").read_text()
    images = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        expected = module.eval().features(images)
        assert torch.equal(timm.create_model("local-dir:.", pretrained=True).eval()(images), expected)


def test_a_stem_that_timm_does_not_have_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    saved_by(JEPA(**SMALL, stem="convolutional"), Path("convolutional.ckpt"))
    message = one_sentence(lambda: run_export(Path("convolutional.ckpt")), capsys)
    assert "timm has no convolutional stem" in message
    assert sorted(path.name for path in Path().iterdir()) == ["convolutional.ckpt"]


def test_an_export_into_the_same_place_needs_overwrite(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_export(measured)
    before = Path("encoder.safetensors").read_bytes()
    message = one_sentence(lambda: run_export(measured, "--which=context"), capsys)
    assert "encoder.md, projector/encoder.safetensors exists already: add --overwrite" in message
    assert Path("encoder.safetensors").read_bytes() == before
    run_export(measured, "--which=context", "--overwrite")
    assert Path("encoder.safetensors").read_bytes() != before
    assert {path.name for path in Path().iterdir()} == {"encoder.safetensors", "config.json", "encoder.md", "projector"}


def test_a_file_that_cannot_be_written_is_one_sentence(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("encoder.md").mkdir()
    message = one_sentence(lambda: run_export(measured, "--overwrite"), capsys)
    assert message.startswith("error: encoder.md cannot be written (Is a directory): make room for it, or choose")
    assert not list(Path().glob(".*"))


def test_a_sharded_checkpoint_is_named_as_such(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("last.ckpt").mkdir()
    Path("last.ckpt/meta.pt").touch()
    message = one_sentence(lambda: run_export(Path("last.ckpt")), capsys)
    assert "last.ckpt is a folder, a sharded checkpoint, which export cannot read" in message
    assert "save_distributed_checkpoint: false" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output=encoder.pt"], r"error: --output encoder.pt must end in .safetensors"),
        (["--output=full/a.safetensors/encoder.safetensors"], r"error: the folder full/a.safetensors cannot be made"),
        (["--output=full/encoder.safetensors"], r"error: full holds other weights \(a.safetensors\)"),
        (["--output=e.safetensors", "--which=teacher"], r"teacher"),
        (["--which=target"], r"output"),
        (["--output=e.safetensors", "--nonsense=1"], r"nonsense"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str], message: str, measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("full").mkdir()
    Path("full/a.safetensors").touch()
    with pytest.raises(SystemExit) as ended:
        main(["export", f"--ckpt_path={measured}", *arguments])
    shown = capsys.readouterr().err + str(ended.value)
    assert re.search(message, shown)
    assert "Traceback" not in shown


def test_help_tells_of_export(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in ((["--help"], "export"), (["export", "--help"], "--overwrite")):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert expected in capsys.readouterr().out


def test_the_function_takes_paths_as_text_too(measured: Path) -> None:
    shutil.copy(measured, "copy.ckpt")
    weights, config, card, projector = export("copy.ckpt", "encoder.safetensors")  # type: ignore[arg-type]  # as a notebook might
    assert json.loads(config.read_text())["architecture"] == "vit_tiny_patch16_224"
    assert weights.is_file()
    assert card.is_file()
    assert projector.is_file()
