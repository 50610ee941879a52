"""Parts that a measurement can do without: one that fails costs its own values, and is named."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import TypeVar

from .. import tag_groups
from ..runtime.distributed import MeasurementError
from .shards import Shard

T = TypeVar("T")
PROBE = ""  # name of the probe among the sets that are measured


class Sparing:
    """Runs parts that a measurement can do without, and remembers which of them failed.

    Every process calls :meth:`attempt`; a part must raise on all of them or on none.

    Args:
        raises: raise after a failure, and do not go on.

    Attributes:
        failures: part to the reason why it is left out.
        lost: tags that there would be.
    """

    def __init__(self, *, raises: bool = False) -> None:
        self.raises = raises
        self.failures: dict[str, str] = {}
        self.lost: set[str] = set()

    @contextmanager
    def attempt(self, part: str, lost: Iterable[str] = ()) -> Generator[None, None, None]:
        """Run a block that a measurement can do without; its exception is recorded and goes no further.

        Args:
            part: name in messages.
            lost: tags that cannot be logged without it.

        Raises:
            MeasurementError: with the part's name, if ``raises``.
        """
        try:
            yield
        except Exception as error:  # whatever it was, the rest does not need it
            reason = str(error) if isinstance(error, MeasurementError) else f"{type(error).__name__}: {error}"
            if self.raises:
                raise MeasurementError(f"{part}: {reason}") from error
            self.failures[part] = reason
            self.lost |= set(lost)

    def attempt_each(self, function: Callable[[str, Shard], T], sets: Mapping[str, Shard]) -> dict[str, T]:
        """Return results by set; all sets but the probe may fail."""
        found = {PROBE: function(PROBE, sets[PROBE])}
        for name in sets:
            if name == PROBE:
                continue
            with self.attempt(further_set(name), tag_groups.set_tags(name)):
                found[name] = function(name, sets[name])
        return found


def further_set(name: str) -> str:
    """Name a set of samples from elsewhere in messages."""
    return f"the ood set {name!r}"
