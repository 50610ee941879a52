"""The two passes of ``python train.py rank`` beside what they replace, and its memory: images a second, MiB.

    python benchmarks/ranking.py [--only complexity loader forward volumes fashion many] [--images 128] [--device cpu]

``complexity`` compares the compressed sizes of a ranking with zlib's. ``loader`` is what the first pass reads, alone
and with an encoder that takes no time, beside a bare loader. ``forward`` is the first pass (thumbnails and compressed
sizes included) beside a bare loop of timm over the same files with as many workers. ``volumes`` is the second pass
beside Listing 1 of the paper, on encoders that were trained for 100 steps on images of known density, with and without
calibration. ``fashion`` ranks the test images of Fashion-MNIST by a ``--checkpoint``, page and all. ``many`` ranks
100,000 small images and prints the peak of memory. With ``--device cuda`` both passes take ViT-S/14 and ViT-B/14 with
random weights, at 224 px.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from scipy.stats import spearmanr
from score import listing_1, trained_model
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import DataLoader

from jepa_monitor import jacobian_gram
from jepa_monitor.ranking import compressed_size as by_zlib
from jepa_train.data import FashionMNISTDataModule
from jepa_train.data.base import ImageTensors
from jepa_train.ranking.batches import DataSettings, PartBatches, part_loader
from jepa_train.ranking.embedding import listing_order
from jepa_train.ranking.encoders import ImageEncoder, load_encoder
from jepa_train.ranking.images import FilesToRank, compressed_size
from jepa_train.ranking.listing import list_images
from jepa_train.ranking.preparation import PicturePreparation
from jepa_train.ranking.references import CALIBRATION
from jepa_train.ranking.run import rank

MODELS = {"cpu": ["vit_tiny_patch16_224"], "cuda": ["vit_small_patch14_dinov2", "vit_base_patch14_dinov2"]}
SIZE = 224  # pixels that these models see
IMAGENET = 50_000
BATCH = 64
LISTED = 16  # images by Listing 1 on a GPU
KIB, MIB = 1 << 10, 1 << 20


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a process of its own, and return its result with the peak of its memory in MiB."""
    # not a pool of multiprocessing, whose processes may start no workers
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, function, arguments).result()


def _measured(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, float]:
    result = function(*arguments)
    return result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB


class Peak(Callback):
    """The most memory that a block takes above what the process holds before it, in MiB, or a pass of a Trainer.

    A process's own record goes back to its start, and importing torch takes more than an encoder of small images.
    """

    mib = math.nan

    def __enter__(self) -> Peak:
        """Forget earlier peaks, and give back what is free."""
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        self._before = _kib("VmRSS")
        return self

    def __exit__(self, *error: object) -> None:
        """Read the peak."""
        self.mib = (_kib("VmHWM") - self._before) / KIB

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin; of several passes the last counts."""
        self.__enter__()

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End."""
        self.__exit__()


def _kib(name: str) -> int:
    """A line of the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def photographs(folder: Path, count: int, size: int) -> Path:
    """Files of smooth random colors."""
    folder.mkdir(parents=True)
    draws = np.random.default_rng(0)
    for number in range(count):
        coarse = draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{number:06d}.jpg")
    return folder


def seconds_of(
    images: Path,
    encoder: str | ImageEncoder,
    output: Path,
    device: str,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> dict[str, Any]:
    """Seconds of each stage of a ranking, and how volumes were estimated."""
    runner = {"accelerator": "gpu" if device == "cuda" else "cpu", "devices": 1, "enable_progress_bar": False}
    runner["callbacks"] = list(callbacks)
    rank(images, encoder=encoder, output=output, trainer=runner, **{"page": False, **settings})
    summary: dict[str, Any] = json.loads((output / "summary.json").read_text())
    return summary["seconds"] | {"volumes_by": summary["volumes"]}


def first_pass(images: Path, model: str, output: Path, device: str, workers: int) -> float:
    """Images a second of the first pass."""
    data = DataSettings(num_workers=workers)
    settings = {"scores": "compressed_size", "data": data, "image_size": SIZE}
    seconds = seconds_of(images, f"random:{model}", output, device, **settings)
    return len(list_images(images)) / float(seconds["embeddings"])


def bare_loop(images: Path, model: str, device: str, workers: int) -> float:
    """Images a second of timm's model over the files, prepared as timm says, and nothing else."""
    encoder = load_encoder(f"random:{model}", image_size=SIZE)
    files = _Pictures(images, encoder.prepare)
    module = encoder.module.to(device)
    start = time.perf_counter()
    with torch.inference_mode():
        for batch in DataLoader(files, batch_size=BATCH, num_workers=workers):
            module(batch.to(device)).cpu()
    return len(files) / (time.perf_counter() - start)


class _Pictures(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, root: Path, prepare: Callable[[Image.Image], torch.Tensor]) -> None:
        self.paths, self.prepare = sorted(root.iterdir()), prepare

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as picture:
            return self.prepare(picture)


class Mean(nn.Module):
    """An encoder that takes no time, as on a fast device."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Average colors, (B, C, H, W) -> (B, C)."""
        return x.mean((2, 3))


def loader(images: Path, folder: Path, workers: int) -> None:
    """Print what is read in a second, alone and by the first pass of an encoder that takes no time."""
    encoder = replace(load_encoder(f"random:{MODELS['cpu'][0]}", image_size=SIZE), module=Mean())
    files, bare = FilesToRank(list_images(images), encoder.prepare), _Pictures(images, encoder.prepare)
    settings = DataSettings(batch_size=BATCH, num_workers=workers)
    order = listing_order(len(files), settings.part_size)

    def first_pass(turn: int) -> None:
        seconds_of(images, encoder, folder / f"read_{turn}", "cpu", scores="compressed_size", data=settings)

    ways: dict[str, Callable[[int], Any]] = {
        "bare loader": lambda turn: exhaust(DataLoader(bare, batch_size=BATCH, num_workers=workers)),
        "our loader": lambda turn: exhaust(part_loader(PartBatches(files, order, order.parts, BATCH), settings)),
        "first pass": first_pass,
    }
    first_pass(-1)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    work: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(5):
        for name, read in ways.items():
            start, before = time.perf_counter(), cpu_seconds()
            read(turn)
            rates[name].append(len(files) / (time.perf_counter() - start))
            work[name].append((cpu_seconds() - before) / len(files))
    seconds, bare_rate = medians(work), statistics.median(rates["bare loader"])
    for name, rate in medians(rates).items():
        print(
            f"{name}, {workers} workers: {rate:.0f} images/s, {rate / bare_rate:.2f} of the bare loader's (goal .9); "
            f"{1e3 * seconds[name]:.2f} ms of CPU an image, {seconds['bare loader'] / seconds[name]:.2f}",
            flush=True,
        )


def complexity(count: int = 3000) -> None:
    """Print how zstd ranks pictures beside zlib, and how well each tells garments from digits."""
    data = FashionMNISTDataModule()
    config = data.preparation()["data_config"]
    test, mnist = data.probe_dataset(), data.ood_datasets()["mnist"]
    assert isinstance(test, ImageTensors)
    assert isinstance(mnist, ImageTensors)
    garments, digits = (
        ((images[:count] * config["std"][0] + config["mean"][0]) * 255.0).round().byte()
        for images in (test.images, mnist.images)
    )
    draws = np.random.default_rng(0)
    crops = []
    for photograph in load_sample_images().images * 250:
        side = int(draws.integers(60, min(photograph.shape[:2])))
        top, left = (int(draws.integers(0, length - side)) for length in photograph.shape[:2])
        crop = Image.fromarray(photograph[top : top + side, left : left + side]).resize((SIZE, SIZE))
        crops.append(torch.from_numpy(np.array(crop)).permute(2, 0, 1).contiguous())
    ours, zlib = (lambda images: [compressed_size(image) for image in images]), partial(by_zlib, low=0.0, high=255.0)
    for name, images in {"garments": garments, "crops of photographs": crops}.items():
        rho = spearmanr(ours(images), zlib(torch.stack(list(images)))).statistic
        print(f"complexity, {len(images)} {name}: Spearman of zstd and zlib {rho:.3f}")
    labels = [1] * len(garments) + [0] * len(digits)
    for name, sizes in {"zstd": ours, "zlib": zlib}.items():
        found = roc_auc_score(labels, [*sizes(garments), *sizes(digits)])
        print(f"complexity: AUROC of garments among digits by {name} {found:.3f}", flush=True)


def exhaust(batches: DataLoader[Any]) -> None:
    """Read all batches, and keep none."""
    for _ in batches:
        pass


def cpu_seconds() -> float:
    """Time that this process and its workers spent on CPUs, whatever else is running there."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def medians(rates: dict[str, list[float]]) -> dict[str, float]:
    """Median of each list."""
    return {name: statistics.median(values) for name, values in rates.items()}


def forward(images: Path, folder: Path, device: str, workers: int) -> None:
    """Print the first pass beside the bare loop, in turn."""
    for model in MODELS[device]:
        rates: dict[str, list[float]] = {"rank": [], "bare loop": []}
        for turn in range(3):
            rates["bare loop"].append(bare_loop(images, model, device, workers))
            rates["rank"].append(first_pass(images, model, folder / f"{model}_{turn}", device, workers))
        found = medians(rates)
        ours, bare = found["rank"], found["bare loop"]
        hours = IMAGENET / ours / 3600
        print(
            f"forward {model}: {ours:.1f} images/s, bare loop {bare:.1f}, ratio {ours / bare:.2f} (goal .9), "
            f"{hours:.2f} h for {IMAGENET} images",
            flush=True,
        )


class Small(nn.Module):
    """An encoder that takes no time: what is left is the ranking itself."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.Tanh(), nn.Linear(32, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed (B, 3, 8, 8)."""
        return self.layers(x)


def encoder_of(module: nn.Module, channels: int, size: int, identity: str) -> ImageEncoder:
    """An encoder of small pictures whose pixels become -1 to 1."""
    config = {
        "input_size": [channels, size, size],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": [0.5] * channels,
        "std": [0.5] * channels,
    }
    module = module.eval().requires_grad_(False)
    return ImageEncoder(module, PicturePreparation(config), identity, identity, config, ())


@dataclass(frozen=True)
class Cost:
    """Cost of volumes: seconds of the CPU an image, and MiB of the largest batch above what was held before."""

    seconds: float
    mib: float


class Clock(Callback):
    """Seconds of the CPU that the last pass of a Trainer takes."""

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin."""
        self._start = time.process_time()

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End."""
        self.seconds = time.process_time() - self._start


def volumes_by_rank(images: Path, weights: Path, size: int, output: Path) -> tuple[Cost, dict[str, Any]]:
    """Cost of the second pass, and how volumes were estimated."""
    encoder = encoder_of(torch.load(weights, weights_only=False), 1, 16, f"K={size}")
    clock, peak, settings = Clock(), Peak(), DataSettings(num_workers=0)
    found = seconds_of(images, encoder, output, "cpu", [clock, peak], estimator="subspace", data=settings)
    return Cost(clock.seconds / len(list_images(images)), peak.mib), found["volumes_by"]


def volumes_by_listing_1(images: Path, weights: Path) -> Cost:
    """Cost of Listing 1, on as many images at a time as a batch of the ranking has."""
    module, x = _batch(images, weights)
    with Peak() as peak:
        start = time.process_time()
        listing_1(module, x)
        seconds = time.process_time() - start
    return Cost(seconds / len(x), peak.mib)


def calibration(images: Path, weights: Path) -> float:
    """Seconds of the CPU that exact Jacobians of the calibration take, once a ranking."""
    module, x = _batch(images, weights)
    start = time.process_time()
    jacobian_gram(module, x[:CALIBRATION])
    return time.process_time() - start


def _batch(images: Path, weights: Path) -> tuple[nn.Module, torch.Tensor]:
    """The encoder, which has run once, and a batch of its inputs."""
    encoder = encoder_of(torch.load(weights, weights_only=False), 1, 16, "")
    files = FilesToRank(list_images(images), encoder.prepare)
    x = files.inputs(torch.stack([files[index]["image"] for index in range(min(BATCH, len(files)))]))
    with torch.no_grad():
        encoder.module(x)
    return encoder.module, x


def volumes(folder: Path, sizes: list[int], count: int) -> None:
    """Print the second pass beside Listing 1, by time of the CPU, which other work on the machine does not change."""
    for size in sizes:
        module, probe, reference = trained_model(size, 100)
        images, weights = folder / f"known_{size}", folder / f"{size}.pt"
        images.mkdir()
        torch.save(module.target, weights)
        for number, image in enumerate(torch.cat([probe, reference])[:count]):
            pixels = ((image[0] * 0.5 + 0.5).clamp(0, 1) * 255).round().byte().numpy()
            Image.fromarray(pixels).save(images / f"{number:05d}.png")
        (ours, by), _ = apart(volumes_by_rank, images, weights, size, folder / f"ranked_{size}")
        theirs, _ = apart(volumes_by_listing_1, images, weights)
        once, _ = apart(calibration, images, weights)
        whole = ours.seconds + once / count
        print(
            f"volumes K={size} r={by['rank']} rows={by['rows']}, ms of CPU an image: {1e3 * ours.seconds:.2f}, "
            f"Listing 1 {1e3 * theirs.seconds:.1f}, ratio {theirs.seconds / ours.seconds:.1f} (goal 20; by rows alone "
            f"{size / by['rows']:.1f}); with the calibration of {once:.1f} s for {count} images "
            f"{theirs.seconds / whole:.1f}; batches of {BATCH} take {ours.mib:.0f} MiB, by Listing 1 {theirs.mib:.0f}, "
            f"ratio {ours.mib / theirs.mib:.2f} (goal .2)",
            flush=True,
        )


def volumes_on_gpu(folder: Path, count: int, workers: int) -> None:
    """Print the second pass beside Listing 1 on a GPU, with the memory of each above that of the encoder."""
    images = photographs(folder / "measured", count, 256)
    for model in MODELS["cuda"]:
        name, output = f"random:{model}", folder / f"volumes_{model}"
        settings = {"image_size": SIZE, "estimator": "subspace", "data": DataSettings(num_workers=workers)}
        torch.cuda.reset_peak_memory_stats()
        seconds = seconds_of(images, name, output, "cuda", **settings)
        peak, by = torch.cuda.max_memory_allocated(), seconds["volumes_by"]
        encoder = load_encoder(name, image_size=SIZE)
        module = encoder.module.cuda()
        files = _Pictures(images, encoder.prepare)
        x = torch.stack([files[index] for index in range(LISTED)]).cuda()
        listing_1(module, x[:1])
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        listing_1(module, x)
        torch.cuda.synchronize()
        listed, peak_listed = (time.perf_counter() - start) / LISTED, torch.cuda.max_memory_allocated()
        each = seconds["volumes"] / count
        ours_takes, listing_takes = (IMAGENET * one / 3600 for one in (each, listed))
        print(
            f"volumes {model} r={by['rank']} rows={by['rows']}: {1 / each:.1f} images/s, Listing 1 {1 / listed:.2f}, "
            f"ratio {listed / each:.1f}; {ours_takes:.2f} and {listing_takes:.2f} h for {IMAGENET} images; "
            f"peak {peak >> 20} and {peak_listed >> 20} MiB, batches of 64 and {LISTED}; all stages: "
            + ", ".join(f"{stage} {value:.1f} s" for stage, value in seconds.items() if stage != "volumes_by"),
            flush=True,
        )


def rank_many(images: Path, output: Path) -> dict[str, Any]:
    """Rank with the small encoder."""
    return seconds_of(images, encoder_of(Small(), 3, 8, "small"), output, "cpu")


def many(folder: Path, count: int) -> None:
    """Print seconds and the peak of memory for many small images."""
    images = folder / "many"
    draws = np.random.default_rng(0)
    for number in range(count):
        place = images / f"{number // 1000:03d}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / f"{number:06d}.png")
    seconds, peak = apart(rank_many, images, folder / "ranked_many")
    stages = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items() if name != "volumes_by")
    print(f"many: {count} images, {stages}; peak {peak:.0f} MiB (goal 3,072)", flush=True)


def garments(folder: Path) -> Path:
    """The 10,000 test images of Fashion-MNIST in folders by class, written where they are not there."""
    data = FashionMNISTDataModule()
    config, test = data.preparation()["data_config"], data.probe_dataset()
    assert isinstance(test, ImageTensors)
    pixels = ((test.images[:, 0] * config["std"][0] + config["mean"][0]) * 255.0).round().byte().numpy()
    for number, (image, label) in enumerate(zip(pixels, test.labels.tolist(), strict=True)):
        file = folder / str(label) / f"{number:05d}.png"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)
    return folder


def fashion(images: Path, checkpoint: str, output: Path) -> None:
    """Print the seconds of a whole ranking, all columns and the page included."""
    start, before = time.perf_counter(), cpu_seconds()
    seconds = seconds_of(images, checkpoint, output, "cpu", page=True)
    whole, work, by = time.perf_counter() - start, cpu_seconds() - before, seconds.pop("volumes_by")
    print(
        f"fashion: {len(list_images(images))} images in {whole:.0f} s (goal 180), {work:.0f} s of CPU; "
        f"{', '.join(f'{name} {value:.0f} s' for name, value in seconds.items())}; {by['rows']} rows of volumes",
        flush=True,
    )


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=["complexity", "loader", "forward", "volumes", "many"])
    parser.add_argument("--images", type=int, default=128, help="of loader and forward")
    parser.add_argument("--measured", type=int, default=1000, help="images of volumes")
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--sizes", type=int, nargs="*", default=[192, 384])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--checkpoint", help="of fashion, by configs/fashion_mnist.yaml")
    parser.add_argument("--folder", type=Path, help="of fashion's images, which are written there")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "complexity" in given.only:
            complexity()
        if {"loader", "forward"} & set(given.only):
            images = photographs(folder / "photographs", given.images, 256)
            if "loader" in given.only:
                loader(images, folder, given.workers)
            if "forward" in given.only:
                forward(images, folder, given.device, given.workers)
        if "volumes" in given.only:
            if given.device == "cuda":
                volumes_on_gpu(folder, given.measured, given.workers)
            else:
                volumes(folder, given.sizes, given.measured)
        if "fashion" in given.only:
            fashion(garments(given.folder or folder / "garments"), given.checkpoint, folder / "ranked_garments")
        if "many" in given.only:
            many(folder, given.many)


if __name__ == "__main__":
    main()
