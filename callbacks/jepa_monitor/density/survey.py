"""Facts of an encoder that decide whether and how its Jacobian is computed: samples kept apart, sizes, its entrance."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from .checks import require_real
from .strategies import Encode

_PATCH_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Survey:
    """Facts of an encoder on one kind of input.

    Attributes:
        embedding_size: K.
        largest_activation: elements a sample of the largest module output.
        activation_bytes: size of all leaf modules' outputs, a sample.
        patch_layer: the non-overlapping convolution through which alone the input enters, if there is one.
        depends_on_grad_mode: True if embeddings without gradients are others than with them.
    """

    embedding_size: int
    largest_activation: int
    activation_bytes: int
    patch_layer: nn.Module | None
    depends_on_grad_mode: bool


def survey(encode: Encode, x: Tensor) -> Survey:
    """Learn the facts of an encoder from two samples.

    Args:
        encode: maps (B, ...) inputs to (B, K).
        x: (N, ...) inputs, at least one.

    Raises:
        TypeError: if the output is not a tensor.
        ValueError: if the output is not (B, K), is integer or complex, does not depend on the input through autograd,
            is random, or if a sample's embedding depends on the other samples of its batch.
    """
    pair = torch.stack([x[0], x[1 % len(x)]]).detach().requires_grad_(True)
    sizes: list[int] = []
    total_bytes = 0
    entrances: list[nn.Module] = []
    with torch.enable_grad():
        entering = pair.clone()  # an encoder may write into its input

    def look(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal total_bytes
        if any(argument is entering and argument._version == 0 for argument in args):
            entrances.append(module)
        if isinstance(output, Tensor) and next(module.children(), None) is None:
            sizes.append(output.numel() // 2)
            total_bytes += output.numel() // 2 * output.element_size()

    with _buffers_kept(), warnings.catch_warnings():
        # a compiled module's hooks fire once more for its wrapper, which changes nothing here
        warnings.filterwarnings("ignore", "Using `torch.compile")
        # the fast path of transformers, which is taken without gradients alone
        warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")
        with batch_expected(encode, x), torch.enable_grad(), _every_module(look):
            z = encode(entering)
        _require_embedding(z, pair)
        z_found, patch_layer = z.detach(), next((module for module in entrances if _is_patch_layer(module)), None)
        del z  # and with it the graph
        _require_independent_samples(encode, pair.detach(), z_found)
        if patch_layer is not None and not _is_only_entrance(encode, pair, patch_layer):
            patch_layer = None
        with torch.no_grad():
            z_without = encode(pair.detach().clone())
    # an encoder may have no modules at all
    largest = max(*sizes, z_found.shape[1], x[0].numel())
    return Survey(z_found.shape[1], largest, total_bytes, patch_layer, not _same(z_found, z_without))


@contextmanager
def output_replaced(layer: nn.Module, value: Tensor) -> Generator[None, None, None]:
    """Let ``layer`` return a copy of ``value``, into which the encoder may write."""
    handle = layer.register_forward_hook(lambda module, args, output: value.clone())
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def batch_expected(encode: Encode, x: Tensor) -> Generator[None, None, None]:
    """Explain a failure in the block by a batch ``x`` that is one sample.

    Raises:
        ValueError: if what is done inside fails, and ``encode`` takes ``x[None]``.
    """
    try:
        yield
    except torch.OutOfMemoryError:  # says nothing about the shape
        raise
    except Exception as error:
        if _takes(encode, x[None]):
            raise ValueError(f"inputs of shape {tuple(x.shape)} are one sample, not a batch: pass x[None].") from error
        raise


def _takes(encode: Encode, one: Tensor) -> bool:
    """Tell whether a batch of one sample becomes one vector."""
    try:
        with torch.no_grad():
            z = encode(one.clone())
    except Exception:
        return False
    return isinstance(z, Tensor) and z.ndim == 2 and len(z) == 1


def _require_embedding(z: Tensor, pair: Tensor) -> None:
    require_real(z)
    if z.ndim != 2 or len(z) != len(pair):
        raise ValueError(
            f"the encoder must map {len(pair)} inputs to embeddings of shape ({len(pair)}, K), "
            f"got {tuple(z.shape)}: pool its tokens or feature maps first."
        )
    if not z.is_floating_point():
        raise ValueError(f"the embeddings are {z.dtype}; a Jacobian needs floating-point numbers.")
    if not _depends(z, pair):
        raise ValueError("the embeddings do not depend on the inputs through autograd: is there a detach or no_grad?")


def _require_independent_samples(encode: Encode, pair: Tensor, z: Tensor) -> None:
    first, second = pair
    # a neighbour that differs everywhere and stays in the range of the inputs; and the sample itself, because the batch
    # norm of two samples knows only which of them is larger
    neighbours = (torch.where(second == 0, torch.ones_like(second), 0.5 * second), first)
    others = (torch.stack([first, neighbour]) for neighbour in neighbours)
    other = next((other for other in others if not _same(z[0], _embeddings(encode, other)[0])), None)
    if other is None:
        return
    random = not _same(z[0], _embeddings(encode, pair)[0])
    name = _first_difference(encode, pair, pair if random else other)
    fault = "is random" if random else "mixes the samples of a batch"
    remedy = "put the encoder into eval mode" + ("" if random else ", and let the batch be its first dimension")
    raise ValueError(f"{name} {fault}, so a sample has no Jacobian of its own: {remedy}.")


def _embeddings(encode: Encode, inputs: Tensor) -> Tensor:
    """Embed with gradients on, (B, ...) -> (B, K): some encoders have other embeddings where they are off."""
    with torch.enable_grad():
        return encode(inputs.detach().requires_grad_(True).clone()).detach()


def _same(a: Tensor, b: Tensor) -> bool:
    """Compare up to rounding, relative to the largest entry; what is not finite counts as the same."""
    if a.shape != b.shape:
        return False
    scale = a.abs().nan_to_num(0.0, 0.0, 0.0).max() if a.numel() else torch.zeros(())
    difference = (a - b).abs().nan_to_num(0.0, 0.0, 0.0)
    return bool((difference <= torch.finfo(a.dtype).eps ** 0.5 * scale).all())


def _first_difference(encode: Encode, pair: Tensor, other: Tensor) -> str:
    """Name of the first module that makes sample 0 differ between the batches: its output does, its input does not.

    It is the innermost such module; where the cause lies between modules, that around them; else the encoder.
    """
    once, again = (_calls_on_first_sample(encode, batch) for batch in (pair, other))
    culprit = next(
        (
            module
            for (module, *a), (_, *b) in zip(once, again, strict=False)
            if _all_same(a[0], b[0]) and not _all_same(a[1], b[1])
        ),
        None,
    )
    if culprit is None:
        return "the encoder"
    for root in _modules_behind(encode):
        for name, module in root.named_modules():
            if module is culprit:
                return f"{name or 'the encoder'} ({type(module).__name__})"
    return f"a {type(culprit).__name__} of the encoder"


def _calls_on_first_sample(encode: Encode, pair: Tensor) -> list[tuple[nn.Module, list[Tensor], list[Tensor]]]:
    """Modules in the order in which they return, with what sample 0 has in their arguments and outputs."""
    entered: list[list[Tensor]] = []
    calls: list[tuple[nn.Module, list[Tensor], list[Tensor]]] = []

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:  # a module may write into its arguments
        entered.append(_of_first_sample(args))

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        calls.append((module, entered.pop(), _of_first_sample(output if isinstance(output, tuple) else (output,))))

    handle = register_module_forward_pre_hook(enter)
    try:
        with _every_module(leave):
            _embeddings(encode, pair)
    finally:
        handle.remove()
    return calls


def _of_first_sample(values: tuple[Any, ...]) -> list[Tensor]:
    """Copy the first halves of tensors: tokens may be folded into the batch, (2 T, ...)."""
    tensors = [value for value in values if isinstance(value, Tensor) and value.ndim and len(value) % 2 == 0]
    return [tensor[: len(tensor) // 2].detach().clone() for tensor in tensors]


def _all_same(once: list[Tensor], again: list[Tensor]) -> bool:
    return len(once) == len(again) and all(map(_same, once, again))


def _modules_behind(function: Callable[..., Any]) -> list[nn.Module]:
    """Modules that a callable is, is bound to, or encloses."""
    if isinstance(function, nn.Module):
        return [function]
    if isinstance(function, functools.partial):
        inside = [function.func, *function.args, *function.keywords.values()]
    else:
        cells = getattr(function, "__closure__", None) or ()
        inside = [getattr(function, "__self__", None), *(cell.cell_contents for cell in cells)]
    return [module for item in inside if callable(item) for module in _modules_behind(item)]


def _is_patch_layer(module: nn.Module) -> bool:
    """Find a convolution whose windows tile the input, and whose patches have more values than their tokens."""
    return (
        isinstance(module, _PATCH_LAYERS)
        and module.stride == module.kernel_size
        and module.padding in ("valid", (0,) * len(module.kernel_size))
        and module.dilation == (1,) * len(module.kernel_size)
        and module.groups == 1
        and module.weight[0].numel() > module.out_channels
    )


def _is_only_entrance(encode: Encode, pair: Tensor, layer: nn.Module) -> bool:
    """Tell whether the embedding depends on the input through one call of the layer and in no other way."""
    calls: list[nn.Module] = []
    tokens = layer(pair).detach().requires_grad_(True)
    with torch.enable_grad(), output_replaced(layer, tokens), _every_module(lambda module, *_: calls.append(module)):
        z = encode(pair.clone())
    return calls.count(layer) == 1 and _depends(z, tokens) and not _depends(z, pair)


def _depends(output: Tensor, leaf: Tensor) -> bool:
    """Look for a path in the autograd graph."""
    seen: set[Any] = set()
    waiting: list[Any] = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if getattr(node, "variable", None) is leaf:
            return True
        seen.add(node)
        waiting += [parent for parent, _ in node.next_functions]
    return False


@contextmanager
def _every_module(hook: Callable[[nn.Module, tuple[Any, ...], Any], None]) -> Generator[None, None, None]:
    """Call ``hook(module, args, output)`` after each forward of any module."""
    handle = register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _buffers_kept() -> Generator[None, None, None]:
    """Restore buffers of modules in training mode (batch statistics) at the end, refused encoders' too."""
    kept: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}

    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        if module.training and module not in kept:
            kept[module] = [(buffer, buffer.clone()) for buffer in module.buffers(recurse=False)]

    handle = register_module_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()
        with torch.no_grad():
            for pairs in kept.values():
                for buffer, value in pairs:
                    buffer.copy_(value)
