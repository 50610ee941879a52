"""Ranks a folder, and kills itself at the N-th file that gets its name, or has no room for files beyond N bytes.

Started by test_interrupted.py as a script: each process must begin without the test's threads and state.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import warnings
from pathlib import Path

from jepa_train.commands.mistakes import one_sentence
from tests.train.ranking.tiny import rank_quietly

replace = os.replace
named: list[Path] = []


def main(images: Path, output: Path, moment: str, number: int) -> None:
    """Rank; ``moment`` is ``before`` or ``after`` the N-th name, or ``full``."""
    warnings.simplefilter("ignore")

    def counted(source: Path, target: Path) -> None:
        named.append(target)
        if moment == "before" and len(named) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if moment == "after" and len(named) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = counted  # type: ignore[assignment]  # of this process alone
    if moment == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (number, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    with one_sentence():
        rank_quietly(images, output, page=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
