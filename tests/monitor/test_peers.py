"""The callback in the LightningModule of a published self-supervised library (the extra ``peers``)."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.monitor.helpers import monitor

spt = pytest.importorskip("stable_pretraining", reason="needs the extra: peers")
forwards = pytest.importorskip("stable_pretraining.forward", reason="needs the extra: peers")

pytestmark = [
    # of the library's own module, with Lightning's own data and logging
    pytest.mark.filterwarnings("ignore:You have overridden `on_after_batch_transfer` in `LightningModule`"),
    pytest.mark.filterwarnings("ignore:Trying to infer the `batch_size` from an ambiguous collection"),
]


small_monitor = partial(monitor, encoder=None, log_density=None, num_samples=64)


def images(seed: int = 0) -> Tensor:
    noise = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return noise * torch.linspace(0.05, 1.0, 64)[:, None, None, None]


def data() -> Any:
    """Two noisy views a sample to train on, one image to validate on, in the library's own data module."""

    def loader(seed: int, transform: Any) -> DataLoader[Any]:
        labelled = TensorDataset(images(seed), torch.arange(64) % 4)
        return DataLoader(spt.data.FromTorchDataset(labelled, ["image", "label"], transform), 16, drop_last=True)

    def noisy(sample: dict[str, Any]) -> dict[str, Any]:
        return sample | {"image": sample["image"] + 0.1 * torch.randn_like(sample["image"])}

    transform = spt.data.transforms.MultiViewTransform([noisy, noisy])
    return spt.data.DataModule(train=loader(0, transform), val=loader(1, None))


def backbone() -> nn.Module:
    small = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return spt.backbone.from_timm("test_vit", num_classes=0, **small)


def projector() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 8))


def module(name: str) -> pl.LightningModule:
    parts: dict[str, Any] = {"backbone": backbone(), "projector": projector()}
    if name == "simclr":
        parts["simclr_loss"] = spt.losses.NTXEntLoss(temperature=0.5)
    elif name == "vicreg":
        parts["vicreg_loss"] = spt.losses.VICRegLoss()
    elif name == "barlow_twins":
        parts["barlow_loss"] = spt.losses.BarlowTwinsLoss()
    else:
        parts = {part: spt.TeacherStudentWrapper(network) for part, network in parts.items()}
        parts |= {"predictor": nn.Linear(8, 8), "byol_loss": spt.losses.BYOLLoss()}
    optim = {"optimizer": {"type": "AdamW", "lr": 1e-3}, "scheduler": "CosineAnnealingLR"}
    return spt.Module(forward=getattr(forwards, name), optim=optim, hparams={}, **parts)


def fit(folder: Path, name: str, *callbacks: pl.Callback) -> tuple[pl.Trainer, Any]:
    pl.seed_everything(0, verbose=False)
    made = module(name)
    logger = pl.loggers.TensorBoardLogger(folder)
    run = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=logger,
        callbacks=[spt.callbacks.TeacherStudentCallback(), *callbacks],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        default_root_dir=folder,
    )
    run.fit(made, data())
    return run, made


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("simclr", {}),
        ("vicreg", {}),
        ("barlow_twins", {}),
        ("byol", {"encoder": "backbone.teacher"}),
    ],
)
def test_a_module_of_stable_pretraining_is_measured_and_trains_as_without(
    tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    callback = small_monitor(**settings, reference=images())
    run, made = fit(tmp_path, name, callback)
    assert callback.readings is not None
    encoder = made.get_submodule(settings.get("encoder", "backbone")).eval()
    torch.testing.assert_close(callback.readings.z, encoder(images(1)).detach().double(), rtol=1e-4, atol=1e-5)
    events = EventAccumulator(run.logger.log_dir, size_guidance={"images": 0, "scalars": 0}).Reload()
    for tag in (
        "scores/log_density_median",
        "scores/complexity_spearman",
        "gaussianity/sliced_ep_ratio",
        "jacobian/rank",
        "jacobian/nonfinite_fraction",
    ):
        assert [event.step for event in events.Scalars(tag)] == [0, 4, 8], tag
        assert all(math.isfinite(event.value) for event in events.Scalars(tag)), tag
    assert float(run.callback_metrics["jacobian/nonfinite_fraction"]) == 0
    assert {"pictures/histogram", "pictures/gallery", "pictures/spectrum"} <= set(events.Tags()["images"])
    _, without = fit(tmp_path / "without", name)
    for key, value in without.state_dict().items():
        assert torch.equal(value, made.state_dict()[key]), key


def test_its_training_views_can_be_the_reference(tmp_path: Path) -> None:
    """Nothing is passed: the reference is the training data, {"views": [{"image": ...}, ...]}."""
    callback = small_monitor()
    run, _ = fit(tmp_path, "simclr", callback)
    assert math.isfinite(run.callback_metrics["scores/knn_spearman"])
