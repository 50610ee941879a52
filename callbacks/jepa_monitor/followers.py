"""Tags that callbacks such as ``ModelCheckpoint`` follow, and that a run does not have."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from .history import current_name
from .tags import meaning_of


def missing_tags(followers: Iterable[tuple[Any, str]], known: Collection[str], prefix: str) -> list[str]:
    """Say which tags are not there, and why: Lightning stops the run at a missing one.

    Args:
        followers: callbacks, each with the tag that it follows.
        known: tags that there are or will be, without the prefix.
        prefix: beginning of all tags.
    """
    return [
        f"{type(follower).__name__} follows {tag}, which this run does not have: {why_absent(name)}. Lightning stops "
        "the run where it is missing, so follow another tag."
        for follower, tag in followers
        if (name := tag.removeprefix(prefix)) not in known
    ]


def why_absent(name: str) -> str:
    """Say in a clause why a measurement that did not fail has no tag of this name."""
    if (now := current_name(name)) != name:
        return f"its name is {now} now"
    tag = meaning_of(name)
    if tag is None:
        return "there is no tag of that name"
    if tag.none_for:
        return f"there is none for {tag.none_for}"
    return f"it needs {tag.needs}" if tag.needs else "what it is measured on is not among the data"
