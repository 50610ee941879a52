"""Warnings that are told once for as long as their reason lasts."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch.utilities import rank_zero_warn


class Notices:
    """What was told already, by topic.

    Args:
        title: goes before each warning.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._lasting: dict[str, set[str]] = {}

    def tell(self, texts: Iterable[str]) -> None:
        """Warnings, each time."""
        for text in texts:
            rank_zero_warn(f"{self.title}: {text}")

    def tell_new(self, topic: str, conditions: Iterable[str]) -> None:
        """Warnings of those conditions of a topic that did not last already; without any, the topic is over."""
        now = set(conditions)
        self.tell(sorted(now - self._lasting.get(topic, set())))
        self._lasting[topic] = now
