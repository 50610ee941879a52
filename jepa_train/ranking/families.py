"""The vector of an encoder that is scored, by family of published weights, and why; as in ``docs/encoders.md``.

Shape letters: B images, C channels, H and W pixels, T tokens, K embedding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor, nn

from jepa_monitor.runtime.pooling import pool_embedding
from jepa_train.errors import ConfigurationError

Pooling = Literal["auto", "own", "cls", "mean", "map", "projection"]
POOLINGS = get_args(Pooling)


@dataclass(frozen=True)
class Family:
    """Published weights whose one vector is chosen alike.

    Attributes:
        name: as its authors call it.
        pattern: regular expression that timm's names of it match.
        pooling: the choice; ``own`` is what timm's model does before its classifier.
        reason: a sentence.
    """

    name: str
    pattern: str
    pooling: Pooling
    reason: str


# the first that matches
FAMILIES = (
    Family(
        "I-JEPA",
        r"ijepa",
        "mean",
        "I-JEPA has no class token: its authors evaluate the mean of the patch tokens after the final norm. timm reads "
        "the context encoder of their file, and so does Hugging Face; they themselves evaluate the target encoder.",
    ),
    Family(
        "DINOv2",
        r"dinov2",
        "cls",
        "DINOv2 trains its class token on whole images and its authors evaluate it, after the final norm; timm's input "
        "is 518 px, and an image_size of 224, at which they evaluate, has a fifth of the patches.",
    ),
    Family(
        "DINOv3, Vision Transformers",
        r"^vit_.*dinov3",
        "cls",
        "DINOv3 trains its class token on whole images and its authors evaluate it; timm's default is the mean of the "
        "patch tokens.",
    ),
    Family(
        "CLIP and MetaCLIP, fine-tuned to classes",
        r"clip.*_ft_in",
        "own",
        "fine-tuning to classes replaced the projection, and trained what comes before the classifier.",
    ),
    Family(
        "CLIP, MetaCLIP, OpenCLIP, EVA-CLIP, PE-Core",
        r"clip(?!.*_gap)|vit_pe_core",
        "projection",
        "the contrastive loss compares projected embeddings, and the projection has no use for the directions that "
        "the final norm leaves null; pooling cls leaves the projection out.",
    ),
    Family(
        "SigLIP",
        r"siglip(?!.*_gap)",
        "map",
        "SigLIP's loss compares what its attention pooling makes of all tokens.",
    ),
    Family(
        "others",
        r"",
        "own",
        "this is what timm's model has before its classifier.",
    ),
)


def family_of(name: str) -> Family:
    """Find the family of a timm name, with its tag where it has one."""
    return next(family for family in FAMILIES if re.search(family.pattern, name))


def settled(family: Family, pooling: Pooling, model: nn.Module) -> Pooling:
    """Settle how a timm model is pooled.

    Raises:
        ConfigurationError: if the model has not what the pooling needs.
    """
    lacking = {
        "cls": "a class token" if getattr(model, "cls_token", None) is None else "",
        "map": "attention pooling" if getattr(model, "attn_pool", None) is None else "",
        "projection": "a projection" if family.pooling != "projection" else "",
    }
    if pooling == "auto":
        return "own" if lacking.get(family.pooling) else family.pooling
    if lacking.get(pooling):
        others = ", ".join(other for other in POOLINGS if not lacking.get(other))
        raise ConfigurationError(
            f"the encoder has no pooling {pooling!r} because it lacks {lacking[pooling]}: choose from {others}."
        )
    return pooling


class PooledModel(nn.Module):
    """A timm model, or any other, whose output is one vector an image.

    Args:
        model: the model; ``cls`` and ``mean`` of timm's need its ``forward_features``.
        pooling: ``own``, ``map`` and ``projection`` are the model's forward; ``cls`` its first token, ``mean`` the mean
            of its patch tokens or of its feature map, both after its final norm, if that stands before pooling.
    """

    def __init__(self, model: nn.Module, pooling: Pooling) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K), in the precision of the images, also under autocast."""
        return self.pooled(self.output(images)).to(images.dtype)

    def output(self, images: Tensor) -> Any:
        """The model's own output, tokens or maps if it is to be pooled here."""
        takes_tokens = self.pooling in ("cls", "mean") and hasattr(self.model, "forward_features")
        return self.model.forward_features(images) if takes_tokens else self.model(images)  # type: ignore[operator]  # nn.Module declares no methods of its kinds

    def pooled(self, output: Any) -> Tensor:
        """(B, T, K) and the like -> (B, K)."""
        prefix = getattr(self.model, "num_prefix_tokens", 0)
        if isinstance(output, Tensor) and output.ndim == 3 and self.pooling != "cls":
            output = output[:, prefix:]
        return pool_embedding(output, "cls" if self.pooling == "cls" else "mean", self.model)


def null_directions(model: nn.Module, pooling: Pooling) -> int:
    """Count the directions in which the embedding of a timm model cannot change, because its last norm fixes them.

    Less its bias and over its weights, what a LayerNorm returns has mean 0 and a fixed length: two directions, of which
    a mean of such vectors keeps the first. An RMSNorm fixes the length alone.
    """
    if pooling in ("map", "projection") or (pooling == "own" and getattr(model, "attn_pool", None) is not None):
        return 0
    head = getattr(model, "head", None)
    behind = (getattr(model, "fc_norm", None), getattr(model, "head_norm", None), getattr(head, "norm", None))
    last = next((norm for norm in behind if pooling == "own" and _fixed(norm)), None)
    if last is not None:
        return _fixed(last)
    fixed = _fixed(getattr(model, "norm", None))
    takes_one = pooling == "cls" or (pooling == "own" and getattr(model, "global_pool", "") == "token")
    return fixed if takes_one else max(fixed - 1, 0)


def _fixed(norm: object) -> int:
    """Count what a norm fixes of each vector."""
    if isinstance(norm, nn.LayerNorm):
        return 2
    return int(isinstance(norm, nn.Module) and "rmsnorm" in type(norm).__name__.lower())


def null_note(model: nn.Module, pooling: Pooling) -> list[str]:
    """Say what null directions do to scores; nothing where there are none."""
    count = null_directions(model, pooling)
    if not count:
        return []
    return [
        f"The final norm leaves {count} direction{'s' * (count > 1)} of the embedding without change: JEPA-SCORE "
        "would count each as log 1e-6, log_density leaves them out."
    ]
