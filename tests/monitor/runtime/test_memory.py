"""Free memory keeps within the limits of control groups."""

from __future__ import annotations

from pathlib import Path

import torch

from jepa_monitor.runtime.memory import free_bytes, left_in_groups


def limited(folder: Path, limit: str, used: int, cached: int) -> Path:
    """A control group."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used - cached}\ninactive_file {cached}\nactive_file 0\n")
    return folder


def test_each_limit_counts_and_files_are_given_back(tmp_path: Path) -> None:
    limited(tmp_path / "groups" / "job", "1000", used=700, cached=200)
    inner = limited(tmp_path / "groups" / "job" / "step", "max", used=600, cached=100)
    innermost = limited(inner / "task", "400", used=500, cached=0)
    assert left_in_groups(innermost, tmp_path / "groups") == [0, 500]
    assert left_in_groups(tmp_path / "none", tmp_path / "groups") == []


def test_some_memory_is_free() -> None:
    assert 1 << 20 < free_bytes(torch.device("cpu")) < 1 << 50
