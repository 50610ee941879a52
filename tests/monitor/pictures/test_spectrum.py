"""Spectra over training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jepa_monitor import pictures
from jepa_monitor.pictures import figure
from tests.monitor.pictures.helpers import has, spectra


def test_steps_differ_in_colour() -> None:
    image = pictures.spectrum_over_training_picture([0, 10, 20], spectra(3), 2)
    for shade in figure.colours([0.2, 0.56, 0.92]):
        assert has(image, shade)


@pytest.mark.parametrize(("steps", "values"), [([0, 1], torch.zeros(3, 2)), ([0], torch.zeros(2, 2))])
def test_steps_must_fit(steps: list[int], values: Tensor) -> None:
    with pytest.raises(ValueError, match="steps"):
        pictures.spectrum_over_training_picture(steps, values, 1)
