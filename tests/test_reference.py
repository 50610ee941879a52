"""The reference of settings: the page has every option of the command line, with its description and default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import reference

from jepa_train.cli import main

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "settings.md").read_text()


def test_the_page_has_what_the_parsers_say() -> None:
    assert reference.tables() in PAGE


def test_the_page_has_each_option_that_fit_lists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    printed = capsys.readouterr().out
    listed = set(re.findall(r"--((?:model|monitor)\.\w+|\w+)(?![\w.])", printed))
    listed -= {*reference.LEFT_OUT, "monitor.help"}
    assert {"model.learning_rate", "monitor.budget", "ckpt_path"} <= listed
    assert [name for name in listed if f"\n| `{name.rpartition('.')[2]}` |" not in PAGE] == []


def test_no_row_lacks_its_description() -> None:
    rows = re.findall(r"^\| `.*$", PAGE, re.MULTILINE)
    assert len(rows) > 150
    assert [row for row in rows if re.search(r"\| (?:None|) \|", row)] == []
