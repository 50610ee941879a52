"""Configs that no test can run: what they say is parsed, built without memory, and held against the paper."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from jsonargparse import Namespace
from PIL import Image

from jepa_train.cli import CONFIGS, JEPACLI, main
from jepa_train.data import ImageFolderDataModule
from jepa_train.module import JEPA

EFFECTIVE_BATCH = 2048
IMAGENET = sorted(CONFIGS.glob("imagenet_*.yaml"))
# width, blocks, heads, patches along a side, predictor's depth, epochs, warm-up epochs (arXiv 2301.08243, appendix)
PAPER = {
    "imagenet_vith14": (1280, 32, 16, 16, 12, 300, 40),
    "imagenet_vith16_448": (1280, 32, 16, 28, 12, 300, 40),
    "imagenet_vitg16": (1408, 40, 16, 14, 16, 44, 3),
    "imagenet_vits16": (384, 12, 6, 14, 12, 300, 40),
}


class Parsed(Exception):
    """Ends the command line where its arguments are known to be right."""


class OnlyParsed(JEPACLI):
    """Goes no further than the parser."""

    def before_instantiate_classes(self) -> None:
        raise Parsed(self.config.fit)


def parse(*arguments: str) -> Namespace:
    with pytest.raises(Parsed) as parsed:
        OnlyParsed(
            JEPA,
            pl.LightningDataModule,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            args=["fit", *arguments],
        )
    (found,) = parsed.value.args
    assert isinstance(found, Namespace)
    return found


def test_every_config_of_imagenet_is_held_against_the_paper() -> None:
    assert [path.stem for path in IMAGENET] == sorted(PAPER)


def batch_factors(config: Namespace) -> list[int]:
    trainer = config.trainer
    factors = config.data.init_args.batch_size, trainer.devices, trainer.num_nodes, trainer.accumulate_grad_batches
    return [int(factor) for factor in factors]


@pytest.mark.parametrize("path", IMAGENET, ids=lambda path: path.stem)
def test_a_step_is_2048_images_as_the_first_lines_say(path: Path) -> None:
    config = parse("-c", str(path))
    factors = batch_factors(config)
    assert np.prod(factors) == EFFECTIVE_BATCH
    head = " ".join(line.removeprefix("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    said = re.search(
        r"(\d+) images a device x (\d+) devices? x (\d+) nodes? x (\d+) accumulated batch(?:es)? = 2048", head
    )
    assert said is not None
    assert [int(number) for number in said.groups()] == factors
    checkpoints = [callback for callback in config.trainer.callbacks if "ModelCheckpoint" in callback.class_path]
    assert checkpoints[0].init_args.every_n_train_steps
    assert checkpoints[0].init_args.save_last


def test_a_step_is_2048_images_in_the_documented_command_for_sharded_weights() -> None:
    commands = re.findall(r"train\.py fit (.*configs/fsdp\.yaml.*)", (CONFIGS.parent / "docs" / "scale.md").read_text())
    (command,) = (command.replace("configs/", f"{CONFIGS}/").replace("DIR", "imagenet22k") for command in commands)
    config = parse(*command.split())
    assert np.prod(batch_factors(config)) == EFFECTIVE_BATCH
    assert config.trainer.strategy.init_args.data_parallel_size == config.trainer.devices * config.trainer.num_nodes
    (said,) = re.findall(r"#     python train\.py fit (.*configs/fsdp\.yaml.*)", (CONFIGS / "fsdp.yaml").read_text())
    assert command == said.replace("configs/", f"{CONFIGS}/") + " --data.root imagenet22k"


def test_overlays_for_several_processes_leave_the_batch_alone() -> None:
    for overlay in ("ddp", "fsdp"):
        config = parse("-c", str(CONFIGS / "imagenet_vith14.yaml"), "-c", str(CONFIGS / f"{overlay}.yaml"))
        assert (config.trainer.num_nodes, config.trainer.accumulate_grad_batches) == (2, 1)


@pytest.mark.parametrize("path", IMAGENET, ids=lambda path: path.stem)
def test_what_is_measured_has_a_meaning_and_a_time(path: Path) -> None:
    config = parse("-c", str(path))
    monitor, knn = config.monitor.init_args, config.trainer.callbacks[0].init_args
    embedding = config.model.embedding_size if config.model.embedding_weight else PAPER[path.stem][0]
    assert monitor.num_samples >= 2 * embedding  # fewer than K + 1 have no covariance
    for callback in (monitor, knn):
        assert callback.every_n_epochs % config.trainer.check_val_every_n_epoch == 0


@pytest.mark.parametrize("path", IMAGENET, ids=lambda path: path.stem)
def test_the_model_is_the_papers(path: Path) -> None:
    config = parse("-c", str(path))
    width, blocks, heads, side, depth, epochs, warmup = PAPER[path.stem]
    data = ImageFolderDataModule(**config.data.init_args.as_dict())
    arguments: dict[str, Any] = {**config.model.as_dict(), "image_size": data.image_size, "channels": data.channels}
    with torch.device("meta"):
        module = JEPA(**arguments)
    vit = module.online.encoder.vit
    assert (module.online.encoder.width, len(vit.blocks), vit.blocks[0].attn.num_heads) == (width, blocks, heads)
    assert module.online.encoder.grid_size == (side, side)
    assert vit.num_prefix_tokens == 0
    assert len(module.predictor.blocks) == depth
    assert module.predictor.mask_query.shape == (384,)
    assert arguments["predictor_heads"] == heads
    context, targets = module.masks(16, torch.Generator().manual_seed(0))
    assert context.shape[1] > 10 == arguments["min_context"] - 1  # published: more than 10
    assert targets.shape[:2] == (16, 4)
    assert config.trainer.max_epochs == epochs
    for steps_an_epoch in (625, 6933, 9999):  # of 2048 images: ImageNet-1k, ImageNet-22k, and a larger set
        assert round(arguments["warmup_fraction"] * epochs * steps_an_epoch) == warmup * steps_an_epoch
    official = {
        "ema_start": 0.996,
        "ema_end": 1.0,
        "learning_rate_start": 2e-4,
        "learning_rate": 1e-3,
        "learning_rate_end": 1e-6,
        "weight_decay": 0.04,
        "weight_decay_end": 0.4,
        "target_scale": (0.15, 0.2),
        "target_aspect": (0.75, 1.5),
        "context_scale": (0.85, 1.0),
        "mask_mode": "paper",
        "crop_scale": 1.0,  # of views on the device: the workers crop
    }
    assert {name: arguments[name] for name in official} == official
    assert tuple(config.data.init_args.crop_scale) == (0.3, 1.0)
    assert config.trainer.precision == "bf16-mixed"
    if path.stem != "imagenet_vits16":
        assert (arguments["embedding_weight"], arguments["anticollapse"]) == (0.0, "none")


@pytest.mark.parametrize("subcommand", ["fit", "validate"])
def test_the_hugging_face_config_runs(subcommand: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()
    pixels = np.random.default_rng(0).integers(0, 255, (80, 32, 32, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        path = tmp_path / "images" / ("train" if index % 2 else "test") / str(index % 4) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    arguments = [f"--data.name={tmp_path / 'images'}", "--data.image_column=image", "--data.batch_size=8"]
    arguments += ["--model.encoder_overrides={embed_dim: 24, depth: 1, num_heads: 2}", "--model.embedding_size=4"]
    quick = ["--trainer.fast_dev_run=true", "--trainer.enable_progress_bar=false", "--data.num_workers=0"]
    cli = main([subcommand, "-c", str(CONFIGS / "hugging_face.yaml"), *quick, *arguments])
    if subcommand == "fit":
        assert torch.isfinite(cli.trainer.callback_metrics["train/loss"])


LAID_OVER = ("ddp", "fsdp", "keep_best")  # without data of their own
WITH_DATA = sorted(path for path in CONFIGS.glob("*.yaml") if path.stem not in LAID_OVER)


@pytest.mark.parametrize("path", WITH_DATA, ids=lambda path: path.stem)
def test_lejepa_can_be_laid_over_every_config(path: Path) -> None:
    config = parse("-c", str(path), "-c", str(CONFIGS / "objective" / "lejepa.yaml"))
    arguments: dict[str, Any] = {**config.model.as_dict(), "pretrained": False}
    with torch.device("meta"):
        module = JEPA(**{**arguments, "image_size": 4 * arguments["patch_size"]})
    assert (module.masks, module.predictor) == (None, None)
    assert module.objective.weights["centre"] == 1.0
    assert module.objective.anticollapse is not None
