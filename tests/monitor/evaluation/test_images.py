"""Random views: crops of the image, whole and mirrored ones among them."""

from __future__ import annotations

import pytest
import torch

from jepa_monitor.evaluation import crop_and_flip


def ramps(size: int = 16) -> torch.Tensor:
    """(1, 2, H, W): each pixel holds where it is, from -1 to 1: column, then row."""
    line = (torch.arange(size) + 0.5) / size * 2.0 - 1.0
    return torch.stack([line.expand(size, size), line[:, None].expand(size, size)])[None]


def test_views_are_crops_within_the_image_and_half_are_mirrored() -> None:
    views = crop_and_flip(ramps().expand(2000, -1, -1, -1), torch.Generator().manual_seed(0))
    column, row = views[:, 0, 8], views[:, 1, :, 8]
    # where the inner pixels of a view lie: their distance is the share of the image that it shows
    width = (column[:, 12] - column[:, 4]) / 8 * 8
    height = (row[:, 12] - row[:, 4]) / 8 * 8
    assert float((width < 0).double().mean()) == pytest.approx(0.5, abs=0.05)
    assert (height > 0).all()
    area = width.abs() * height
    assert 0.45 < float(area.min()) < 0.55
    assert 0.95 < float(area.max()) <= 1.001
    assert float((width.abs() / height).max()) <= 1.01 * 4 / 3
    assert float((width.abs() / height).min()) >= 0.99 * 3 / 4
    assert float(views.abs().max()) <= 1.0


def test_a_whole_crop_is_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.rand(1, 3, 8, 6)
    for side, expected in ((0.9, image), (0.1, image.flip(3))):
        draw = torch.tensor([[1.0], [0.5], [0.3], [0.3], [side]])
        monkeypatch.setattr(torch, "rand", lambda *_, draw=draw, **__: draw)
        torch.testing.assert_close(crop_and_flip(image, torch.Generator()), expected, atol=1e-5, rtol=0.0)


def test_the_generator_decides() -> None:
    image = torch.rand(2, 1, 8, 8)
    first, second, other = (crop_and_flip(image, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("inputs", [torch.rand(2, 8), torch.zeros(2, 1, 4, 4, dtype=torch.uint8)])
def test_anything_else_must_bring_its_views(inputs: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="pass view="):
        crop_and_flip(inputs, torch.Generator())
