"""Trains on some processes, killed in mid-epoch or not, and writes what each of them saw.

Started by test_resumable.py as a script: each process must begin without the test's threads and state.
"""

from __future__ import annotations

import json
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import torch
from lightning.pytorch.strategies import DDPStrategy

from jepa_train.parallel import disconnect
from tests.train.data.helpers import NumberedData, fit

GLOBAL_BATCH = 4


def main(world_size: int, die_at: int, folder: Path) -> None:
    """Write ``{world_size}_{rank}.json``: what was seen after the resume, or in all if ``die_at`` is 0."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    strategy = DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=60)) if world_size > 1 else "auto"
    data = NumberedData(batch_size=GLOBAL_BATCH // world_size, num_workers=1)
    module = fit(
        data,
        folder / "saved",
        die_at=die_at or None,
        resume=folder.joinpath("saved").exists(),
        strategy=strategy,
        devices=world_size,
    )
    (folder / f"{world_size}_{module.global_rank}.json").write_text(json.dumps(module.seen))
    disconnect()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
