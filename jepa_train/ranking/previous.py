"""The ranking that ``--overwrite`` replaces: set aside whole, and put back where the new one is refused.

Each step is a rename, so that a kill between any two leaves what :func:`settle` sets right: files that are on their way
are put back, all of them, and those that were given up are removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

ASIDE = ".replaced"  # the files of the ranking that is replaced, all of them
MOVING = ".moving"  # these files on their way to or from there, of which some are still, or already, in their place
GIVEN_UP = ".given_up"  # these files when nothing needs them any more


def set_aside(folder: Path, names: Iterable[str]) -> None:
    """Move some entries of a folder aside; those that are aside already stay, and these are removed."""
    if is_set_aside(folder):
        _remove(folder, names)
        return
    (folder / MOVING).mkdir()
    for name in names:
        if (folder / name).exists():
            (folder / name).rename(folder / MOVING / name)
    (folder / MOVING).rename(folder / ASIDE)


def is_set_aside(folder: Path) -> bool:
    """Tell whether there is something to put back."""
    return (folder / ASIDE).is_dir()


def put_back(folder: Path, names: Iterable[str]) -> None:
    """Put back what was set aside, in place of the entries of these names."""
    _remove(folder, names)
    (folder / ASIDE).rename(folder / MOVING)
    settle(folder)


def give_up(folder: Path) -> None:
    """Remove what was set aside."""
    if is_set_aside(folder):
        (folder / ASIDE).rename(folder / GIVEN_UP)
        settle(folder)


def settle(folder: Path) -> None:
    """Finish what a kill interrupted."""
    if (folder / MOVING).is_dir():
        for path in (folder / MOVING).iterdir():
            path.rename(folder / path.name)
        (folder / MOVING).rmdir()
    shutil.rmtree(folder / GIVEN_UP, ignore_errors=True)


def _remove(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)
