"""Opens pages of rankings in Chromium, and reads what stands on them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
SECONDS = 60  # patience on a busy machine
in_chromium = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.xdist_group("browser"),  # one browser for all
]


class Opener:
    """Opens pages from disk, and collects what they complain about."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self.complaints: list[str] = []
        self.pages: list[Any] = []

    def __call__(self, folder: Path, **settings: Any) -> Any:
        view = self.browser.new_page(**{"viewport": {"width": 1280, "height": 1300}, **settings})
        self.pages.append(view)
        view.set_default_timeout(1000 * SECONDS)
        view.on("console", lambda message: self.complaints.append(message.text))
        view.on("pageerror", lambda error: self.complaints.append(str(error)))
        view.goto((folder / "index.html").as_uri())
        return view


def listed(view: Any) -> list[str]:
    """File names of the images in the list, as far as they are drawn."""
    return list(
        view.evaluate("[...document.querySelectorAll('#list .item')].map((it) => DATA.filename[it.dataset.row])")
    )


def focused(view: Any) -> str:
    """File name of the image that has the focus."""
    return str(view.evaluate("DATA.filename[document.activeElement.dataset.row]"))


def plain(view: Any, name: str) -> str:
    return str(view.locator(name).inner_text())


def check_beginning(found: list[str], expected: list[str]) -> None:
    assert len(found) >= min(10, len(expected))
    assert found == expected[: len(found)]


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG defines it, of what a browser computed."""
    channels = np.array([float(part) for part in re.findall(r"[\d.]+", colour)[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
