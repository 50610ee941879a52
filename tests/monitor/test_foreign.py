"""The callback in modules and datasets that were not written for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import pytest
import timm
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

from jepa_monitor import JEPAScoreMonitor
from tests.monitor.helpers import monitor

pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]

small_monitor = partial(monitor, encoder=None, log_density=None, num_samples=96)

FINITE = (
    "density/log_density_median",
    "density/jepa_score_median",
    "density/complexity_spearman",
    "gaussianity/sliced_ep_ratio",
    "gaussianity/effective_rank_ratio",
    "jacobian/rank",
    "monitor/seconds",
)


def trainer(folder: Path, *callbacks: Any, package: Any = pl, **settings: Any) -> Any:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    defaults = {"max_epochs": 1, "logger": False, "log_every_n_steps": 1} | quiet
    return package.Trainer(accelerator="cpu", default_root_dir=folder, callbacks=list(callbacks), **defaults | settings)


def fit(folder: Path, module: Any, train: Any, *callbacks: Any, val: Any = None, **settings: Any) -> Any:
    run = trainer(folder, *callbacks, **settings)
    run.fit(module, train, val)
    return run


def assert_meaningful(values: dict[str, Any]) -> None:
    for tag in FINITE:
        assert math.isfinite(values[tag]), tag
    assert values["jacobian/nonfinite_fraction"] == 0
    assert values["jacobian/rank"] >= 1
    assert values["jacobian/clipped_fraction"] < 1


def assert_embeds(callback: JEPAScoreMonitor, expected: Tensor) -> None:
    assert callback.readings is not None
    torch.testing.assert_close(callback.readings.z, expected.detach().double(), rtol=1e-4, atol=1e-5)


def pixels(count: int = 96, size: int = 8, channels: int = 3, seed: int = 0) -> Tensor:
    """Noise of a contrast that differs from image to image, so that some are denser and simpler than others."""
    noise = torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))
    return noise * torch.linspace(0.05, 1.0, count)[:, None, None, None]


def labels(count: int = 96) -> Tensor:
    return torch.arange(count) % 3


class Classifier(pl.LightningModule):
    """A network of somebody else with a head of one's own."""

    def __init__(self, network: nn.Module, head: nn.Module, features: Any = lambda out: out) -> None:
        super().__init__()
        self.network, self.head, self.features = network, head, features

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(self.network(x)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class ConvAutoencoder(pl.LightningModule):
    """Trained on images without labels, without validation, with operations in place and a scheduler."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Dropout(0.2),
            nn.Conv2d(8, 4, 3, 2, 1),
        )
        self.decoder = nn.Sequential(nn.ConvTranspose2d(4, 8, 4, 2, 1), nn.GELU(), nn.ConvTranspose2d(8, 3, 4, 2, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return functional.mse_loss(self.decoder(self.encoder(batch)), batch)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


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


class TextEncoder(pl.LightningModule):
    """Reads token numbers; what can be differentiated is their embeddings (T, E)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.embedding, self.encoder, self.head = nn.Embedding(11, 8), encoder, nn.Linear(8, 11)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (tokens,) = batch
        encoded = self.encoder(self.embedding(tokens))
        logits = self.head(encoded[0] if isinstance(encoded, tuple) else encoded)
        return functional.cross_entropy(logits.transpose(1, 2), tokens)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=16, batch_first=True)
    return nn.TransformerEncoder(layer, num_layers=2)


def sentences(count: int = 96, length: int = 5) -> Tensor:
    return torch.randint(11, (count, length), generator=torch.Generator().manual_seed(0))


def spoken(count: int = 96, length: int = 5) -> Tensor:
    return torch.randn(count, length, 8, generator=torch.Generator().manual_seed(1))


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


def images_with_labels() -> TensorDataset:
    return TensorDataset(pixels(), labels())


def vision_transformer(*, checkpointing: bool = False) -> Classifier:
    options = {"num_classes": 0, "img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
    network = timm.create_model("test_vit", **options, global_pool="")
    network.set_grad_checkpointing(checkpointing)
    return Classifier(network, nn.Linear(16, 3), lambda z: z[:, 0])


def convnext() -> Classifier:
    sizes = {"depths": (1, 1, 1, 1), "dims": (8, 8, 12, 16)}
    return Classifier(timm.create_model("test_convnext", num_classes=0, **sizes), nn.Linear(16, 3))


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
    assert math.isfinite(run.callback_metrics["density/jepa_score_median"])
    assert math.isfinite(run.callback_metrics["gaussianity/sliced_ep_ratio"])


@pytest.mark.slow
def test_steps_that_go_by_twos_are_not_missed(tmp_path: Path) -> None:
    """Two optimizers make two steps a batch, so that not every multiple of three is met exactly."""
    callback = small_monitor(encoder="discriminator.features", every_n_steps=3, every_n_epochs=0, at_start=False)
    logger = TensorBoardLogger(tmp_path)
    fit(tmp_path, GAN(), DataLoader(images_with_labels(), 16), callback, logger=logger)
    measured = [event.step for event in EventAccumulator(logger.log_dir).Reload().Scalars("jacobian/rank")]
    assert measured == [4, 6, 10, 12]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(zip(sentences()))


@pytest.mark.parametrize("data", [TensorDataset(sentences()), Stream()], ids=["token numbers", "a stream"])
def test_training_data_that_cannot_be_a_reference_costs_only_that(tmp_path: Path, data: Any) -> None:
    """The probe is given; the reference, by default the training data, cannot be read by index as real numbers."""
    callback = small_monitor(probe=spoken())

    with pytest.warns(UserWarning, match="reference|baseline|leaves"):
        run = fit(tmp_path, TextEncoder(transformer()), DataLoader(data, 32), callback)
    assert_meaningful(run.callback_metrics)


def test_a_callback_used_again_measures_the_new_project(tmp_path: Path) -> None:
    callback = small_monitor(encoder="network", at_start=False)
    for seed in (1, 2):
        module = Structured(lambda batch: batch)
        fit(tmp_path, module, DataLoader(pixels(seed=seed), 32), callback)

        assert_embeds(callback, module.network(pixels(seed=seed)))


def test_bytes_become_inputs_through_preprocess(tmp_path: Path) -> None:
    class FromBytes(ConvAutoencoder):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step(batch.float() / 255, batch_idx)

    raw = (128 + 40 * pixels()).clamp(0, 255).to(torch.uint8)
    callback = small_monitor(pool="flatten", preprocess=lambda x: x.float() / 255)
    run = fit(tmp_path, FromBytes(), DataLoader(raw, 32), callback)
    assert_meaningful(run.callback_metrics)


@dataclass
class Item:
    image: Tensor
    label: int


@dataclass
class Picture:
    """Stands for a PIL image."""

    content: Tensor


class Pair(NamedTuple):
    image: Tensor
    label: int


class Listed(Dataset[Any]):
    def __init__(self, item: Callable[[Tensor, int], Any]) -> None:
        self.items = [item(image, int(label)) for image, label in zip(pixels(), labels(), strict=True)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def together(items: Sequence[Any]) -> Any:
    if isinstance(items[0], Item):
        return Item(torch.stack([item.image for item in items]), torch.tensor([item.label for item in items]))
    if isinstance(items[0], Picture):
        return torch.stack([item.content for item in items])
    return default_collate(items)


class Structured(Classifier):
    """Finds the image in a batch of its own structure."""

    def __init__(self, find: Callable[[Any], Tensor]) -> None:
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(192, 12), nn.Tanh()), nn.Linear(12, 3))
        self.find = find

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(self.find(batch)).square().mean()


STRUCTURES: dict[str, tuple[Callable[[], Any], Callable[[Any], Tensor], dict[str, Any]]] = {
    "tensor": (pixels, lambda batch: batch, {}),
    "tuple": (lambda: Listed(lambda x, y: (x, y)), lambda batch: batch[0], {}),
    "label first": (lambda: Listed(lambda x, y: (y, x)), lambda batch: batch[1], {"images": 1}),
    "named tuple": (lambda: Listed(Pair), lambda batch: batch.image, {}),
    "dict": (lambda: Listed(lambda x, y: {"label": y, "image": x}), lambda batch: batch["image"], {}),
    "dict of an unusual key": (
        lambda: Listed(lambda x, y: {"scan": x}),
        lambda batch: batch["scan"],
        {"images": "scan"},
    ),
    "dataclass": (lambda: Listed(Item), lambda batch: batch.image, {}),
    "pictures that the loader converts": (lambda: Listed(lambda x, y: Picture(x)), lambda batch: batch, {}),
    "two views and a label": (lambda: Listed(lambda x, y: ((x, -x), y)), lambda batch: batch[0][0], {}),
    "dict of views": (
        lambda: Listed(lambda x, y: {"views": [{"image": x}, {"image": -x}]}),
        lambda batch: batch["views"][0]["image"],
        {},
    ),
    "two views by a function": (
        lambda: Listed(lambda x, y: ((x, -x), y)),
        lambda batch: batch[0][0],
        {"images": lambda batch: batch[0][1]},
    ),
}


@pytest.mark.parametrize(("dataset", "find", "settings"), STRUCTURES.values(), ids=STRUCTURES.keys())
def test_inputs_are_found_in_a_dataset_of(
    tmp_path: Path, dataset: Callable[[], Any], find: Callable[[Any], Tensor], settings: dict[str, Any]
) -> None:
    module, callback = Structured(find), small_monitor(encoder="network", **settings)
    run = fit(tmp_path, module, DataLoader(dataset(), 32, collate_fn=together), callback)
    assert_meaningful(run.callback_metrics)
    assert_embeds(callback, module.network(-pixels() if callable(settings.get("images")) else pixels()))


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
    assert {"density/histogram", "density/gallery", "jacobian/spectrum"} <= set(events.Tags()["images"])
    assert "JEPA-SCORE/tags/text_summary" in events.Tags()["tensors"]
    (values,) = trainer(tmp_path, small_monitor(), package=other).validate(module, loaders[1], verbose=False)
    assert_meaningful(values)
