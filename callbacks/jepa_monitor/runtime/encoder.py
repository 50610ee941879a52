"""The part of a Lightning module that is measured, and the precision in which it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from ..density import Encode, differentiable, require_real
from ..errors import SettingError
from .pooling import Pool, pool_embedding

EncoderChoice = str | Callable[[nn.Module, Tensor], Tensor] | None
Preprocess = str | Callable[[Tensor], Tensor] | None
Encoders = EncoderChoice | Mapping[str, EncoderChoice]
HALF_PRECISION = (torch.bfloat16, torch.float16)
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


def resolve_encoder(module: nn.Module, encoder: EncoderChoice, pool: Pool) -> tuple[Encode, str]:
    """Find a function from inputs to (B, K) embeddings, and a description of it with the reason for the choice.

    Args:
        module: the Lightning module.
        encoder: dotted path to a submodule, a function ``(module, inputs) -> embeddings``, or ``None``: the submodule
            that :func:`usual_encoder` finds by its name, else the module's forward.
        pool: see :func:`pool_embedding`.

    Raises:
        SettingError: if there is no submodule at the path (the message names those there are), neither a usual name
            nor a forward, or ``encoder`` is something else.
    """
    if encoder is not None and not isinstance(encoder, str):
        if not callable(encoder):
            raise SettingError(
                f"encoder must be the path of a submodule, a function (module, inputs) or None, got {encoder!r}."
            )
        function = encoder
        return (lambda inputs: pool_embedding(function(module, inputs), pool)), getattr(
            function, "__name__", "function"
        )
    name, reason = (encoder, "") if encoder is not None else usual_encoder(module)
    if encoder is None and not name and not has_forward(module):
        raise SettingError(
            f"{type(module).__name__} has no forward and no submodule with a usual name: pass encoder=, a function "
            f"(module, inputs) or the path of a submodule ({_children_of(module)})."
        )
    chosen = find_submodule(module, name)
    description = ", ".join(filter(None, [type(chosen).__name__, reason]))
    return partial(_encode_and_pool, chosen, pool), f"{name or 'forward'} ({description})"


def resolve_encoders(module: nn.Module, encoder: Encoders, pool: Pool) -> dict[str, tuple[Encode, str]]:
    """Find several representations: name to function from inputs to (B, K) with a description, the headline first.

    Args:
        module: the Lightning module.
        encoder: as :func:`resolve_encoder` takes it, or the name of a method (``features``, ``forward``); several by
            name. ``None`` means the module's ``features``, where it has them, and as ``embedding`` its forward, if
            any; else the usual submodules.
        pool: see :func:`pool_embedding`.

    Raises:
        SettingError: where there is no such submodule or method, or the mapping is empty.
    """
    if encoder is None and callable(getattr(module, "features", None)):
        encoder = {"features": "features"} | ({"embedding": "forward"} if has_forward(module) else {})
    named = encoder if isinstance(encoder, Mapping) else {"features": encoder}
    if not named:
        raise SettingError("encoder= is an empty mapping: name at least one encoder, or leave it out.")
    return {name: resolve_encoder(module, _method_or_path(module, choice), pool) for name, choice in named.items()}


def resolve_features(module: nn.Module, pool: Pool) -> Encode | None:
    """Find the function from inputs to (B, D) features that a module offers as its method ``features``, if it does.

    A submodule of that name may stand behind others, so that it is not called with inputs; and a second name of what
    :func:`usual_encoder` finds would say the same again.
    """
    features = getattr(module, "features", None)
    if isinstance(features, nn.Module) or not callable(features) or _calls_usual_encoder(module, features):
        return None
    return resolve_encoders(module, {"features": "features"}, pool)["features"][0]


def _calls_usual_encoder(module: nn.Module, function: Callable[..., object]) -> bool:
    """Return true for the usual encoder's own ``forward``, under whatever name a module has it."""
    encoder = find_submodule(module, usual_encoder(module)[0])
    is_forward = getattr(function, "__func__", None) in (type(encoder).forward, type(encoder).__call__)
    return is_forward and getattr(function, "__self__", None) is encoder


def _method_or_path(module: nn.Module, choice: EncoderChoice) -> EncoderChoice:
    """Turn the name of a method into a function; a path is left to :func:`resolve_encoder`."""
    if not isinstance(choice, str):
        return choice
    method: Callable[[Tensor], Tensor] | None = getattr(module, choice, None) if choice.isidentifier() else None
    if isinstance(method, nn.Module) or not callable(method):
        return choice

    def call(module: nn.Module, inputs: Tensor) -> Tensor:
        output: Tensor = getattr(module, choice)(inputs)
        return output

    call.__name__ = choice  # for the log
    return call


def has_forward(module: nn.Module) -> bool:
    """Return true for a module with a forward of its own, and not that of PyTorch or Lightning, which only raises."""
    owner = next((base for base in type(module).__mro__ if "forward" in vars(base)), nn.Module)
    return "forward" in vars(module) or not (owner is nn.Module or owner.__name__ == "LightningModule")


def find_submodule(module: nn.Module, name: str) -> nn.Module:
    """Find the submodule at a dotted path.

    Raises:
        SettingError: if there is none; the message names those there are.
    """
    try:
        return module.get_submodule(name)
    except AttributeError:
        raise SettingError(
            f"{type(module).__name__} has no submodule {name!r}; its submodules are: {_children_of(module)}."
        ) from None


def _children_of(module: nn.Module) -> str:
    return ", ".join(sorted(name for name, _ in module.named_children())) or "none"


def _encode_and_pool(encoder: nn.Module, pool: Pool, inputs: Tensor) -> Tensor:
    return pool_embedding(encoder(inputs), pool, encoder)


def usual_encoder(module: nn.Module) -> tuple[str, str]:
    """Find the path of the submodule that is most likely the encoder, and why it is that one.

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
    return path, "found by its name" if usual else "as no submodule is named like an encoder"


def _found(module: nn.Module) -> tuple[str, str]:
    """Find the path of the encoder and the usual name it has; both empty where there is none."""
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
    """Return true for a name with one of the words (or two that an underscore joins), in the plural or not."""
    return re.search(f"_({'|'.join(words)})s?_", f"_{'_'.join(_words(name))}_") is not None


def _words(name: str) -> list[str]:
    """Split a name in snake_case or CamelCase into words in small letters; at least one."""
    apart = re.sub("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    apart = _WITHIN_WORDS.sub(r"_\1_", apart)
    return [word for word in re.split(r"[\W_\d]+", apart) if word] or [name]


def _is_backbone_and_head(module: nn.Module) -> bool:
    children = module.named_children()
    has_head = any(_has_word(name, *BESIDE) and not isinstance(child, nn.Identity) for name, child in children)
    return has_head and isinstance(getattr(module, "backbone", None), nn.Module)


def in_full_precision(module: nn.Module, encode: Encode) -> Encode:
    """Return the same encoder with float32 copies of half-precision weights: a Jacobian in bfloat16 is nats off.

    The module keeps its own weights. Values in bfloat16 and float16 are exact in float32, so this is the encoder that
    training has, evaluated precisely.
    """
    state = chain(module.named_parameters(), module.named_buffers())
    with torch.inference_mode(False):  # a tensor made under it could not take part in autograd
        precise = {f"module.{name}": value.detach().float() for name, value in state if value.dtype in HALF_PRECISION}
    if not precise:
        return encode
    holder = _Holder(module, encode)
    return lambda inputs: torch.func.functional_call(holder, precise, (inputs,))


class _Holder(nn.Module):
    """Makes a module of an encoder, which may be any function, for :func:`torch.func.functional_call`."""

    def __init__(self, module: nn.Module, encode: Encode) -> None:
        super().__init__()
        self.module = module
        self.encode = encode

    def forward(self, inputs: Tensor) -> Tensor:
        return self.encode(inputs)


def is_sharded(module: nn.Module) -> bool:
    """Return true where weights are spread over processes (FSDP), so that each forward pass is a collective."""
    sharded = ("FSDPModule", "FullyShardedDataParallel")
    return any(base.__name__ in sharded for part in module.modules() for base in type(part).__mro__)


def is_tensor_parallel(module: nn.Module) -> bool:
    """Return true where weights are spread over processes that work on the same samples."""
    for parameter in module.parameters():
        mesh = getattr(parameter, "device_mesh", None)
        if mesh is not None and any("tensor" in name or name == "tp" for name in mesh.mesh_dim_names or ()):
            return True
    return False


def measured_encoder(module: nn.Module, encode: Encode) -> Encode:
    """Return the encoder that is measured: in full precision, or as it is where weights are sharded.

    Raises:
        ValueError: where weights are spread over processes that work on the same samples.
    """
    if is_tensor_parallel(module):
        raise ValueError("tensor-parallel weights cannot be measured: each process would read other samples.")
    return encode if is_sharded(module) else in_full_precision(module, encode)


def precision_of(module: nn.Module, *, as_it_is: bool) -> torch.dtype:
    """Return the precision in which a module is measured: its first parameter's, at least float32 unless as it is."""
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    return torch.float32 if dtype in HALF_PRECISION and not as_it_is else dtype


def input_like(module: nn.Module, inputs: Tensor, device: torch.device) -> Tensor:
    """Bring inputs to the module's device, in the precision of its first parameter but at least float32."""
    if not inputs.is_floating_point():
        return inputs.to(device)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), inputs.dtype)
    return inputs.to(device=device, dtype=torch.float32 if dtype in HALF_PRECISION else dtype)


def resolve_preprocess(module: nn.Module, preprocess: Preprocess) -> Callable[[Tensor], Tensor]:
    """Find the function of inputs that comes before the encoder; the Jacobian is with respect to its result.

    Args:
        module: the Lightning module.
        preprocess: a function of inputs, a dotted path to a submodule (such as an embedding table), or ``None``.

    Raises:
        SettingError: if there is no submodule at the path, or it is something else.
    """
    if preprocess is None:
        return lambda inputs: inputs
    function = find_submodule(module, preprocess) if isinstance(preprocess, str) else preprocess
    if not callable(function):
        raise SettingError(f"preprocess must be a function, the path of a submodule or None, got {preprocess!r}.")
    return lambda inputs: function(inputs.clone())  # it may write into them, and they are needed again


def resolve_inputs(module: nn.Module, preprocess: Preprocess, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Find the function that brings inputs on the CPU to where the Jacobian is taken.

    They go to the module's device, through ``preprocess`` (see :func:`resolve_preprocess`), and to float32 at least.

    Args:
        module: the Lightning module.
        preprocess: a function of inputs, a dotted path to a submodule, or ``None``.
        device: device of the module.

    Raises:
        ValueError: when it is called, where its result is not floating-point.
    """
    function = resolve_preprocess(module, preprocess)

    def bring(inputs: Tensor) -> Tensor:
        inputs = function(input_like(module, inputs, device))
        if not inputs.is_floating_point():
            raise ValueError(
                f"inputs are {inputs.dtype}; a Jacobian needs floating-point inputs: pass preprocess=, a function that "
                "converts or embeds them."
            )
        return inputs.float() if inputs.dtype in HALF_PRECISION else inputs

    return bring


def embed(encode: Encode, inputs: Tensor, *, chunk: int = 256) -> Tensor:
    """Compute embeddings (N, K) in float64 without Jacobians; ValueError where they are complex."""
    # leaving inference mode switches gradients on
    with differentiable(inputs.device.type), torch.no_grad():
        return torch.cat([require_real(encode(part.clone())).double() for part in inputs.split(chunk)])
