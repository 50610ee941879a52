"""Listing 1 of the paper, the exact score and the sketch side by side: seconds, peak memory, agreement.

    python benchmarks/score.py [--repeats 5] [--only NAME] [--json FILE] [--sketch none]

Rows are timed in turn, A B C A B C, after one warm-up. Peak memory is that of a process of its own per row, above what
it held once the encoder had run. ``floor`` is K backward passes and nothing else. GPU cases run where there is a GPU.
"""

from __future__ import annotations

import argparse
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

from jepa_monitor import Sketch, jepa_score
from jepa_train.data import MixtureDataModule
from jepa_train.module import JEPA

MIB = 1 << 20
REFERENCES, HELD_OUT = 48, 1000
SKETCH_ROWS = (4, 6, 8, 16)


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


def listing_1(encoder: nn.Module, images: Tensor) -> Tensor:
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
    """Peak memory of one row in a process of its own."""
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


def trained_model(steps: int) -> tuple[JEPA, Tensor]:
    """A JEPA of width and embedding size 192 after some steps on images of known density, and images to score."""
    pl.seed_everything(0, verbose=False)
    data = MixtureDataModule(
        image_size=32,
        latent_size=16,
        num_components=4,
        contrast=0.1,
        num_train=20000,
        num_probe=REFERENCES + HELD_OUT,
        batch_size=64,
    )
    module = JEPA(
        image_size=32,
        channels=1,
        encoder=TINY,
        patch_size=8,
        embedding_size=192,
        projector_hidden=256,
        predictor_width=64,
        predictor_depth=2,
        noise=0.1,
        learning_rate=1e-3,
        ema_start=0.9,
        ema_end=0.99,
    )
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, data)
    probe = data.probe_dataset()
    return module.eval(), torch.stack([probe[index]["image"] for index in range(len(probe))])


def sketch_against_exact(encode: Callable[[Tensor], Tensor], images: Tensor) -> dict[str, Any]:
    """Rank agreement with the exact score of held-out samples, and the whole cost, calibration included."""
    reference, held_out = images[:REFERENCES], images[REFERENCES:]
    started = time.perf_counter()
    truth = jepa_score(encode, held_out)
    exact_seconds = time.perf_counter() - started
    started = time.perf_counter()
    for part in reference[:16].split(8):
        listing_1(encode, part)
    listing_seconds = (time.perf_counter() - started) / 16 * len(held_out)
    results: dict[str, Any] = {"exact_seconds": exact_seconds, "listing_1_seconds_extrapolated": listing_seconds}
    for m in SKETCH_ROWS:
        started = time.perf_counter()
        sketch = Sketch.fit(encode, reference, m)
        fitted = time.perf_counter()
        scores = sketch.score(encode, held_out)
        scored = time.perf_counter()
        results[f"m={m}"] = {
            "spearman": float(spearmanr(scores, truth).statistic),
            "cross_validated_spearman": sketch.cross_validated_spearman,
            "fit_seconds": fitted - started,
            "score_seconds": scored - fitted,
        }
    return results


def main() -> None:
    """Print the tables, then each goal with what was reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--sketch-steps", type=int, default=100, help="training steps before the sketch is judged")
    parser.add_argument("--sketch", choices=("all", "mean token", "projector", "none"), default="all")
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
    if arguments.sketch != "none":
        module, images = trained_model(arguments.sketch_steps)
        # the first is well-conditioned, the second has many nearly null directions
        encoders = {"mean token": module.features, "projector": module.forward}
        results["sketch"] = {}
        for name in encoders if arguments.sketch == "all" else [arguments.sketch]:
            results["sketch"][name] = values = sketch_against_exact(encoders[name], images)
            print_sketch(f"{name} after {arguments.sketch_steps} steps", values)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    for goal, reached in goals(results).items():
        print(f"{'reached' if reached else 'MISSED'}: {goal}")


def print_sketch(title: str, values: dict[str, Any]) -> None:
    """Held-out images of the mixture, K = 192, T = 16."""
    whole, listing = values["exact_seconds"], values["listing_1_seconds_extrapolated"]
    print(f"\nsketch, {title}: {HELD_OUT} held-out images, {REFERENCES} for calibration; exact {whole:.0f} s, ", end="")
    print(f"Listing 1 {listing:.0f} s (extrapolated from 16 images in batches of 8)")
    print(f"{'':8}{'Spearman':>10}{'its own':>9}{'fit s':>8}{'score s':>9}{'of exact':>10}{'score vs Listing 1':>20}")
    for name, value in values.items():
        if name.startswith("m="):
            share = (value["fit_seconds"] + value["score_seconds"]) / whole
            print(
                f"{name:8}{value['spearman']:10.4f}{value['cross_validated_spearman']:9.3f}{value['fit_seconds']:8.1f}"
                f"{value['score_seconds']:9.1f}{share:10.3f}{listing / value['score_seconds']:19.1f}x",
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
    for name, values in results.get("sketch", {}).items():
        rows = [value for key, value in values.items() if key.startswith("m=")]
        whole, listing = values["exact_seconds"], values["listing_1_seconds_extrapolated"]
        cheap = [row["spearman"] for row in rows if row["fit_seconds"] + row["score_seconds"] <= 0.1 * whole]
        best = max(cheap, default=float("nan"))
        found[f"sketch, {name}: Spearman 0.99 at 1/10 of the exact cost, calibration included ({best:.4f})"] = (
            best >= 0.99
        )
        fast = max((listing / row["score_seconds"] for row in rows if row["spearman"] >= 0.98), default=float("nan"))
        found[f"sketch, {name}: 20x faster than Listing 1 at Spearman 0.98 ({fast:.1f}x)"] = fast >= 20.0
    return found


if __name__ == "__main__":
    main()
