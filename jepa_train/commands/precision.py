"""The precision of a run on the processor at hand."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.plugins.precision import MixedPrecision, Precision

# levels of instructions from which oneDNN, behind torch's layers, takes bfloat16; below them it is imitated
WITH_BFLOAT16 = ("AVX512", "SVE256")


def leave_slow_bfloat16(trainer: pl.Trainer) -> str:
    """Compute in float32 where ``bf16-mixed`` would run on a processor without bfloat16.

    A config states the precision that is best where bfloat16 exists. Elsewhere torch imitates it, several times slower
    than float32 (``benchmarks/train_step.py --precision bf16-mixed`` beside ``--precision 32-true``).

    Args:
        trainer: one that has not started; its precision is replaced where that is due.

    Returns:
        a sentence that says so if it was replaced, or nothing.
    """
    plugin = trainer.strategy.precision_plugin
    level = torch.backends.cpu.get_cpu_capability()
    imitated = isinstance(trainer.accelerator, CPUAccelerator) and level not in WITH_BFLOAT16
    if not (imitated and type(plugin) is MixedPrecision and plugin.precision == "bf16-mixed"):
        return ""
    trainer.strategy.precision_plugin = Precision()
    return (
        f"Computing in float32: this processor ({level}) has no bfloat16, and bf16-mixed would be slower. To have it "
        "all the same: --trainer.precision=bf16-mixed."
    )
