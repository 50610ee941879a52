"""The command line as a person uses it: every config, resume, validate, and messages for mistakes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jepa_monitor import JEPAScoreMonitor
from jepa_train.cli import CONFIGS, JEPACLI, main
from jepa_train.commands.start import is_overlay
from jepa_train.errors import RunFailed
from jepa_train.module import JEPA
from tests.train.data.helpers import write_idx
from tests.train.helpers import FAILED, TINY_MODEL, one_sentence

# one worker trains the run that they share
pytestmark = [pytest.mark.usefixtures("own_folder"), pytest.mark.xdist_group("command line")]

SMALL = [
    "--trainer.max_epochs=2",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.log_every_n_steps=1",
    "--data.num_train=256",
    "--data.num_probe=64",
    "--data.batch_size=128",
    *TINY_MODEL,
]
NO_CALLBACKS = ["--monitor=null", "--trainer.callbacks=[]"]


def fit(folder: Path, *arguments: str) -> JEPACLI:
    return main(["fit", *SMALL, f"--trainer.logger.save_dir={folder}", *arguments])


def data_arguments(name: str, folder: Path) -> list[str]:
    """Make what a config needs beside itself."""
    if name.startswith("fashion_mnist"):
        write_idx(folder)
        return [f"--data.root={folder}"]
    if name == "image_folder":
        pixels = np.random.default_rng(0).integers(0, 255, (80, 48, 48, 3), dtype=np.uint8)
        for index, image in enumerate(pixels):
            (folder / "ab"[index % 2]).mkdir(exist_ok=True)
            Image.fromarray(image).save(folder / "ab"[index % 2] / f"{index}.png")
        return [
            f"--data.root={folder}",
            "--data.batch_size=8",
            "--data.num_workers=0",
            "--data.image_size=48",
            "--data.probe_share=0.5",
        ]
    return [] if name == "digits" else ["--data.num_train=256"]


# the others are too large, or need what is optional: tests/test_configs.py
NOT_ALONE = (
    "imagenet_",
    "hugging_face",
    "ddp",
    "fsdp",
    "keep_best",
)  # too large, from the network, or laid over another
RUN_HERE = sorted(path for path in CONFIGS.glob("*.yaml") if not path.stem.startswith(NOT_ALONE))


FEW = ["--model.embedding_size=8", "--monitor.num_samples=32"]  # where the monitor is no slower than the rest
SLOW = {path: path.stem.startswith(("fashion_mnist", "image_folder")) for path in RUN_HERE}
CONFIG = pytest.mark.parametrize(
    "config", [pytest.param(path, id=path.stem, marks=pytest.mark.slow if SLOW[path] else ()) for path in RUN_HERE]
)


@pytest.mark.slow
@CONFIG
def test_every_config_trains(config: Path, tmp_path: Path) -> None:
    quick = ["--trainer.fast_dev_run=true", "--trainer.enable_progress_bar=false"]
    cli = main(["fit", "-c", str(config), *quick, *data_arguments(config.stem, tmp_path)])
    assert torch.isfinite(cli.trainer.callback_metrics["train/loss"])
    assert measured(cli)


@pytest.mark.slow
@CONFIG
@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_every_config_is_for_every_subcommand(config: Path, subcommand: str, tmp_path: Path) -> None:
    arguments = data_arguments(config.stem, tmp_path) + FEW
    quick = ["--trainer.fast_dev_run=true", "--trainer.enable_progress_bar=false"]
    cli = main([subcommand, "-c", str(config), *quick, *arguments])
    if subcommand != "predict":
        assert measured(cli)


def measured(cli: JEPACLI) -> bool:
    (monitor,) = [callback for callback in cli.trainer.callbacks if isinstance(callback, JEPAScoreMonitor)]
    return monitor.readings is not None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[JEPACLI, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return fit(folder), folder


@pytest.mark.slow
def test_without_a_config_it_is_the_mixture_from_any_folder(
    run: tuple[JEPACLI, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert type(run[0].datamodule).__name__ == "MixtureDataModule"
    monkeypatch.chdir(tmp_path)
    assert type(main(["fit", "--trainer.fast_dev_run=true", "--data.num_train=256"]).model).__name__ == "JEPA"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")  # validate has none here
def test_the_last_checkpoint_is_the_end_and_validate_leaves_the_run_alone(tmp_path: Path) -> None:
    checkpoint = "lightning.pytorch.callbacks.ModelCheckpoint"
    saving = ["--monitor=null", f"--trainer.callbacks={checkpoint}", "--trainer.callbacks.save_last=true"]
    cli = fit(tmp_path, *saving, "--trainer.callbacks.every_n_train_steps=3")
    run = Path(cli.trainer.log_dir)
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == cli.trainer.global_step == 4
    for name, value in cli.model.state_dict().items():
        assert torch.equal(last["state_dict"][name], value), name
    before = (run / "config.yaml").read_text()
    main(["validate", *SMALL, f"--trainer.logger.save_dir={tmp_path}", "--ckpt_path=last", *NO_CALLBACKS])
    assert (run / "config.yaml").read_text() == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")  # validate has none here
def test_a_checkpoint_that_began_with_published_weights_fetches_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = "lightning.pytorch.callbacks.ModelCheckpoint"
    cli = fit(tmp_path, "--monitor=null", f"--trainer.callbacks={checkpoint}", "--trainer.callbacks.save_last=true")
    path = Path(cli.trainer.log_dir) / "checkpoints" / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    saved["hyper_parameters"]["pretrained"] = True
    torch.save(saved, path)
    made = timm.create_model

    def offline(name: str, *, pretrained: bool, **settings: Any) -> torch.nn.Module:
        assert not pretrained
        return made(name, pretrained=pretrained, **settings)

    monkeypatch.setattr(timm, "create_model", offline)
    own = [f"--ckpt_path={path}", *NO_CALLBACKS, "--trainer.enable_checkpointing=false"]
    again = main(["validate", *SMALL, f"--trainer.logger.save_dir={tmp_path}", *own])
    for name, value in cli.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name


@pytest.mark.slow
def test_where_to_look_is_said_of_a_run_that_was_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path)
    assert f"tensorboard --logdir {tmp_path / 'mixture' / 'version_0'}" in capsys.readouterr().out
    fit(tmp_path, "--trainer.logger=false")
    assert "tensorboard" not in capsys.readouterr().out


def test_forms_of_config_options(capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--trainer.fast_dev_run=true", "--data.num_train=256", *NO_CALLBACKS]
    main(["fit", f"-c{CONFIGS / 'mixture.yaml'}", "-c", "{trainer: {max_epochs: 3}}", *quick])
    message = one_sentence(lambda: main(["fit", *quick, "--trainer.logger=true", "--ckpt_path=last"]), capsys)
    assert "--ckpt_path last looks below the logger's folder" in message


@pytest.mark.slow
def test_an_overlay_alone_is_laid_over_the_mixture(tmp_path: Path) -> None:
    assert is_overlay(CONFIGS / "ddp.yaml")
    assert not is_overlay(CONFIGS / "fashion_mnist.yaml")
    assert not is_overlay(tmp_path / "missing.yaml")
    overlay = f"--config={CONFIGS / 'objective' / 'vicreg.yaml'}"
    cli = main(["fit", overlay, "--trainer.fast_dev_run=true", "--data.num_train=256"])
    assert type(cli.datamodule).__name__ == "MixtureDataModule"
    assert cli.model.hparams["anticollapse"] == "vicreg"


@pytest.mark.slow
def test_the_best_checkpoint_is_kept_beside_the_last(tmp_path: Path) -> None:
    overlay = f"--config={CONFIGS / 'keep_best.yaml'}"
    cli = main(["fit", overlay, *SMALL, f"--trainer.logger.save_dir={tmp_path}"])
    usual, best = cli.trainer.checkpoint_callbacks
    assert isinstance(usual, ModelCheckpoint)
    assert isinstance(best, ModelCheckpoint)
    assert (best.monitor, best.mode) == ("monitor/keep", "max")
    assert isinstance(best.best_model_score, torch.Tensor)
    assert Path(best.best_model_path).name.startswith("best-step=")
    assert Path(usual.last_model_path).is_file()


@pytest.mark.slow
def test_the_progress_bar_shows_loss_and_ranking(run: tuple[JEPACLI, Path]) -> None:
    assert {"train/loss", "density/spearman"} <= set(run[0].trainer.progress_bar_metrics)


@pytest.mark.slow
def test_it_says_where_the_run_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli = fit(tmp_path, "--trainer.max_epochs=1")
    printed = capsys.readouterr().out
    assert f"tensorboard --logdir {cli.trainer.log_dir}" in printed


def test_the_run_holds_what_the_design_lists(run: tuple[JEPACLI, Path]) -> None:
    cli, _ = run
    events = EventAccumulator(cli.trainer.log_dir).Reload()
    tags = events.Tags()
    scalars = set(tags["scalars"])
    for group, names in {
        "train": "loss loss_tokens loss_embedding loss_anticollapse ema_momentum lr weight_decay context_tokens "
        "target_tokens",
        "density": "spearman spearman_gaussian_embedding spearman_jepa_score spearman_gaussian spearman_with_noise "
        "stability",
        "scores": "log_density_q10 log_density_median log_density_q90 jepa_score_q10 jepa_score_median jepa_score_q90 "
        "complexity_spearman knn_spearman kendall auroc_low_density",
        "gaussianity": "sliced_ep_ratio sliced_ep_ratio_max axis_ep_ratio_max covariance_error_ratio "
        "mean_error_ratio norm_variance_ratio norm_ks skewness_z kurtosis_z effective_rank_ratio",
        "jacobian": "rank intrinsic_dimension clipped_fraction condition_log10 nonfinite_fraction",
        "reference": "gaussian_ratio gaussian_deviation uncorrelated chance",
        "monitor": "seconds overhead_percent reference samples subspace_rows failed alarm_collapse "
        "alarm_nonfinite_jacobian alarm_turned_over",
    }.items():
        assert {f"{group}/{name}" for name in names.split()} <= scalars
    steps = [event.step for event in events.Scalars("density/spearman")]
    per_epoch = 256 // cli.datamodule.batch_size
    assert set(steps) <= {0, per_epoch, 2 * per_epoch}  # in so short a run the budget may leave one out
    assert (steps[0], steps[-1]) == (0, 2 * per_epoch)
    for tag in tags["images"]:  # drawn when the budget allows it, and always of the last measurement
        drawn = [event.step for event in events.Images(tag)]
        assert set(drawn) <= set(steps)
        assert drawn[-1] == (0 if tag == "train/masks" else steps[-1])
    assert {event.step for event in events.Images("density/story")} == set(steps)  # it is part of a measurement
    for tag in tags["histograms"]:
        assert all(event.histogram_value.num > 0 for event in events.Histograms(tag))
    assert {"pictures/score_against_factors", "pictures/gallery", "pictures/spectrum"} <= set(tags["images"])
    assert "embedding_size" in text(events, "config")
    assert "density/spearman" in text(events, "JEPA-SCORE/tags")
    saved = yaml.safe_load((Path(cli.trainer.log_dir) / "config.yaml").read_text())
    assert saved["data"]["init_args"]["num_train"] == 256


def text(events: EventAccumulator, name: str) -> str:
    return events.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode()


@pytest.mark.slow
def test_validate_repeats_the_last_measurement(run: tuple[JEPACLI, Path]) -> None:
    cli, folder = run
    checkpoint = str(Path(cli.trainer.log_dir) / "checkpoints" / "last.ckpt")
    arguments = [*SMALL, f"--trainer.logger.save_dir={folder}"]
    values = main(["validate", *arguments, f"--ckpt_path={checkpoint}"]).trainer.callback_metrics
    compared = [
        tag for tag in cli.trainer.callback_metrics if tag.startswith(("density/", "gaussianity/", "jacobian/"))
    ]
    assert len(compared) > 25
    for tag in compared:
        if tag != "density/stability":  # against the measurement before, which only a fit has
            assert float(values[tag]) == pytest.approx(float(cli.trainer.callback_metrics[tag]), abs=1e-4), tag


@pytest.mark.slow
def test_last_goes_on_in_the_same_folder_and_ends_like_an_uninterrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop_in_the_second_epoch(module: JEPA) -> None:
        if module.current_epoch:
            raise Stop

    folder = tmp_path / "parts"
    monkeypatch.setattr(JEPA, "on_train_epoch_start", stop_in_the_second_epoch)
    with pytest.raises(Stop):
        fit(folder)
    monkeypatch.undo()
    resumed = fit(folder, "--ckpt_path=last")
    assert resumed.trainer.global_step == whole.trainer.global_step
    assert [path.name for path in (folder / "mixture").iterdir()] == ["version_0"]
    assert resumed.trainer.logger.version == 0  # not the text, of which the progress bar shows four letters
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.nonsense=1"], r"nonsense"),
        (["--model.encoder=vit_tinny"], r"error: timm has no model named 'vit_tinny'"),
        (["--model.patch_size=8"], r"error: 2 targets of 1 x 1 patches leave fewer than 8 context patches on a 2 x 2"),
        (["--model.patch_size=5"], r"error: image_size 16 is not divisible by patch_size 5"),
        (["--data=NoSuchData"], r"NoSuchData"),
        (["--ckpt_path=last", "--trainer.logger=false"], r"error: --ckpt_path last looks below the logger's folder"),
        (["--ckpt_path=last"], r"error: there is no last.ckpt below .*: run fit first"),
        (["--data.batch_size=999"], r"error: only 256 training images for batch size 999: lower --data\.batch_size"),
        (["--model.anticollapse=barlows"], r"barlows"),
    ],
)
def test_mistakes_end_in_one_readable_message(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        fit(tmp_path, *arguments)
    shown = capsys.readouterr().err + str(ended.value)
    assert re.search(message, shown)
    assert "Traceback" not in shown
    assert ended.value.code == 2


def test_a_missing_config_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "-c", "no_such.yaml"])
    assert "no_such.yaml" in capsys.readouterr().err


def test_missing_data_is_one_readable_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(CONFIGS / "image_folder.yaml")
    arguments = ["fit", "-c", config, f"--data.root={tmp_path / 'no'}", "--trainer.fast_dev_run=true"]
    assert re.search(r"error: there is no folder .*point --data.root", one_sentence(lambda: main(arguments), capsys))


def test_a_run_that_failed_ends_with_another_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(module: JEPA) -> None:
        raise RunFailed("it did not work out.")

    monkeypatch.setattr(JEPA, "on_train_epoch_start", fail)
    assert one_sentence(lambda: fit(tmp_path), capsys, code=FAILED) == "error: it did not work out."
