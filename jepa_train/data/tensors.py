"""Images held in memory."""

from __future__ import annotations

from torch import Tensor
from torch.utils.data import Dataset


class ImageTensors(Dataset[dict[str, Tensor]]):
    """Images (N, C, H, W) with labels (N,)."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": self.images[index], "label": self.labels[index]}
