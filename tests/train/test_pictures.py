"""The picture of masks: what is shown where, and to whom it goes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from jepa_train.pictures import _displayed, _patches, log_masks, masks_picture


def test_patches_cover_their_pixels() -> None:
    index = torch.tensor([[[0, 3]]])
    chosen = _patches(index, (2, 2), (4, 6))[0, 0]
    assert chosen.tolist() == [[True] * 3 + [False] * 3] * 2 + [[False] * 3 + [True] * 3] * 2


def test_images_are_stretched_over_the_whole_range() -> None:
    shown = _displayed(torch.randn(2, 1, 4, 4))
    assert shown.shape == (2, 3, 4, 4)
    assert torch.equal(shown.amin((1, 2, 3)), torch.zeros(2))
    assert torch.equal(shown.amax((1, 2, 3)), torch.ones(2))
    assert torch.isfinite(_displayed(torch.ones(1, 3, 2, 2))).all()


def test_the_picture_shows_another_mask_otherwise() -> None:
    images, context = torch.randn(8, 1, 16, 16), torch.tensor([[0, 1]]).expand(8, -1)
    first = masks_picture(images, context, torch.tensor([[[5, 6]]]).expand(8, -1, -1), grid_size=(4, 4))
    second = masks_picture(images, context, torch.tensor([[[9, 10]]]).expand(8, -1, -1), grid_size=(4, 4))
    assert first.shape == second.shape
    assert first.shape[0] == 3
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
    assert [tag for tag, *_ in drawn] == ["train/masks"]
