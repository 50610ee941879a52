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
import yaml
from torch import Tensor

from jepa_monitor.history import History
from jepa_train.checkpoints.files import read_checkpoint
from jepa_train.cli import main
from jepa_train.export import export, rebuilt
from jepa_train.module import JEPA
from tests.sentences import one_sentence
from tests.train.helpers import saved_by

FIT = [
    "fit",
    "--trainer.logger.save_dir=runs",
    "--trainer.max_epochs=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.log_every_n_steps=1",
    "--data.num_train=256",
    "--data.num_probe=64",
    "--data.batch_size=64",
    "--model.encoder_overrides={embed_dim: 16, depth: 2, num_heads: 2, drop_path_rate: 0.3, reg_tokens: 2}",
    "--model.projector_hidden=16",
    "--model.ema_start=0.5",
    "--model.pretrained=false",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(FIT)
    return folder / "runs" / "mixture" / "version_0" / "checkpoints" / "last.ckpt"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_export(trained: Path, *arguments: str) -> None:
    main(["export", f"--ckpt_path={trained}", "--output=encoder.safetensors", *arguments])


def reference(trained: Path, which: str, images: Tensor) -> Tensor:
    """Mean tokens, from the module as Lightning itself rebuilds it."""
    module = JEPA.load_from_checkpoint(trained).eval()
    branch = module.target if which == "target" else module.online
    with torch.no_grad():
        return branch.encoder(images).mean(dim=1)


def timm_arguments(trained: Path) -> tuple[str, dict[str, Any]]:
    encoder = rebuilt(read_checkpoint(trained), trained).target.encoder
    return encoder.name, dict(encoder.timm_arguments)


@pytest.mark.parametrize("which", ["target", "context"])
def test_timm_gives_bitwise_the_mean_token(which: Literal["target", "context"], trained: Path) -> None:
    run_export(trained, f"--which={which}")
    images = torch.randn(5, 1, 16, 16)
    expected = reference(trained, which, images)
    name, settings = timm_arguments(trained)
    by_arguments = timm.create_model(name, checkpoint_path="encoder.safetensors", **settings).eval()
    by_folder = timm.create_model("local-dir:.", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(by_arguments(images), expected)
        assert torch.equal(by_folder(images), expected)
    if which == "target":
        module = JEPA.load_from_checkpoint(trained).eval()
        with torch.no_grad():
            assert torch.equal(module.features(images), expected)
        assert not torch.equal(reference(trained, "context", images), expected)


def test_the_weights_are_all_there_and_strictly(trained: Path) -> None:
    run_export(trained)
    module = rebuilt(read_checkpoint(trained), trained)
    name, settings = timm_arguments(trained)
    vit = timm.create_model(name, **settings)
    timm.models.load_checkpoint(vit, "encoder.safetensors", strict=True)
    for key, weight in module.target.encoder.vit.state_dict().items():
        assert torch.equal(vit.state_dict()[key], weight), key
    settings["depth"] = 3
    with pytest.raises(RuntimeError, match="Missing key"):
        timm.create_model(name, checkpoint_path="encoder.safetensors", **settings)


def test_every_argument_in_the_card_is_necessary(trained: Path) -> None:
    """Without it the weights do not load, or the output is another; except those that equal timm's own default."""
    run_export(trained)
    images = torch.randn(5, 1, 16, 16)
    expected = reference(trained, "target", images)
    name, settings = timm_arguments(trained)
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


def blocks(card: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", card, flags=re.DOTALL)


@pytest.mark.parametrize("which", ["target", "context"])
def test_the_card_runs_and_tells_the_truth(which: Literal["target", "context"], trained: Path) -> None:
    run_export(trained, f"--which={which}")
    card = Path("encoder.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "timm"

    images = torch.randn(5, 1, 16, 16)
    expected = reference(trained, which, images)
    names: dict[str, Any] = {}
    for code in blocks(card, "python"):
        exec(code, names)  # one after the other: the later may use what the earlier defined
        with torch.no_grad():
            assert torch.equal(names["vit"](images), expected)
    module = JEPA.load_from_checkpoint(trained).eval()
    with torch.no_grad():
        embeddings = (module.target if which == "target" else module.online)(images)
        assert torch.equal(names["projector"](names["vit"](images)), embeddings)
    assert torch.equal(names["transform"](images[0]), images[0])  # known images are what they are

    data, model = [yaml.safe_load(text) for text in blocks(card, "yaml")]
    assert data["class_path"] == "jepa_train.data.MixtureDataModule"
    assert data["init_args"]["num_train"] == 256
    checkpoint = read_checkpoint(trained)
    assert model["ema_start"] == 0.5
    assert model.keys() == {name for name in checkpoint["hyper_parameters"] if not name.startswith("_")}
    assert ("This is the target encoder" in card) == (which == "target")
    assert ("this file is the context encoder" in card) == (which == "context")
    assert "after 4 optimizer steps (in epoch 0" in card

    history = History()
    history.load_state_dict(checkpoint["callbacks"]["JEPAScoreMonitor"])
    value = history.values["density/spearman"][-1]
    assert f"| `density/spearman` | {value:.6g} | 4 |" in card


def test_what_was_measured_before_training_is_left_out(trained: Path) -> None:
    checkpoint = torch.load(trained, weights_only=True)
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


def test_a_checkpoint_alone_says_what_is_not_known(trained: Path) -> None:
    checkpoint = torch.load(trained, weights_only=True)
    checkpoint["callbacks"] = {}
    torch.save(checkpoint, "alone.ckpt")
    main(["export", "--ckpt_path=alone.ckpt", "--output=encoder.safetensors"])
    card = Path("encoder.md").read_text()
    assert "Not recorded" in card
    assert "None in the checkpoint." in card


def test_saved_data_settings_are_those_of_the_checkpoint(trained: Path) -> None:
    checkpoint = torch.load(trained, weights_only=True)
    checkpoint["datamodule_hyper_parameters"] = {"root": "photographs", "_instantiator": "x"}
    torch.save(checkpoint, "with_data.ckpt")
    main(["export", "--ckpt_path=with_data.ckpt", "--output=encoder.safetensors"])
    assert yaml.safe_load(blocks(Path("encoder.md").read_text(), "yaml")[0]) == {"root": "photographs"}


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


def test_an_export_into_the_same_place_needs_overwrite(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_export(trained)
    before = Path("encoder.safetensors").read_bytes()
    message = one_sentence(lambda: run_export(trained, "--which=context"), capsys)
    assert "encoder.md, projector/encoder.safetensors exists already: add --overwrite" in message
    assert Path("encoder.safetensors").read_bytes() == before
    run_export(trained, "--which=context", "--overwrite")
    assert Path("encoder.safetensors").read_bytes() != before
    assert {path.name for path in Path().iterdir()} == {"encoder.safetensors", "config.json", "encoder.md", "projector"}


def test_a_file_that_cannot_be_written_is_one_sentence(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("encoder.md").mkdir()
    message = one_sentence(lambda: run_export(trained, "--overwrite"), capsys)
    assert message.startswith("error: encoder.md cannot be written (Is a directory): make room for it, or choose")
    assert not list(Path().glob(".*"))


def test_a_sharded_checkpoint_is_named_as_such(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    arguments: list[str], message: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("full").mkdir()
    Path("full/a.safetensors").touch()
    with pytest.raises(SystemExit) as ended:
        main(["export", f"--ckpt_path={trained}", *arguments])
    shown = capsys.readouterr().err + str(ended.value)
    assert re.search(message, shown)
    assert "Traceback" not in shown


def test_help_tells_of_export(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in ((["--help"], "export"), (["export", "--help"], "--overwrite")):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert expected in capsys.readouterr().out


def test_the_function_takes_paths_as_text_too(trained: Path) -> None:
    shutil.copy(trained, "copy.ckpt")
    weights, config, card, projector = export("copy.ckpt", "encoder.safetensors")  # type: ignore[arg-type]  # as a notebook might
    assert json.loads(config.read_text())["architecture"] == "vit_tiny_patch16_224"
    assert weights.is_file()
    assert card.is_file()
    assert projector.is_file()
