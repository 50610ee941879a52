"""One training step of plain I-JEPA, three ways side by side: images per second and peak memory.

    pip install -e ".[benchmarks]"
    python benchmarks/train_step.py [--threads 1] [--repeats 7] [--batch 32] [--precision P] [--compile]
                                    [--context-multiple 16] [--only NAME] [--json FILE]

``ours`` is the step of ``jepa_train.module.JEPA`` as a Trainer runs it, from the batch that is there to the weights
that have moved: masks drawn, loss, backward, AdamW, EMA. ``transcription`` is the paper (arXiv 2301.08243) written down
plainly: one predictor pass per target block, masks of 0 and 1 on the host, default AdamW, EMA as a loop. ``lightly`` is
the package of that name, put together as its own example does; without the package its rows are left out.

All three have the same timm encoder, predictor blocks, weights, images and masks, and only ``ours`` pays for drawing
the masks. Before the seconds count, their losses are compared. Steps are taken in turn, A B C A B C; a ratio is the
median of the ratios within a turn. Peak memory is that of a process of its own for each, over three steps, above what
it held before the model was built. Cases on a GPU run where there is one, under bfloat16 autocast, and count the turns
alone whose numbers of tokens came before: for each new one the libraries plan their kernels anew, which is paid by who
comes first; ``--context-multiple`` leaves fewer of them, for all alike. Operations are counted for each turn's own
shapes; their share of the card's peak is that of its data sheet for dense bfloat16. Cases on a CPU run in float32 and
under bfloat16 autocast. With ``--compile`` ours is compiled
(``--model.compile true``) and the others are not; each case then begins with minutes of compiling, which are not
counted. The exit status says whether all goals were reached.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import logging
import multiprocessing
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from step_contenders import Contender, Lightly, Transcription, parameter_count
from step_profile import Profile, dense_peak, flops_of_step, synchronise
from torch import Generator, Tensor
from torch.utils.data import DataLoader

from jepa_train.inputs.masks import MultiBlockMasks
from jepa_train.module import JEPA

MIB = 1 << 20
WARM_UP = 3
TURNS_ON_GPU = 6  # for each that counts
Shapes = tuple[tuple[int, ...], tuple[int, ...]]  # of context (B, V) and targets (B, M, T)
CONTENDERS: dict[str, type[Contender]] = {"transcription": Transcription, "lightly": Lightly}


@dataclass(frozen=True)
class Case:
    """An encoder, a predictor and a batch."""

    name: str
    model: str
    image_size: int
    patch_size: int
    predictor_width: int
    predictor_heads: int
    predictor_depth: int = 6
    batch: int = 32
    device: str = "cpu"
    precision: str = "32-true"
    compile: bool = False
    context_multiple: int = 1

    @property
    def half(self) -> bool:
        """True under bfloat16 autocast."""
        return self.precision == "bf16-mixed"

    def module(self) -> JEPA:
        """Plain I-JEPA: only tokens are predicted."""
        pl.seed_everything(0, verbose=False)
        return JEPA(
            image_size=self.image_size,
            encoder=self.model,
            patch_size=self.patch_size,
            predictor_width=self.predictor_width,
            predictor_depth=self.predictor_depth,
            predictor_heads=self.predictor_heads,
            embedding_weight=0.0,
            anticollapse="none",
            anticollapse_weight=0.0,
            mask_mode="corrected",
            compile=self.compile,
        )

    def flops(self, shapes: Shapes) -> int:
        """Floating-point operations of a step with masks of these shapes."""
        context_BV, targets_BMT = shapes
        with torch.device("meta"):
            module = replace(self, compile=False).module()
            images = torch.empty(context_BV[0], 3, self.image_size, self.image_size)
            context, targets = (torch.zeros(shape, dtype=torch.int64) for shape in (context_BV, targets_BMT))
        return flops_of_step(module, images, context, targets)

    def images(self) -> Tensor:
        """(B, 3, H, W)."""
        return torch.randn(self.batch, 3, self.image_size, self.image_size, generator=Generator().manual_seed(0))


TINY = "vit_tiny_patch16_224"
CASES = tuple(
    Case(f"ViT-Ti/{patch} 96 px, predictor {width}", TINY, 96, patch, width, width // 32, precision=precision)
    for precision in ("32-true", "bf16-mixed")
    for patch in (16, 8)
    for width in (96, 384)
)
GPU_CASES = tuple(
    Case(f"{name} 224 px", model, 224, patch, 384, 12 if width < 1280 else 16, depth, batch, "cuda", "bf16-mixed")
    for name, model, patch, width, depth, batch in (
        ("ViT-S/16", "vit_small_patch16_224", 16, 384, 6, 512),
        ("ViT-B/16", "vit_base_patch16_224", 16, 768, 6, 256),
        ("ViT-L/16", "vit_large_patch16_224", 16, 1024, 12, 128),
        ("ViT-H/14", "vit_huge_patch14_224", 14, 1280, 12, 64),
    )
)


class RecordedMasks:
    """Draws masks with a module's own sampler, keeps the last ones and counts the seconds.

    Contexts are cut to a multiple of some number of patches, of which random ones are left out, so that a GPU plans its
    kernels for few shapes.
    """

    def __init__(self, sampler: MultiBlockMasks, context_multiple: int = 1) -> None:
        self.sampler = sampler
        self.context_multiple = context_multiple
        self.seconds: list[float] = []

    def __call__(self, batch_size: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draw masks as ``MultiBlockMasks`` does, and take the time."""
        started = time.perf_counter()
        context_BV, targets_BMT = self.sampler(batch_size, generator)
        self.last = cut_to_multiple(context_BV, self.context_multiple, generator), targets_BMT
        self.seconds.append(time.perf_counter() - started)
        return self.last


def cut_to_multiple(context_BV: Tensor, multiple: int, generator: Generator) -> Tensor:
    """Leave out random patches until their number is a multiple: (B, V) -> (B, V - V % multiple), or all of fewer."""
    B, V = context_BV.shape
    kept = V if multiple > V else V - V % multiple
    order = torch.rand(B, V, generator=generator).topk(kept, dim=1).indices.sort(dim=1).values
    return context_BV.gather(1, order)


class SideBySide(pl.Callback):
    """Times each step of a fit, then lets every other contender take a step on the same images and masks."""

    def __init__(self, masks: RecordedMasks, others: dict[str, Contender]) -> None:
        self.masks = masks
        self.others = others
        self.seconds: dict[str, list[float]] = {name: [] for name in ("ours", *others)}
        self.shapes: list[Shapes] = []
        self.first_loss: dict[str, float] = {}

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """The batch is on the device; nothing of the step is done."""
        synchronise(batch["image"].device)
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Weights and EMA have moved."""
        images = batch["image"]
        synchronise(images.device)
        self.seconds["ours"].append(time.perf_counter() - self.started)
        self.first_loss.setdefault("ours", float(outputs["loss"]))
        context_BV, targets_BMT = self.masks.last
        self.shapes.append((tuple(context_BV.shape), tuple(targets_BMT.shape)))
        for name, contender in self.others.items():
            started = time.perf_counter()
            loss = contender.step(images, *self.masks.last)
            synchronise(images.device)
            self.seconds[name].append(time.perf_counter() - started)
            self.first_loss.setdefault(name, float(loss))


def fit(case: Case, module: JEPA, steps: int, callbacks: list[pl.Callback]) -> None:
    """A Trainer with nothing but the steps."""
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="gpu" if case.device == "cuda" else "cpu",
        devices=1,
        precision=case.precision,  # type: ignore[arg-type]  # one of Lightning's names
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    images = case.images()
    trainer.fit(module, DataLoader([{"image": image} for image in images] * steps, batch_size=case.batch))


def side_by_side(case: Case, module: JEPA, names: list[str], steps: int, *before: pl.Callback) -> SideBySide:
    """Steps of ours and of the named contenders, in turn, from equal weights; ``before`` see a step of ours alone."""
    others = {name: CONTENDERS[name](module, device=case.device, half=case.half) for name in names}
    module.masks = masks = RecordedMasks(module.masks, case.context_multiple)  # type: ignore[assignment]  # called in the same way
    turns = SideBySide(masks, others)
    fit(case, module, steps, [*before, turns])
    return turns


def peak_mib(case: Case, name: str, threads: int, module: JEPA) -> float:
    """Peak memory of one contender, on a CPU in a process of its own, which builds its module itself."""
    if case.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return _peak_mib(case, name, threads, copy.deepcopy(module))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(_peak_mib, (case, name, threads)))


def _peak_mib(case: Case, name: str, threads: int, module: JEPA | None = None) -> float:
    quiet(threads)
    allocated = torch.cuda.memory_allocated() if case.device == "cuda" else 0
    if case.device == "cpu":
        if not Path("/proc/self/clear_refs").exists():
            return float("nan")  # only Linux can forget an earlier peak, such as that of importing torch
        Path("/proc/self/clear_refs").write_text("5")
        before = _kib("VmRSS")
    module = module or case.module()
    if name == "ours":
        side_by_side(case, module, [], steps=3)
    else:
        images = case.images().to(case.device)
        contender, masks = CONTENDERS[name](module, device=case.device, half=case.half), module.masks
        del module
        for step in range(3):
            contender.step(images, *masks(case.batch, Generator().manual_seed(step)))
    if case.device == "cpu":
        return (_kib("VmHWM") - before) / 1024
    return (torch.cuda.max_memory_allocated() - allocated) / MIB


def _kib(name: str) -> int:
    """A line of the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def quiet(threads: int) -> None:
    """Pin the threads; leave out what Lightning says about each fit."""
    torch.set_num_threads(threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*LeafSpec")


def measure(case: Case, names: list[str], repeats: int, threads: int) -> dict[str, Any]:
    """Seconds, ratios, peak memory, losses, the share of drawing masks and the profile of a case."""
    module = case.module()
    parameters = {"ours": parameter_count(module.online.encoder.vit, module.predictor)}
    on_gpu = case.device == "cuda"
    steps = WARM_UP + repeats * (TURNS_ON_GPU if on_gpu else 1)
    profiled = Profile()
    turns = side_by_side(case, copy.deepcopy(module), names, steps + 1, profiled)
    counted = counted_turns(turns.shapes[:steps], on_gpu=on_gpu)
    seconds = {name: [values[turn] for turn in counted] for name, values in turns.seconds.items()}
    parameters |= {name: contender.parameter_count for name, contender in turns.others.items()}
    drawing = statistics.median(turns.masks.seconds[WARM_UP:]) / statistics.median(seconds["ours"])
    rows = {
        name: {
            "seconds": statistics.median(values),
            "fastest": min(values),
            "slowest": max(values),
            "images_per_second": case.batch / statistics.median(values),
            "ours_is_faster_by": statistics.median(a / b for a, b in zip(values, seconds["ours"], strict=True)),
            "first_loss": turns.first_loss[name],
            "parameters": parameters[name],
            "peak_mib": peak_mib(case, name, threads, module),
        }
        for name, values in seconds.items()
    }
    card = torch.cuda.get_device_name() if on_gpu else ""
    return {
        "rows": rows,
        "drawing masks": drawing,
        "profile": profiled.shares(case.device),
        **rates(case, [turns.shapes[turn] for turn in counted], seconds["ours"], peak=dense_peak(card)),
    }


def counted_turns(shapes: Sequence[Shapes], *, on_gpu: bool) -> list[int]:
    """Turns that count: those after the warm-up, on a GPU if an earlier one had the same shapes."""
    turns = range(WARM_UP, len(shapes))
    return [turn for turn in turns if not on_gpu or shapes[turn] in shapes[:turn]]


def rates(case: Case, shapes: Sequence[Shapes], seconds: Sequence[float], *, peak: float) -> dict[str, float]:
    """Operations of a step and a second, and their share of a card's peak: medians over turns of different shapes.

    Args:
        case: what was trained.
        shapes, seconds: of each turn.
        peak: operations a second that the card promises.
    """
    of_shapes = {shape: case.flops(shape) for shape in set(shapes)}
    per_second = statistics.median(of_shapes[shape] / one for shape, one in zip(shapes, seconds, strict=True))
    return {
        "tflop_of_step": statistics.median(of_shapes[shape] for shape in shapes) / 1e12,
        "tflop_per_second": per_second / 1e12,
        "share_of_peak": per_second / peak,
    }


def goals(case: Case, found: dict[str, Any]) -> dict[str, bool]:
    """Goals of a case, with what it reached."""
    rows, gemm = found["rows"], found["profile"]["GEMM"]
    tolerance = 1e-2 if case.half else 1e-5  # bfloat16 has 8 bits
    reached = {}
    for name, least in (("transcription", 1.3), ("lightly", 1.2)):
        if name in rows:
            off = abs(rows[name]["first_loss"] - rows["ours"]["first_loss"])
            reached[f"same loss as {name} within {tolerance:g} ({off:.1e})"] = off <= tolerance
            faster = rows[name]["ours_is_faster_by"]
            reached[f"at least {least}x as fast as {name} ({faster:.2f}x)"] = faster >= least
    reached[f"drawing masks takes less than 2 % ({100 * found['drawing masks']:.2f} %)"] = found["drawing masks"] < 0.02
    reached[f"GEMMs are at least 80 % ({100 * gemm:.0f} %)"] = gemm >= 0.8
    if case.name.startswith("ViT-H/14"):
        share = found["share_of_peak"]
        reached[f"at least 40 % of the card's dense bfloat16 peak ({100 * share:.0f} %)"] = share >= 0.4
    return {f"{case.name} {case.precision}: {goal}": value for goal, value in reached.items()}


def main() -> None:
    """Print the tables, then each goal with what was reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, help="instead of each case's own")
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], help="default: both on a CPU")
    parser.add_argument("--compile", action="store_true", help="compile ours")
    parser.add_argument("--context-multiple", type=int, default=1, help="cut contexts to a multiple of so many patches")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--json", type=Path, help="write all values here")
    arguments = parser.parse_args()
    quiet(arguments.threads)
    names = [name for name in CONTENDERS if name != "lightly" or importlib.util.find_spec("lightly")]
    if "lightly" not in names:
        print('lightly is not installed: pip install -e ".[benchmarks]" adds its rows')
    cases = [
        case
        for case in (*CASES, *(GPU_CASES if torch.cuda.is_available() else ()))
        if arguments.only in case.name and arguments.precision in (None, case.precision)
    ]
    if not cases:
        parser.error(f"no case is called {arguments.only!r}: the names begin with ViT-, such as ViT-Ti/16.")
    results: dict[str, Any] = {}
    reached: dict[str, bool] = {}
    print(f"torch {torch.__version__}, {platform.machine()}, {arguments.threads} threads, {arguments.repeats} turns\n")
    print("| case | | step, ms | (range) | images/s | ours is faster by | peak, MiB | parameters | first loss |")
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for case in cases:
        case = replace(
            case,
            batch=arguments.batch or case.batch,
            compile=arguments.compile,
            context_multiple=arguments.context_multiple,
        )
        results[f"{case.name} {case.precision}"] = found = measure(case, names, arguments.repeats, arguments.threads)
        reached |= goals(case, found)
        for name, row in found["rows"].items():
            print(
                f"| {case.name} {case.precision}, B={case.batch} | {name} | {1e3 * row['seconds']:.1f} "
                f"| {1e3 * row['fastest']:.1f}-{1e3 * row['slowest']:.1f} | {row['images_per_second']:.1f} "
                f"| {row['ours_is_faster_by']:.2f}x | {row['peak_mib']:.0f} | {row['parameters']:,} "
                f"| {row['first_loss']:.6f} |",
                flush=True,
            )
    print_profiles(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    for goal, value in reached.items():
        print(f"{'reached' if value else 'MISSED'}: {goal}")
    sys.exit(not all(reached.values()))


def print_profiles(results: dict[str, Any]) -> None:
    """Print the time of a step of ours by groups of operators, in percent."""
    groups = list(next(iter(results.values()))["profile"]) if results else []
    titles = [*groups, "drawing masks", "of the card's dense bfloat16 peak"]
    print(f"\n| ours, % | {' | '.join(titles)} | TFLOP a step | TFLOP/s |\n|---|{'--:|' * (len(titles) + 2)}")
    for name, found in results.items():
        shares = [*found["profile"].values(), found["drawing masks"], found["share_of_peak"]]
        counted = f"{found['tflop_of_step']:.3g} | {found['tflop_per_second']:.3g}"
        print(f"| {name} | {' | '.join(f'{100 * share:.1f}' for share in shares)} | {counted} |")
    print()


if __name__ == "__main__":
    main()
