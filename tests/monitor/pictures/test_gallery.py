"""Images in the order of their density, and as they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jepa_monitor import pictures
from jepa_monitor.pictures import figure
from jepa_monitor.pictures.gallery import pixel_range, thumbnails
from tests.monitor.pictures.helpers import NAN, has, over_training, row


def test_pixels_share_one_range() -> None:
    dark, bright = torch.tensor([[[[-4.0, 0.0]]]]), torch.tensor([[[[6.0, NAN]]]])
    assert pixel_range([dark, bright, torch.zeros(0, 1, 2, 2)]) == (-4.0, 6.0)
    assert pixel_range([torch.full((1, 1, 2, 2), NAN)]) is None
    square = thumbnails(torch.tensor([[[[-4.0, 1.0], [6.0, NAN]]]]), 2, (-4.0, 6.0))
    assert square.shape == (1, 2, 2, 4)
    assert square[0, :, :, 0].tolist() == [[0, 128], [255, 128]]


def test_channels_are_colours_only_if_three() -> None:
    colour = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert thumbnails(colour, 4, (0.0, 1.0))[0, 0, 0].tolist() == [255, 0, 0, 255]
    assert thumbnails(colour[:, :2], 4, (0.0, 1.0))[0, 0, 0].tolist() == [255, 255, 255, 255]


def test_large_images_are_averaged_and_tall_ones_centred() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(8).expand(1, 1, 16, 16)
    assert set(thumbnails(stripes, 4, (0.0, 1.0))[..., :3].flatten().tolist()) == {128}
    tall = thumbnails(torch.zeros(1, 1, 8, 4), 8, (0.0, 1.0))[0, :, :, 3]
    assert (tall[:, 2:6] == 255).all()
    assert (tall[:, :2] == 0).all()


def test_best_stand_left_and_worst_right() -> None:
    low, high = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    rows = [pictures.GalleryRow("a", high, low, torch.ones(2), torch.zeros(2))]
    image = pictures.gallery_picture(rows)[:, 60:100]
    black = (image[0] == 0) & (image[3] == 255)
    left, right = black.chunk(2, dim=1)
    assert int(right.sum()) > 1000
    assert int(left.sum()) == 0


def test_scores_are_written() -> None:
    one = row()
    shifted = pictures.GalleryRow(one.title, one.highest, one.lowest, one.high_scores + 3, one.low_scores)
    assert not torch.equal(pictures.gallery_picture([one]), pictures.gallery_picture([shifted]))


def test_cells_have_the_colour_of_their_percentile() -> None:
    images, values = torch.zeros(2, 1, 4, 4), torch.tensor([[10.0, 33.0], [95.0, NAN]])
    image = pictures.gallery_over_training_picture(images, [0, 1], values)
    for present in (0.10, 0.33, 0.95, NAN):
        assert has(image, figure.colours(present))
    assert not has(image, figure.colours(0.60))


def test_cells_are_numbered_up_to_twelve_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = over_training(1, 12), over_training(1, 13)
    monkeypatch.setattr("jepa_monitor.pictures.gallery.MOST_NUMBERED", 0)
    torch.manual_seed(0)
    assert not torch.equal(over_training(1, 12)[:, :, 300:], few[:, :, 300:])
    assert torch.equal(over_training(1, 13)[:, :, 300:], many[:, :, 300:])


@pytest.mark.parametrize(("steps", "values"), [([0, 1], torch.zeros(3, 2)), ([0], torch.zeros(2, 2))])
def test_steps_must_fit(steps: list[int], values: Tensor) -> None:
    with pytest.raises(ValueError, match="steps"):
        pictures.gallery_over_training_picture(torch.zeros(2, 1, 4, 4), steps, values)
