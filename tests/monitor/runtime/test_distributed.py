"""All processes raise or none, and all get the first one's value."""

from __future__ import annotations

import pytest
import torch

from jepa_monitor.runtime.distributed import MeasurementError, broadcast, fail_together, is_global_zero, process_count
from tests.processes import run_on

CPU = torch.device("cpu")


def test_one_process_raises_what_the_block_raised() -> None:
    with pytest.raises(OSError, match="the disk is gone"), fail_together(CPU):
        raise OSError("the disk is gone")


def test_a_block_that_succeeds_gives_its_names() -> None:
    with fail_together(CPU):
        found = 1
    assert (found, broadcast(2), is_global_zero(), process_count()) == (1, 2, True, 1)


def outcome(rank: int, failing: list[int]) -> str:
    """Message and cause of a block that fails on some processes."""
    try:
        with fail_together(CPU):
            if rank in failing:
                raise StopIteration("nothing left")
    except MeasurementError as error:
        return f"{error} | {type(error.__cause__).__name__}"
    return "none"


def fail_and_go_on(rank: int, world_size: int) -> list[str]:
    """Outcomes of blocks that fail on the second process, on both, and on none; then the first process's value."""
    outcomes = [outcome(rank, failing) for failing in ([1], [0, 1], [])]
    return [*outcomes, broadcast(f"of {rank}"), f"{is_global_zero()} {process_count()}"]


@pytest.mark.slow
def test_all_processes_raise_or_none_and_the_cause_is_kept() -> None:
    first, second = run_on(2, fail_and_go_on)
    on_one, on_both = "process 1: StopIteration: nothing left", "process 0: StopIteration: nothing left"
    assert first == [f"{on_one} | NoneType", f"{on_both}; {on_one} | StopIteration", "none", "of 0", "True 2"]
    assert second == [f"{on_one} | StopIteration", f"{on_both}; {on_one} | StopIteration", "none", "of 0", "False 2"]
