"""Listing 1 of the paper, the exact score and the subspace side by side: seconds, peak memory, agreement.

    python benchmarks/score.py [--repeats 5] [--only NAME] [--json FILE] [--sizes 192 384 768] [--steps 100]

Rows are timed in turn, A B C A B C, after one warm-up. Peak memory is that of a process of its own per row, above what
it held once the encoder had run. ``floor`` is K backward passes and nothing else. GPU cases run where there is a GPU.
The rank-r volume of the subspace is judged on encoders that were trained for some steps: K is the size of embedding
and mean token, r the intrinsic dimension.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import timm
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from jepa_monitor import Subspace, encoder_volume, intrinsic_dimension, jacobian_gram, jepa_score
from jepa_monitor.density import Encode
from jepa_monitor.density.subspace import CALIBRATION_SAMPLES
from jepa_train.data import MixtureDataModule
from jepa_train.module import JEPA

MIB = 1 << 20
REFERENCES = 2000
SAMPLES = 1000  # whose cost is compared
# number of images that exact volumes are taken of, by K
HELD_OUT = {192: 300, 384: 100, 768: 40}
LISTED = 4  # images by Listing 1


@dataclass(frozen=True)
class Case:
    """An encoder and a batch; ``K`` is the width, ``T`` the number of tokens."""

    name: str
    model: str
    options: dict[str, Any]
    image_size: int
    batch: int
    device: str = "cpu"
    precision: str = "fp32"

    def make(self) -> tuple[nn.Module, Tensor]:
        """The encoder and its inputs."""
        torch.manual_seed(0)
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        encoder = timm.create_model(self.model, num_classes=0, img_size=self.image_size, **self.options).eval()
        images = torch.randn(self.batch, 3, self.image_size, self.image_size)
        return encoder.to(self.device, dtype), images.to(self.device, dtype)


TINY = "vit_tiny_patch16_224"
SMALL = {"embed_dim": 64, "depth": 6, "num_heads": 4}
CASES = (
    Case("K=192 T=16 B=1", TINY, {"patch_size": 8}, 32, 1),
    Case("K=192 T=16 B=8", TINY, {"patch_size": 8}, 32, 8),
    Case("K=64 T=64 B=4", TINY, {"patch_size": 4, **SMALL}, 32, 4),
    Case("ViT-Ti/16 224 px B=2", TINY, {}, 224, 2),
)
GPU_CASES = tuple(
    Case(f"{name} 224 px B={batch} {precision}", model, {"dynamic_img_size": True}, 224, batch, "cuda", precision)
    for name, model, batch in (
        ("ViT-S/14", "vit_small_patch14_dinov2", 8),
        ("ViT-B/14", "vit_base_patch14_dinov2", 8),
        ("ViT-H/14", "vit_huge_patch14_224", 2),
    )
    for precision in ("fp32", "tf32", "bf16")
)


def floor(encoder: nn.Module, images: Tensor) -> None:
    """K bare backward passes."""
    inputs = images.clone().requires_grad_(True)
    outputs = encoder(inputs).sum(0)
    for output in outputs:
        torch.autograd.grad(output, inputs, retain_graph=True)


def listing_1(encoder: Encode, images: Tensor) -> Tensor:
    """The paper's Listing 1, written out; in the encoder's precision, except that bf16 has no SVD."""
    jacobian = torch.autograd.functional.jacobian(lambda batch: encoder(batch).sum(0), images)
    rows = jacobian.flatten(2).permute(1, 0, 2)
    return torch.linalg.svdvals(rows.float() if rows.dtype == torch.bfloat16 else rows).clip(1e-6).log().sum(1)


def exact(encoder: nn.Module, images: Tensor) -> Tensor:
    """This package."""
    return jepa_score(encoder, images)


ROWS: dict[str, Callable[[nn.Module, Tensor], Any]] = {"floor": floor, "Listing 1": listing_1, "exact": exact}


def synchronise(device: str) -> None:
    """Wait for a GPU to be done."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_mib(case: Case, row: str) -> float:
    """Peak memory of one row, on a CPU in a process of its own."""
    if case.device == "cuda":
        return _peak_mib(case, row)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(_peak_mib, (case, row)))


def _peak_mib(case: Case, row: str) -> float:
    encoder, images = case.make()
    with torch.inference_mode():
        encoder(images)
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        ROWS[row](encoder, images)
        return (torch.cuda.max_memory_allocated() - before) / MIB
    if not Path("/proc/self/clear_refs").exists():
        return float("nan")  # only Linux can forget an earlier peak, such as that of importing torch
    Path("/proc/self/clear_refs").write_text("5")
    before = _kib("VmRSS")
    ROWS[row](encoder, images)
    return (_kib("VmHWM") - before) / 1024


def _kib(name: str) -> int:
    """A line of the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def measure(case: Case, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds (median, min, max) and peak MiB of each row."""
    encoder, images = case.make()
    seconds: dict[str, list[float]] = {name: [] for name in ROWS}
    for repeat in range(repeats + 1):
        for name, function in ROWS.items():
            started = time.perf_counter()
            function(encoder, images)
            synchronise(case.device)
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    return {
        name: {
            "seconds": statistics.median(values),
            "fastest": min(values),
            "slowest": max(values),
            "peak_mib": peak_mib(case, name),
        }
        for name, values in seconds.items()
    }


def trained_model(size: int, steps: int) -> tuple[JEPA, Tensor, Tensor]:
    """A JEPA of width and embedding size K after some steps on images of known density, images, and a reference."""
    pl.seed_everything(0, verbose=False)
    held_out = HELD_OUT.get(size, min(HELD_OUT.values()))
    data = MixtureDataModule(
        image_size=16,
        latent_size=8,
        num_components=4,
        contrast=0.1,
        num_train=20000,
        num_probe=CALIBRATION_SAMPLES + held_out,
        batch_size=32,
    )
    module = JEPA(
        image_size=16,
        channels=1,
        encoder=TINY,
        encoder_overrides={"embed_dim": size, "depth": 2, "num_heads": size // 64},
        patch_size=4,
        embedding_size=size,
        projector_hidden=256,
        predictor_width=64,
        predictor_depth=2,
        num_targets=2,
        target_scale=(0.15, 0.25),
        min_context=8,
        noise=0.1,
        learning_rate=1e-3,
        ema_start=0.9,
        ema_end=0.99,
    )
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, data)
    probe, reference = data.probe_dataset(), data.reference_dataset()
    images = torch.stack([probe[index]["image"] for index in range(len(probe))])
    return module.eval(), images, torch.stack([reference[index]["image"] for index in range(REFERENCES)])


def frobenius(encode: Encode, images: Tensor, rows: int, size: int) -> Tensor:
    """Log of an estimate of the Frobenius norm from as many random rows: (N,)."""
    random = torch.randn(rows, size, generator=torch.Generator().manual_seed(0))
    return 0.5 * jacobian_gram(encode, images, rows=random).diagonal(dim1=-2, dim2=-1).sum(-1).log()


def subspace_against_exact(encode: Encode, images: Tensor, reference: Tensor) -> dict[str, float]:
    """Rank agreement with exact volumes of held-out samples, and the cost of 1,000 samples, calibration included."""
    calibration, held_out = images[:CALIBRATION_SAMPLES], images[CALIBRATION_SAMPLES:]
    seconds = [time.perf_counter()]
    with torch.no_grad():
        z = torch.cat([encode(part) for part in reference.split(250)])
    rank, size = intrinsic_dimension(z).rank, z.shape[1]
    seconds.append(time.perf_counter())
    subspace = Subspace.fit(encode, calibration, rank, reference=z)
    seconds.append(time.perf_counter())
    estimates = subspace.log_volume(encode, held_out)
    seconds.append(time.perf_counter())
    truth = encoder_volume(encode, held_out, rank=rank)
    seconds.append(time.perf_counter())
    listing_1(encode, held_out[:LISTED])
    seconds.append(time.perf_counter())
    norms = frobenius(encode, held_out, subspace.directions, size)
    seconds.append(time.perf_counter())
    embedded, fitted, estimated, exact_volumes, listed, random_rows = (
        after - before for before, after in itertools.pairwise(seconds)
    )
    rest = (SAMPLES - len(calibration)) / len(held_out)
    whole = SAMPLES / len(held_out) * exact_volumes
    rows = len(calibration) * size + (SAMPLES - len(calibration)) * subspace.directions
    return {
        "K": size,
        "rank": rank,
        "rows": subspace.directions,
        "spearman": float(spearmanr(estimates, truth).statistic),
        "held_out_spearman": subspace.held_out_spearman,
        "frobenius_spearman": float(spearmanr(norms, truth).statistic),
        "share_of_rows": rows / (SAMPLES * size),
        "share_of_seconds": (embedded + fitted + rest * estimated) / whole,
        "frobenius_share_of_seconds": random_rows / exact_volumes,
        "exact_seconds": whole,
        "listing_1_seconds": SAMPLES / LISTED * listed,
    }


def main() -> None:
    """Print the tables, then each goal with what was reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--sizes", nargs="*", type=int, default=[192, 384, 768], help="K of subspaces; none: nothing")
    parser.add_argument(
        "--steps", nargs="*", type=int, default=[100], help="training steps before subspaces are judged"
    )
    parser.add_argument("--json", type=Path, help="write all values here")
    arguments = parser.parse_args()
    threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {platform.machine()}, {threads} threads, {arguments.repeats} repeats in turn")
    cases = (*CASES, *(GPU_CASES if torch.cuda.is_available() else ()))
    table = {}
    print(f"\n{'':32}{'row':12}{'seconds':>9}{'(range)':>18}{'MiB':>8}{'vs Listing 1':>14}{'vs floor':>10}")
    for case in (case for case in cases if arguments.only in case.name):
        table[case.name] = values = measure(case, arguments.repeats)
        for name, value in values.items():
            spread = f"({value['fastest']:.3f}-{value['slowest']:.3f})"
            faster = values["Listing 1"]["seconds"] / value["seconds"]
            over = value["seconds"] / values["floor"]["seconds"]
            print(
                f"{case.name:32}{name:12}{value['seconds']:9.3f}{spread:>18}{value['peak_mib']:8.0f}"
                f"{faster:13.2f}x{over:9.2f}x",
                flush=True,
            )
    results: dict[str, Any] = {"cases": table}
    results["subspace"] = {}
    for size, steps in itertools.product(arguments.sizes, arguments.steps):
        module, images, reference = trained_model(size, steps)
        for name, encode in {"mean token": module.features, "embedding": module.target}.items():
            values = subspace_against_exact(encode, images, reference)
            print_subspace(f"{name} after {steps} steps", values, titles=not results["subspace"])
            results["subspace"][f"{name}, K={size}, {steps} steps"] = values
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    for goal, reached in goals(results).items():
        print(f"{'reached' if reached else 'MISSED'}: {goal}")


def print_subspace(title: str, values: dict[str, float], *, titles: bool) -> None:
    """One encoder's row: how volumes from few rows agree with exact ones, and what 1,000 samples cost."""
    if titles:
        print(f"\n{'rank-r volume':30}{'K':>5}{'r':>4}{'rows':>6}{'Spearman':>10}{'its own':>9}{'of rows':>9}", end="")
        print(f"{'of seconds':>12}{'Frobenius':>11}{'of seconds':>12}{'exact s':>9}{'Listing 1 s':>13}")
    print(
        f"{title:30}{values['K']:5}{values['rank']:4}{values['rows']:6}{values['spearman']:10.4f}"
        f"{values['held_out_spearman']:9.3f}{values['share_of_rows']:9.3f}{values['share_of_seconds']:12.3f}"
        f"{values['frobenius_spearman']:11.3f}{values['frobenius_share_of_seconds']:12.3f}"
        f"{values['exact_seconds']:9.0f}{values['listing_1_seconds']:13.0f}",
        flush=True,
    )


def goals(results: dict[str, Any]) -> dict[str, bool]:
    """The goals that the measured cases can answer."""
    found: dict[str, bool] = {}
    for name, rows in results["cases"].items():
        exact_row, listing = rows["exact"], rows["Listing 1"]
        faster = listing["seconds"] / exact_row["seconds"]
        found[f"{name}: exact is never slower than Listing 1 ({faster:.2f}x)"] = faster >= 1.0
        over = exact_row["seconds"] / rows["floor"]["seconds"]
        found[f"{name}: exact within 1.15x of the floor ({over:.2f}x)"] = over <= 1.15
        if name == "K=192 T=16 B=1":
            found[f"{name}: exact at least 2.5x faster ({faster:.2f}x)"] = faster >= 2.5
        if name == "ViT-Ti/16 224 px B=2":
            memory = exact_row["peak_mib"] / listing["peak_mib"]
            found[f"{name}: exact at least 1.5x faster ({faster:.2f}x)"] = faster >= 1.5
            found[f"{name}: exact needs at most 1/5 of the memory ({memory:.3f})"] = memory <= 0.2
        if name.startswith("ViT-S/14") and name.endswith("fp32"):
            found[f"{name}: exact at least 10x faster ({faster:.2f}x)"] = faster >= 10.0
    for name, values in results["subspace"].items():
        cost = max(values["share_of_rows"], values["share_of_seconds"])
        reached = values["spearman"] >= 0.99 and cost <= 0.1
        found[f"{name}: Spearman 0.99 at 1/10 of the exact cost ({values['spearman']:.4f}, {cost:.3f})"] = reached
    return found


if __name__ == "__main__":
    main()
