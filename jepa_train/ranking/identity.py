"""A hash of all that an embedding depends on: embeddings of two encoders never end up in one ranking."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # of a function in the description of a layer, another one each time


def identity_of(module: nn.Module, preparation: Mapping[str, Any]) -> str:
    """Hash layers, weights and preparation, the same in every process and on every device.

    Layers are hashed by their classes and what they say of themselves, because weights alone do not tell GELU from
    QuickGELU. What a forward does beyond its layers is not seen.

    Args:
        module: the encoder.
        preparation: what is done to images, in plain JSON types.

    Returns:
        sha256, in hexadecimal.
    """
    digest = hashlib.sha256(json.dumps(preparation, sort_keys=True).encode())
    for name, layer in module.named_modules():
        digest.update(f"\n{name} {type(layer).__qualname__} {ADDRESS.sub('', layer.extra_repr())}".encode())
    for name, weight in sorted(module.state_dict().items()):
        digest.update(f"\n{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(cast("Any", weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()).data)
    return digest.hexdigest()
