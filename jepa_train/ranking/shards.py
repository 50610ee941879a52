"""The share of a ranking that one job of a job array takes: every n-th part."""

from __future__ import annotations

import re
from dataclasses import dataclass

from jepa_train.errors import ConfigurationError


@dataclass(frozen=True)
class Shard:
    """One of n shards.

    Attributes:
        number: its number, from 1 to ``of``.
        of: n.
    """

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Shard:
        """Read ``i/n``; ``None`` is 1/1.

        Raises:
            ConfigurationError: for anything else.
        """
        if text is None:
            return cls()
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigurationError(f"--shard must be I/N with I from 1 to N, such as 3/8, got {text!r}.")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def take(self, parts: range) -> list[int]:
        """The parts of this shard."""
        return list(parts[self.number - 1 :: self.of])
