"""The choice of the submodule that is a project's encoder, by the names that people give it."""

from __future__ import annotations

import re

from torch import nn

# the teacher before the student
USUAL_NAMES = ("target", "teacher", "encoder", "backbone", "student", "model", "net", "feature_extractor")
# words of names of moving averages; MoCo's encoder of the keys is one
AVERAGES = ("ema", "momentum", "average", "averaged", "avg", "swa", "polyak", "k", "key")
# words of names of what stands behind or beside an encoder
BESIDE = (
    *("head", "proj", "projector", "projection", "predict", "predictor", "prediction", "classifier", "classification"),
    *("decoder", "autoencoder", "loss", "losse", "criterion", "metric", "norm", "layernorm", "batchnorm"),
    *("normalize", "normalizer", "normalization", "center", "centre", "queue", "memory", "mask"),
    *("pos", "position", "positional"),
)
EMBEDDINGS = ("embed", "embedding", "embeddings")  # as the last word: an embedding_net is an encoder
NETS = (
    *("alexnet", "convnet", "densenet", "efficientnet", "ghostnet", "googlenet", "hrnet", "lenet", "mnasnet"),
    *("mobilenet", "network", "pointnet", "regnet", "resnet", "shufflenet", "squeezenet", "unet", "wideresnet"),
)
_WITHIN_WORDS = re.compile("(?<!auto)(encoder|backbone|teacher|student)")  # teacherhead


def usual_encoder(module: nn.Module) -> tuple[str, str]:
    """Path of the submodule that is most likely the encoder, and why it is that one.

    A name counts if it is one of the usual names or has one as a word (``teacher_backbone``, ``studentEncoder``),
    unless it is that of a head, a loss or the like (``teacher_head``). The usual names come in their order; of several
    submodules with the same one the moving average comes first (``encoder_k``, ``ema_encoder``), because it is the
    teacher, and then the exact name. Of a chosen submodule with a ``backbone`` and a head the backbone is taken, of a
    ``ModuleDict`` the encoder inside.

    Args:
        module: the Lightning module.

    Returns:
        A dotted path, empty for the module itself where no name counts; and a reason for the log.
    """
    path, usual = _found(module)
    return path, f"{usual!r} is in its name" if usual else "no submodule is named like an encoder"


def _found(module: nn.Module) -> tuple[str, str]:
    """Path of the encoder and the usual name it has; both empty where there is none."""
    for usual in USUAL_NAMES:
        named = [name for name, child in module.named_children() if child is not None and _counts(name, child, usual)]
        for name in sorted(named, key=lambda name: (not _has_word(name, *AVERAGES), name != usual)):
            part = module.get_submodule(name)
            if not isinstance(part, (nn.ModuleDict, nn.ModuleList)):
                return (f"{name}.backbone" if _is_backbone_and_head(part) else name), usual
            inside, usual_inside = _found(part)  # the container itself cannot be called
            if inside:
                return f"{name}.{inside}", min(usual, usual_inside, key=USUAL_NAMES.index)
    return "", ""


def _counts(name: str, child: nn.Module, usual: str) -> bool:
    if name == usual:
        return True
    has_name = _has_word(name, usual, *(NETS if usual == "net" else ()))
    is_embedding = isinstance(child, nn.Embedding) or _words(name)[-1] in EMBEDDINGS
    has_weights = next(child.parameters(), None) is not None
    return has_name and not is_embedding and not _has_word(name, *BESIDE) and has_weights


def _has_word(name: str, *words: str) -> bool:
    """Tell whether a name has one of the words (or two that an underscore joins), in the plural or not."""
    return re.search(f"_({'|'.join(words)})s?_", f"_{'_'.join(_words(name))}_") is not None


def _words(name: str) -> list[str]:
    """Words of a name in snake_case or CamelCase, in small letters; at least one."""
    apart = re.sub("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    apart = _WITHIN_WORDS.sub(r"_\1_", apart)
    return [word for word in re.split(r"[\W_\d]+", apart) if word] or [name]


def _is_backbone_and_head(module: nn.Module) -> bool:
    children = module.named_children()
    has_head = any(_has_word(name, *BESIDE) and not isinstance(child, nn.Identity) for name, child in children)
    return has_head and isinstance(getattr(module, "backbone", None), nn.Module)
