"""The callback in modules that were not written for it: it measures their submodule, and training does not notice."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import timm
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

from jepa_monitor import JEPAScoreMonitor
from tests.monitor.foreign.helpers import (
    Classifier,
    ConvAutoencoder,
    TextEncoder,
    assert_embeds,
    assert_meaningful,
    fit,
    images_with_labels,
    labels,
    pixels,
    sentences,
    small_monitor,
    spoken,
    transformer,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]


class GAN(pl.LightningModule):
    """Two optimizers by hand, spectral norm, and a discriminator whose features are worth a look."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(5, 3 * 64), nn.Tanh(), nn.Unflatten(1, (3, 8, 8)))
        convolution = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 12, 4, 2, 1))
        self.discriminator = nn.ModuleDict(
            {"features": nn.Sequential(convolution, nn.LeakyReLU(0.2), nn.Dropout(0.3)), "verdict": nn.Linear(12, 1)}
        )

    def judge(self, x: Tensor) -> Tensor:
        return self.discriminator["verdict"](self.discriminator["features"](x).mean((2, 3)))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        real = batch[0]
        of_generator, of_discriminator = self.optimizers()  # type: ignore[misc]  # a list here: there are two
        fake = self.generator(torch.randn(len(real), 5))
        verdicts = self.judge(torch.cat([-real, fake.detach()]))
        self.step(of_discriminator, functional.softplus(verdicts).mean())
        self.step(of_generator, functional.softplus(-self.judge(fake)).mean())

    def step(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(part.parameters(), lr=1e-3) for part in (self.generator, self.discriminator)]


def vision_transformer(*, checkpointing: bool = False) -> Classifier:
    options = {"num_classes": 0, "img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    network = timm.create_model("test_vit", **options, global_pool="")
    network.set_grad_checkpointing(checkpointing)
    return Classifier(network, nn.Linear(16, 3), lambda z: z[:, 0])


def convnext() -> Classifier:
    sizes = {"depths": (1, 1, 1, 1), "dims": (8, 8, 12, 16)}
    return Classifier(timm.create_model("test_convnext", num_classes=0, **sizes), nn.Linear(16, 3))


@dataclass
class Project:
    """A module, how the monitor is set to it, what it must then have measured, and what it is trained on."""

    module: Callable[[], pl.LightningModule]
    settings: dict[str, Any]
    embed: Callable[[Any, Tensor], Tensor]
    probe: Tensor
    train: Callable[[], Any]
    val: Dataset[Any] | None = None
    warning: str = ""


PROJECTS = {
    "torchvision ResNet-18 up to its first stage": Project(
        lambda: Classifier(resnet18(num_classes=3), nn.Identity()),
        {
            "encoder": lambda module, x: create_feature_extractor(module.network, {"layer1": "maps"})(x)["maps"],
            "pool": "mean",
        },
        lambda module, x: nn.Sequential(*list(module.network.children())[:5])(x).mean((2, 3)),
        pixels(seed=1),
        images_with_labels,
        TensorDataset(pixels(seed=1), labels()),
    ),
    "timm ConvNeXt": Project(
        convnext,
        {"encoder": "network"},
        lambda module, x: module.network.forward_head(module.network.forward_features(x)),
        pixels(size=32, seed=1),
        lambda: TensorDataset(pixels(size=32), labels()),
        TensorDataset(pixels(size=32, seed=1), labels()),
        # half of the directions of a ConvNeXt that was hardly trained are near float32's rounding
        warning="JEPA-SCORE of some samples .* may be off by more than 0.1 nats",
    ),
    "timm ViT by its first token": Project(
        vision_transformer,
        {"encoder": "network", "pool": "cls"},
        lambda module, x: module.network.forward_features(x)[:, 0],
        pixels(seed=1),
        images_with_labels,
        TensorDataset(pixels(seed=1), labels()),
    ),
    "timm ViT by all tokens": Project(
        vision_transformer,
        {"encoder": "network", "pool": "mean"},
        lambda module, x: module.network.forward_features(x).mean(1),
        pixels(),
        images_with_labels,
    ),
    "autoencoder": Project(
        ConvAutoencoder,
        {"pool": "flatten"},
        lambda module, x: module.encoder(x).flatten(1),
        pixels(),
        pixels,
    ),
    "GAN optimized by hand": Project(
        GAN,
        {"encoder": "discriminator.features"},
        lambda module, x: module.discriminator["features"](x).mean((2, 3)),
        pixels(),
        images_with_labels,
    ),
    "text by its embeddings, Transformer": Project(
        lambda: TextEncoder(transformer()),
        {"probe": spoken(), "reference": 0.5 * spoken()},
        lambda module, x: module.encoder(x).mean(1),
        spoken(),
        lambda: TensorDataset(sentences()),
    ),
    "text by its embeddings, LSTM": Project(
        lambda: TextEncoder(nn.LSTM(8, 8, batch_first=True)),
        {"probe": spoken(), "reference": 0.5 * spoken()},
        lambda module, x: module.encoder(x)[0].mean(1),
        spoken(),
        lambda: TensorDataset(sentences()),
    ),
    "timm ViT with checkpointed blocks": Project(
        lambda: vision_transformer(checkpointing=True),
        {"encoder": "network"},
        lambda module, x: module.network.forward_features(x).mean(1),
        pixels(),
        images_with_labels,
    ),
}


# labels of noise teach the first token to be much the same for all images
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:JEPAScoreMonitor. the embeddings have collapsed")
@pytest.mark.parametrize("project", PROJECTS.values(), ids=PROJECTS.keys())
def test_the_submodule_is_measured_and_training_goes_on_unchanged(tmp_path: Path, project: Project) -> None:
    def trained(*callbacks: JEPAScoreMonitor) -> tuple[pl.LightningModule, dict[str, Any]]:
        pl.seed_everything(0, verbose=False)
        module, val = project.module(), project.val and DataLoader(project.val, 32)
        run = fit(tmp_path, module, DataLoader(project.train(), 32, shuffle=True), *callbacks, val=val)
        return module, dict(run.callback_metrics)

    callback = small_monitor(**project.settings)
    with pytest.warns(UserWarning, match=project.warning) if project.warning else nullcontext():
        module, values = trained(callback)
    assert_meaningful(values)
    assert_embeds(callback, project.embed(module.eval().requires_grad_(False), project.probe))
    assert callback.readings is not None
    few, embed = project.probe[:6], partial(project.embed, module)
    with sdpa_kernel(SDPBackend.MATH):
        rows = torch.autograd.functional.jacobian(lambda x: embed(x).sum(0), few)
    expected = torch.linalg.svdvals(rows.double().transpose(0, 1).flatten(2))
    torch.testing.assert_close(callback.readings.log_singular[:6].exp(), expected, rtol=1e-3, atol=1e-5)
    without, _ = trained()
    for name, value in without.state_dict().items():
        assert torch.equal(value, module.state_dict()[name]), name


@pytest.mark.slow
def test_a_resnet_without_its_head_is_measured_by_path(tmp_path: Path) -> None:
    """The encoder of Lightning's own guide to transfer learning: maps (B, 512, 1, 1), more dimensions than images."""
    module = Classifier(nn.Sequential(*list(resnet18().children())[:-1]), nn.Linear(512, 3), lambda out: out.flatten(1))
    callback = small_monitor(encoder="network", num_samples=16)
    reason = (
        "16 finite embeddings cannot give the covariance of 512 .*; to measure more than 16 samples, raise num_samples"
    )
    with pytest.warns(UserWarning, match=reason):
        run = fit(tmp_path, module, DataLoader(images_with_labels(), 32), callback)
    assert_embeds(callback, module.eval().network(pixels()[:16]).flatten(1))
    assert run.callback_metrics["jacobian/nonfinite_fraction"] == 0
    assert math.isfinite(run.callback_metrics["scores/jepa_score_median"])
    assert math.isfinite(run.callback_metrics["gaussianity/sliced_ep_ratio"])


@pytest.mark.slow
def test_steps_that_go_by_twos_are_not_missed(tmp_path: Path) -> None:
    """Two optimizers make two steps a batch, so that not every multiple of three is met exactly."""
    callback = small_monitor(encoder="discriminator.features", every_n_steps=3, every_n_epochs=0, at_start=False)
    logger = TensorBoardLogger(tmp_path)
    fit(tmp_path, GAN(), DataLoader(images_with_labels(), 16), callback, logger=logger)
    measured = [event.step for event in EventAccumulator(logger.log_dir).Reload().Scalars("jacobian/rank")]
    assert measured == [4, 6, 10, 12]
