"""The base classes of the DataModules: loaders of whole batches, and what they offer to the monitor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar

import lightning.pytorch as pl
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from jepa_train.data.resumable import DrawnPerEpoch, EpochSampler, ImageLoader, ResumableDataLoader
from jepa_train.data.transforms import PictureToTensor, data_config
from jepa_train.errors import ConfigurationError, check_at_least

Samples = Dataset[dict[str, Any]]


class ImageTensors(Dataset[dict[str, Tensor]]):
    """Images (N, C, H, W) with labels (N,), held in memory."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": self.images[index], "label": self.labels[index]}


Drawn = TypeVar("Drawn", bound=ImageTensors)


class ImageDataModule(pl.LightningDataModule, ABC):
    """Training images, a probe for validation and test, and further sets that only the monitor sees.

    Args:
        image_size: height and width of the images, in pixels.
        channels: image channels.
        batch_size: images per process.
        num_workers: worker processes of each loader.
        seed: seed of the order of the training images, and of what is drawn at random for each.

    Raises:
        ConfigurationError: for a number that cannot work.
    """

    def __init__(self, image_size: int, channels: int, batch_size: int, num_workers: int, seed: int = 0) -> None:
        super().__init__()
        check_at_least(1, image_size=image_size, channels=channels, batch_size=batch_size)
        check_at_least(0, num_workers=num_workers, seed=seed)
        self.image_size = image_size
        self.channels = channels
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self._train: Samples | None = None
        self._probe: Samples | None = None
        self._resume: dict[str, int] | None = None

    @abstractmethod
    def make_train(self) -> Samples:
        """The training images, without augmentation (views are made on the device, by the module)."""

    def make_augmented(self) -> Samples | None:
        """The training images as the workers draw them at random, if they do; random numbers from torch alone."""
        return None

    @abstractmethod
    def make_probe(self) -> Samples:
        """The images that are measured."""

    @property
    def probe_advice(self) -> str:
        """Advice for a warning of too few measured images; empty where nothing can be done."""
        return ""

    def reference_dataset(self) -> Samples:
        """Training images by index: what baselines are fitted to."""
        if self._train is None:
            self._train = self.make_train()
        return self._train

    def probe_dataset(self) -> Samples:
        """The images that are measured, by index."""
        if self._probe is None:
            self._probe = self.make_probe()
        return self._probe

    def ood_datasets(self) -> Mapping[str, Samples]:
        """Out-of-distribution sets by name."""
        return {}

    def preparation(self) -> dict[str, Any]:
        """Describe what was done to the images; an exported encoder must be given the same.

        Returns:
            ``data_config``, arguments of ``timm.data.create_transform`` for 8-bit pictures or for tensors of pixels in
            [0, 1] (:func:`jepa_train.data.data_config` makes them), and ``background``, the color behind transparent
            pixels, where images come from files. Empty: not known.
        """
        return {}

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches without the last, smaller one; a run that was killed goes on with the very next batch."""
        augmented = self.make_augmented()
        dataset = self.reference_dataset() if augmented is None else DrawnPerEpoch(augmented, seed=self.seed)
        size = len(dataset)  # type: ignore[arg-type]  # torch's Dataset declares no length; all of ours have one
        processes = self.trainer.world_size if self.trainer else 1
        if size // processes < self.batch_size:
            shared = "" if processes == 1 else f" on each of {processes} processes"
            raise ConfigurationError(
                f"only {size // processes} training images{shared} for batch size {self.batch_size}: lower "
                "--data.batch_size."
            )
        # an order that (seed, epoch) decides alone: a resumed run goes on with it, and any number of processes
        # sees the same global batches
        sampler = EpochSampler(
            dataset,
            num_replicas=processes,
            rank=self.trainer.global_rank if self.trainer else 0,
            seed=self.seed,
            keyed=augmented is not None,
        )
        loader = ResumableDataLoader(
            dataset,
            sampler=sampler,
            drop_last=True,
            progress=self._progress if self.trainer else None,
            **self._loader_arguments(),
        )
        if self._resume is not None:
            loader.load_state_dict(self._resume)
            self._resume = None
        return loader

    def state_dict(self) -> dict[str, Any]:
        """Return how far training got in its epoch, and how the images were prepared.

        Lightning 2.6 saves this of the loader itself too, but gives it back to loaders only that are made after the
        restart; a module that asks for ``trainer.estimated_stepping_batches`` while its optimizer is configured has
        one made before.
        """
        loader = self.trainer.train_dataloader if self.trainer is not None else None
        progress = {"train": loader.state_dict()} if isinstance(loader, ResumableDataLoader) else {}
        return progress | self.preparation()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on in the epoch, with the next loader that is made."""
        self._resume = state_dict.get("train")

    def _progress(self) -> tuple[int, int]:
        """The epoch, and its batches whose training step is over: what Lightning goes on from."""
        assert self.trainer is not None
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return self.trainer.current_epoch, int(batches.processed)  # type: ignore[attr-defined]  # of its subclass

    def val_dataloader(self) -> DataLoader[Any]:
        """The probe in order."""
        return self._loader(self.probe_dataset())

    def test_dataloader(self) -> DataLoader[Any]:
        """The probe in order."""
        return self._loader(self.probe_dataset())

    def predict_dataloader(self) -> DataLoader[Any]:
        """The probe in order."""
        return self._loader(self.probe_dataset())

    def _loader(self, dataset: Samples) -> DataLoader[Any]:
        return ImageLoader(dataset, **self._loader_arguments())

    def _loader_arguments(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            # page-locked memory speeds up copies to CUDA only; anywhere else torch warns that there is none
            "pin_memory": self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        }


class PictureDataModule(ImageDataModule):
    """Pictures of any size and mode, brought to RGB squares.

    Args:
        image_size: height and width that pictures are brought to, in pixels.
        background: color behind transparent pixels.
        crop_scale: train on random crops of the full-resolution pictures, with this smallest and largest share of their
            area; ``None`` takes the whole picture, its longer side cut.
        flip: mirror training pictures left and right with probability one half.
        batch_size, num_workers, seed: see ``ImageDataModule``.
    """

    def __init__(
        self,
        image_size: int,
        *,
        background: str,
        crop_scale: tuple[float, float] | None,
        flip: bool,
        batch_size: int,
        num_workers: int,
        seed: int,
    ) -> None:
        super().__init__(image_size, 3, batch_size, num_workers, seed)
        self.background = background
        self._whole = PictureToTensor(image_size, background=background)
        self._drawn: PictureToTensor | None = None
        if crop_scale is not None or flip:
            self._drawn = PictureToTensor(image_size, background=background, crop_scale=crop_scale, flip=flip)

    @abstractmethod
    def pictures(self, part: Literal["train", "probe"], to_tensor: PictureToTensor) -> Samples:
        """Training images or probe, made tensors by ``to_tensor``."""

    def make_train(self) -> Samples:
        """The training images, without crops and flips."""
        return self.pictures("train", self._whole)

    def make_augmented(self) -> Samples | None:
        """The training images with crops and flips, if there are any."""
        return None if self._drawn is None else self.pictures("train", self._drawn)

    def make_probe(self) -> Samples:
        """The images that are measured."""
        return self.pictures("probe", self._whole)

    def preparation(self) -> dict[str, Any]:
        """ImageNet's mean and deviation, and the background."""
        return {"data_config": data_config(self.image_size), "background": self.background}


class DrawnDataModule(ImageDataModule, Generic[Drawn]):
    """Images of known density that are drawn in memory, training images and probe independently of each other.

    Args:
        image_size, channels, batch_size, num_workers: see ``ImageDataModule``.
        num_train: training images.
        num_probe: images that are measured.
        seed: seed of all that is drawn.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        *,
        num_train: int,
        num_probe: int,
        batch_size: int,
        num_workers: int,
        seed: int,
    ) -> None:
        super().__init__(image_size, channels, batch_size, num_workers, seed)
        check_at_least(1, num_train=num_train, num_probe=num_probe)
        self.num_train = num_train
        self.num_probe = num_probe

    @abstractmethod
    def draw(self, count: int, *, seed: int) -> Drawn:
        """Draw images; equal seeds give equal ones."""

    def make_train(self) -> Drawn:
        """The training images, one of each sample: what baselines are fitted to."""
        return self.draw(self.num_train, seed=self.seed + 1)

    def make_probe(self) -> Drawn:
        """The images that are measured, drawn independently of the training images."""
        return self.draw(self.num_probe, seed=self.seed + 2)

    @property
    def probe_advice(self) -> str:
        """More of them can be drawn."""
        return "raise --data.num_probe"

    def preparation(self) -> dict[str, Any]:
        """Nothing was done to the images."""
        zeros, ones = [0.0] * self.channels, [1.0] * self.channels
        return {"data_config": data_config(self.image_size, mean=zeros, deviation=ones)}
