"""The time of a training step by groups of operators: see ``train_step.py``."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch

GEMM = ("mm", "addmm", "bmm", "baddbmm", "linear", "convolution", "_addmm_activation")
OPTIMIZER = ("_fused_adamw_", "lerp_", "_foreach", "addcdiv", "addcmul", "sqrt", "mul_", "div")


def synchronise(device: torch.device) -> None:
    """Wait for a GPU to be done."""
    if device.type == "cuda":
        torch.cuda.synchronize()


class Profile(pl.Callback):
    """Profiles the last step of a fit."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Start with the last step."""
        if index == trainer.max_steps - 1:
            self.profiler = torch.profiler.profile()
            self.profiler.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        """Stop with the last step."""
        if index == trainer.max_steps - 1:
            synchronise(batch["image"].device)
            self.profiler.stop()

    def shares(self, device: str) -> dict[str, float]:
        """Share of each group of operators in the time that operators took themselves."""
        groups = dict.fromkeys(("GEMM", "attention", "layer norm", "GELU", "optimizer and EMA", "copies", "rest"), 0.0)
        for event in self.profiler.key_averages():
            own = event.self_cpu_time_total if device == "cpu" else event.self_device_time_total
            # kernels are counted with the operator that launches them
            if event.device_type == torch.autograd.DeviceType.CPU:
                groups[group_of(event.key)] += own
        whole = sum(groups.values())
        return {name: own / whole for name, own in groups.items()}


def group_of(operator: str) -> str:
    """Name the group that an operator belongs to."""
    name = operator.removeprefix("aten::")
    if name == operator:
        return "rest"  # not an operator: Python, the autograd engine, launching of kernels
    if "attention" in name:
        return "attention"
    if "layer_norm" in name:
        return "layer norm"
    if "gelu" in name:
        return "GELU"
    if name in GEMM or "convolution" in name:
        return "GEMM"
    if name.startswith(OPTIMIZER):
        return "optimizer and EMA"
    return "copies" if name in ("copy_", "cat") else "rest"
