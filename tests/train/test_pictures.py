"""The picture of masks, where it is shown, and the page of what the ``train/`` tags mean."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jepa_train import JEPA
from jepa_train.data import MixtureDataModule
from jepa_train.pictures import (
    MEANINGS,
    displayed,
    explanation,
    log_masks,
    log_views,
    masks_picture,
    patch_pixels,
    views_picture,
)


def test_patches_cover_their_pixels() -> None:
    index = torch.tensor([[[0, 3]]])
    chosen = patch_pixels(index, (2, 2), (4, 6))[0, 0]
    assert chosen.tolist() == [[True] * 3 + [False] * 3] * 2 + [[False] * 3 + [True] * 3] * 2


def test_images_are_stretched_over_the_whole_range() -> None:
    shown = displayed(torch.randn(2, 1, 4, 4))
    assert shown.shape == (2, 3, 4, 4)
    assert torch.equal(shown.amin((1, 2, 3)), torch.zeros(2))
    assert torch.equal(shown.amax((1, 2, 3)), torch.ones(2))
    assert torch.isfinite(displayed(torch.ones(1, 3, 2, 2))).all()


def test_white_pixels_under_a_target_stay_within_range_in_double_precision() -> None:
    """0.6 and 0.4 of white, one of them rounded to single precision, are a little more than 1: matplotlib warns."""
    images = torch.linspace(0.0, 1.0, 16).view(1, 1, 4, 4)
    torch.set_default_dtype(torch.float64)
    try:
        picture = masks_picture(images, torch.tensor([[0]]), torch.tensor([[[3]]]), grid_size=(2, 2))
    finally:
        torch.set_default_dtype(torch.float32)
    assert float(picture.max()) == 1.0


def test_the_picture_shows_another_mask_otherwise() -> None:
    images, context = torch.randn(8, 1, 16, 16), torch.tensor([[0, 1]]).expand(8, -1)
    first = masks_picture(images, context, torch.tensor([[[5, 6]]]).expand(8, -1, -1), grid_size=(4, 4))
    second = masks_picture(images, context, torch.tensor([[[9, 10]]]).expand(8, -1, -1), grid_size=(4, 4))
    assert first.shape == second.shape
    assert first.shape[0] == 4
    assert 0.0 <= float(first.min()) < float(first.max()) <= 1.0
    assert not torch.equal(first, second)


def test_only_the_first_process_draws_and_only_for_loggers_that_take_pictures() -> None:
    drawn: list[Any] = []
    board = SimpleNamespace(experiment=SimpleNamespace(add_image=lambda *picture: drawn.append(picture)))
    other = SimpleNamespace(experiment=SimpleNamespace())
    images, context, targets = torch.randn(2, 1, 8, 8), torch.tensor([[0], [1]]), torch.tensor([[[2]], [[3]]])
    for first in (False, True):
        trainer: Any = SimpleNamespace(is_global_zero=first, loggers=[other, board], global_step=0)
        log_masks(trainer, images, context, targets, grid_size=(2, 2))
        log_views(trainer, [images, images], num_global=2)
    assert [tag for tag, *_ in drawn] == ["train/masks", "train/views"]


def test_local_views_are_shown_as_large_as_global_ones() -> None:
    views = [torch.randn(3, 1, size, size) for size in (16, 16, 8)]
    picture, other = views_picture(views, num_global=2), views_picture([*views[:2], views[2] * -1], num_global=2)
    assert picture.shape == views_picture([views[0]] * 3, num_global=2).shape
    assert not torch.equal(picture, other)


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_every_tag_of_training_is_explained(tmp_path: Path) -> None:
    model = JEPA(
        image_size=8,
        channels=1,
        patch_size=2,
        encoder_overrides={"embed_dim": 16, "depth": 1, "num_heads": 2},
        embedding_size=2,
        predictor_width=16,
        predictor_depth=1,
        spectral_weight=0.1,
        centre_weight=1.0,
        crop_scale=0.5,
        min_context=1,
    )
    logger = TensorBoardLogger(tmp_path, name="", version="run")
    trainer = pl.Trainer(
        max_epochs=1,
        log_every_n_steps=1,
        logger=logger,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, MixtureDataModule(image_size=8, num_train=64, num_probe=16, batch_size=32))
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    logged = events.Tags()
    names = {tag for tag in (*logged["scalars"], *logged["images"]) if tag.startswith("train/")}
    assert names == MEANINGS.keys()
    (page,) = events.Tensors("train/tags/text_summary")
    assert page.tensor_proto.string_val[0].decode() == explanation(names)


def test_the_page_has_the_tags_of_the_run_alone() -> None:
    page = explanation({"train/loss", "train/loss_tokens"})
    assert [tag for tag in MEANINGS if f"`{tag}`" in page] == ["train/loss", "train/loss_tokens"]
