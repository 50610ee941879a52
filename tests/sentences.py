"""The end of the command line where a user made a mistake, or a run failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

MISTAKE, FAILED = 2, 1


def one_sentence(function: Callable[[], Any], capsys: pytest.CaptureFixture[str], *, code: int = MISTAKE) -> str:
    """The one line ``error: ...`` that a function ends with on stderr, with this exit code and without a traceback."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        function()
    assert ended.value.code == code
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err + shown.out
    *_, message = shown.err.rstrip("\n").split("\n")
    assert message.startswith("error: ")
    assert shown.err.count("error: ") == 1
    return message
