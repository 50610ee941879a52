"""The time of a training step by groups of operators: see ``train_step.py``."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from jepa_train.module import JEPA

GEMM = ("mm", "addmm", "bmm", "baddbmm", "linear", "convolution", "_addmm_activation")
# NVIDIA's data sheets, without sparsity; SXM where nothing else is said
DENSE_BFLOAT16 = {"H100 PCIe": 756e12, "H100": 989.4e12, "H200": 989.4e12, "A100": 311.8e12, "B200": 2250e12}
OF_FEW = ("optimizer and EMA", "copies", "sums", "fused", "interpreter", "rest")
GROUPS = ("GEMM", "attention", "layer norm", "GELU", *OF_FEW)
OPTIMIZER = ("_fused_adamw_", "lerp_", "_foreach", "addcdiv", "addcmul", "sqrt", "mul_", "div")


def synchronise(device: torch.device) -> None:
    """Wait for a GPU to be done."""
    if device.type == "cuda":
        torch.cuda.synchronize()


class Profile(pl.Callback):
    """Profiles the last step of a fit, and nothing that callbacks behind this one do."""

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
        groups = dict.fromkeys(GROUPS, 0.0)
        for event in self.profiler.key_averages():
            own = event.self_cpu_time_total if device == "cpu" else event.self_device_time_total
            # kernels are counted with the operator that launches them
            if event.device_type == torch.autograd.DeviceType.CPU:
                groups[group_of(event.key)] += own
        whole = sum(groups.values())
        return {name: own / whole for name, own in groups.items()}


def flops_of_step(module: JEPA, images: Tensor, context_BV: Tensor, targets_BMT: Tensor) -> int:
    """Count the floating-point operations of a step of plain I-JEPA, in matrix products and attention.

    Nothing is computed on the device ``meta``. Attention counts as its plain products do, whatever kernel a card has
    for it: what a fused kernel computes a second time in its backward pass is no progress.

    Args:
        module: a module that is not compiled.
        images: (B, C, H, W).
        context_BV, targets_BMT: patch indices of contexts and targets.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        context = module.online.encoder(images, context_BV)
        predicted, _ = module.predictor(context, context_BV, targets_BMT)
        with torch.no_grad():
            module.target.encoder(images)
        predicted.sum().backward()  # losses have no products
    return int(counter.get_total_flops())


def dense_peak(card: str) -> float:
    """Operations a second that the maker of a card promises for dense bfloat16; NaN where this is not known.

    Args:
        card: name of the card as :func:`torch.cuda.get_device_name` gives it; empty for a CPU.
    """
    return next((peak for known, peak in DENSE_BFLOAT16.items() if known in card), math.nan)


def group_of(operator: str) -> str:
    """Name the group that an operator belongs to."""
    if operator.startswith("triton_"):
        return "fused"  # several at once, by the compiler
    name = operator.removeprefix("aten::")
    if name == operator:
        return "interpreter"  # not an operator: Python, the autograd engine, launching of kernels
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
    if name in ("add", "add_", "sum"):
        return "sums"  # residual connections, gradients of biases, gradients that meet
    return "copies" if name in ("copy_", "cat") else "rest"
