"""The choice of the submodule that is a project's encoder, by the names that people give it."""

from __future__ import annotations

from torch import nn

# the teacher before the student
USUAL_NAMES = ("target", "teacher", "encoder", "backbone", "student", "model", "net", "feature_extractor")
# parts of names of what stands behind or beside an encoder
BESIDE = (
    *("head", "proj", "predict", "decoder", "autoencoder", "classif"),
    *("loss", "criterion", "metric", "norm", "center", "centre", "queue", "memory", "mask", "pos_", "position"),
)


def usual_encoder(module: nn.Module) -> tuple[str, str]:
    """Path of the submodule that is most likely the encoder, and why it is that one.

    A name counts if it is one of the usual names or contains one (``teacher_backbone``), unless it is that of a head,
    a loss or the like (``teacher_head``); the usual names come in their order, and the exact name before longer ones.
    Of a chosen submodule with a ``backbone`` and a head the backbone is taken, of a ``ModuleDict`` the encoder inside.

    Args:
        module: the Lightning module.

    Returns:
        A dotted path, empty for the module itself where no name counts; and a reason for the log.
    """
    for usual in USUAL_NAMES:
        named = [name for name, child in module.named_children() if child is not None and _counts(name, child, usual)]
        for name in sorted(named, key=lambda name: name != usual):
            inside = _part_without_head(module.get_submodule(name))
            if inside is not None:
                return ".".join([name, *inside]), f"{usual!r} is in its name"
    return "", "no submodule is named like an encoder"


def _counts(name: str, child: nn.Module, usual: str) -> bool:
    if name == usual:
        return True
    lowered = name.lower()
    has_weights = next(child.parameters(), None) is not None
    return usual in lowered and not _is_beside(lowered) and has_weights


def _is_beside(name: str) -> bool:
    return any(part in name.lower() for part in BESIDE)


def _part_without_head(module: nn.Module) -> list[str] | None:
    """Path within a chosen submodule: empty for all of it, ``None`` where nothing there can be called."""
    if isinstance(module, (nn.ModuleDict, nn.ModuleList)):
        path, _ = usual_encoder(module)
        return [path] if path else None
    has_head = any(_is_beside(name) and not isinstance(child, nn.Identity) for name, child in module.named_children())
    return ["backbone"] if has_head and isinstance(getattr(module, "backbone", None), nn.Module) else []
