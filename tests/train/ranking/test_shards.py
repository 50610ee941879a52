"""Shards take every n-th part."""

from __future__ import annotations

import pytest

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.shards import Shard


def test_shards_cover_all_parts_once() -> None:
    shards = [Shard.parse(f"{number}/3").take(range(8)) for number in (1, 2, 3)]
    assert shards == [[0, 3, 6], [1, 4, 7], [2, 5]]
    assert Shard.parse(None).take(range(3)) == [0, 1, 2]
    assert str(Shard.parse("2/3")) == "2/3"


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", ""])
def test_others_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--shard must be I/N"):
        Shard.parse(text)
