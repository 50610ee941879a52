"""What is computed in which precision, whatever the precision of training, and by which kernel."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay. Statistics of a batch are computed so."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def attention_kernel(device: torch.device) -> AbstractContextManager[object]:
    """Inside, attention in half precision on a CPU is plain matrix products; elsewhere torch chooses as always.

    torch's fused CPU kernel has a backward pass in half precision that takes several times as long as the products do
    (``benchmarks/train_step.py --precision bf16-mixed`` shows what it costs).
    """
    if device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
