"""The representations that are compared: one as it is, or several by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from ..density import Encode
from ..errors import SettingError
from ..runtime.encoder import EncoderChoice, Pool, has_forward, resolve_encoder

Encoders = EncoderChoice | Mapping[str, EncoderChoice]


def resolve_encoders(module: nn.Module, encoder: Encoders, pool: Pool) -> dict[str, tuple[Encode, str]]:
    """Name to function from inputs to (B, K) with a description of it, the headline first.

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


def _method_or_path(module: nn.Module, choice: EncoderChoice) -> EncoderChoice:
    """A name of something that can be called as a function; a path is left to :func:`resolve_encoder`."""
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
