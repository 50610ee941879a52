"""The callback in a project of the package ``pytorch_lightning``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.monitor.foreign.helpers import (
    FINITE,
    assert_embeds,
    assert_meaningful,
    fit,
    images_with_labels,
    pixels,
    small_monitor,
    trainer,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]


@pytest.mark.slow
def test_the_other_lightning_package_is_served_too(tmp_path: Path) -> None:
    import pytorch_lightning as other  # here alone: it changes nothing for the other tests

    class Regression(other.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(192, 12), nn.Tanh(), nn.Dropout(0.2))
            self.head = nn.Linear(12, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.head(self.backbone(batch[0])).square().mean()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", self.training_step(batch, batch_idx))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    logger = other.loggers.TensorBoardLogger(tmp_path)
    module, callback = Regression(), small_monitor(ood={"scaled": 2.0 * pixels(32)})
    loaders = DataLoader(images_with_labels(), 32), DataLoader(TensorDataset(pixels(seed=1)), 32)
    run = fit(tmp_path, module, loaders[0], callback, val=loaders[1], package=other, logger=logger, max_epochs=2)
    assert isinstance(run, other.Trainer)
    assert_meaningful(run.callback_metrics)
    assert_embeds(callback, module.eval().backbone(pixels(seed=1)))
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0, "scalars": 0}).Reload()
    for tag in (*FINITE, "density/ood_auroc/scaled"):
        assert [event.step for event in events.Scalars(tag)] == [0, 3, 6], tag
    assert [event.step for event in events.Scalars("density/stability")] == [3, 6]
    assert {"pictures/histogram", "pictures/gallery", "pictures/spectrum"} <= set(events.Tags()["images"])
    assert "JEPA-SCORE/tags/text_summary" in events.Tags()["tensors"]
    (values,) = trainer(tmp_path, small_monitor(), package=other).validate(module, loaders[1], verbose=False)
    assert_meaningful(values)
