"""Short representations of objects that hold tensors."""

from __future__ import annotations

import dataclasses
import reprlib
from typing import Any


class _Shapes(reprlib.Repr):
    def repr_Tensor(self, tensor: Any, level: int) -> str:
        return f"Tensor{tuple(tensor.shape)}"


class Concise:
    """A dataclass whose ``repr`` gives the shapes of its tensors, not their values, which fill the screen.

    Its decorator needs ``repr=False``.
    """

    def __repr__(self) -> str:
        """Name of the class, and its fields cut to a few words each."""
        short = _Shapes()
        fields = [field.name for field in dataclasses.fields(self) if field.repr]  # type: ignore[arg-type]  # one of its kind
        return f"{type(self).__qualname__}({', '.join(f'{name}={short.repr(getattr(self, name))}' for name in fields)})"
