"""The small digits inside scikit-learn: real images with labels that need no download."""

from __future__ import annotations

from typing import Any

import torch

from jepa_train.data.base import ImageDataModule, ImageTensors
from jepa_train.data.transforms import data_config
from jepa_train.errors import ConfigurationError, check_above_0

MEAN, DEVIATION = 0.3055, 0.3762  # of the training pixels in [0, 1]
EVERY = 6  # one image in so many is of the probe


class DigitsDataModule(ImageDataModule):
    """1,497 training images of 8 x 8 pixels and a probe of 300, with the digit as label; always the same split.

    Args:
        contrast: standard deviation per pixel of the normalised training images.
        batch_size: images per process.
        num_workers: worker processes of each loader; the images are in memory, so 0 is fastest.
        seed: seed of the order of the training images.
    """

    def __init__(self, contrast: float = 1.0, batch_size: int = 64, num_workers: int = 0, seed: int = 0) -> None:
        super().__init__(8, 1, batch_size, num_workers, seed)
        check_above_0(contrast=contrast)
        self.contrast = contrast

    def make_train(self) -> ImageTensors:
        """All digits but the probe."""
        images, labels = self._digits()
        train = torch.arange(len(images)) % EVERY != 0
        return ImageTensors(images[train], labels[train])

    def make_probe(self) -> ImageTensors:
        """Every sixth digit."""
        images, labels = self._digits()
        return ImageTensors(images[::EVERY], labels[::EVERY])

    def _digits(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (1797, 1, 8, 8) and labels.

        Raises:
            ConfigurationError: without scikit-learn.
        """
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise ConfigurationError(
                "the digits are part of scikit-learn, which is not installed: pip install -e '.[digits]'."
            ) from None
        pixels, labels = load_digits(return_X_y=True)
        images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 16.0
        return (images - MEAN) / (DEVIATION / self.contrast), torch.from_numpy(labels).long()

    def preparation(self) -> dict[str, Any]:
        """Mean and deviation of the training pixels; the contrast is part of the latter."""
        return {"data_config": data_config(self.image_size, mean=[MEAN], deviation=[DEVIATION / self.contrast])}
