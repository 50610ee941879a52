"""Memory that is free: of a GPU, or of a CPU's machine within the limits of this process's control groups."""

from __future__ import annotations

import os
from pathlib import Path

import torch

GROUPS = Path("/sys/fs/cgroup")
UNKNOWN = 1 << 32  # bytes


def free_bytes(device: torch.device) -> int:
    """Bytes that a process can have on a device, without swapping; 4 GiB on a system that does not tell."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return min([_available(), *left_in_groups(_own_group(), GROUPS)])


def left_in_groups(group: Path, top: Path) -> list[int]:
    """Bytes that are left within each limit of a control group (version 2) and of those that it is in.

    Args:
        group: folder of the group.
        top: folder of all groups.
    """
    folders = [folder for folder in (group, *group.parents) if folder.is_relative_to(top)]
    return [left for folder in folders if (left := _left_in(folder)) is not None]


def _left_in(folder: Path) -> int | None:
    try:
        limit, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
        cached = next(
            line for line in (folder / "memory.stat").read_text().splitlines() if line.startswith("inactive_f")
        )
    except (OSError, ValueError, StopIteration):  # no such group, or "max"
        return None
    return max(0, limit - used + int(cached.split()[1]))


def _own_group() -> Path:
    try:
        named = [line.removeprefix("0::/") for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        named = []
    return GROUPS / (named[-1] if named else "")


def _available() -> int:
    """Free pages and those of files, which the kernel gives back."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on every system
        return UNKNOWN
