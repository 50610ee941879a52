"""Arguments from Python code, checked by the signature that they are for: one sentence for the first that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jepa_train.commands.parsing import meant
from jepa_train.errors import ConfigurationError

KINDS = {
    str: "text",
    Path: "a path",
    bool: "True or False",
    Integral: "a whole number",
    Sequence: "a list",
    Mapping: "a dictionary",
    NoneType: "None",
}


def check_arguments(function: Callable[..., Any], values: Mapping[str, Any], *, group: str = "") -> None:
    """See that arguments are of the kinds that a function's type hints say, members of lists and dictionaries excepted.

    Args:
        function: a function or class.
        values: arguments by name; others than those of the function are passed over.
        group: put before the names in the sentence.

    Raises:
        ConfigurationError: naming the first that is not.
    """
    for name, hint in get_type_hints(function).items():
        if name not in values:
            continue
        value, hints = values[name], _alternatives(hint)
        choices = [choice for each in hints if get_origin(each) is Literal for choice in get_args(each)]
        kinds = [_kind(each) for each in hints if get_origin(each) is not Literal]
        if choices and not kinds:
            check_choice(group + name, value, choices)
        elif not isinstance(value, tuple(kinds)) or (isinstance(value, bool) and bool not in kinds):
            expected = " or ".join(KINDS.get(kind, kind.__name__) for kind in kinds)
            raise ConfigurationError(f"{group}{name} must be {expected}, got {value!r}.")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """See that a value is one of the choices.

    Raises:
        ConfigurationError: with the nearest of them.
    """
    known = list(choices)
    if value not in known:
        hint = meant(value, known, 0.6) if isinstance(value, str) else ""
        raise ConfigurationError(f"{name} must be one of {', '.join(known)}, got {value!r}{hint}.")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _kind(hint: Any) -> type:
    kind: type = get_origin(hint) or hint
    return Integral if kind is int else kind
