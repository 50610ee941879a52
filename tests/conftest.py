"""Fixtures shared by all tests."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator

import pytest

# before torch is imported: several tests run at a time, with processes of their own
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
import torch

# before Lightning is imported: its log reaches the root, and so caplog, only if the root has a handler by then
logging.getLogger().addHandler(logging.NullHandler())


@pytest.fixture(autouse=True, scope="session")
def _no_arguments() -> Iterator[None]:
    """LightningCLI warns where arguments are passed to it while the process has some of its own: those of pytest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py"])
        yield


@pytest.fixture(autouse=True)
def _same_draws() -> Iterator[None]:
    """Each test starts from the same random state and leaves the number of threads as it was."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
