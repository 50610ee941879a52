"""Work of the first process, batches in halves, and the Trainer of a ranking."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.passes import StageBar, in_halves, on_first_process, ranking_trainer
from tests.processes import run_on
from tests.train.ranking.tiny import QUIET, pictures, rank_quietly


def test_a_batch_that_does_not_fit_is_halved() -> None:
    sizes = []

    def little_memory(x: Tensor) -> Tensor:
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("too much")
        return 2.0 * x

    x = torch.arange(7.0)
    torch.testing.assert_close(in_halves(little_memory, x), 2.0 * x)
    assert sizes == [7, 3, 1, 2, 4, 2, 2]

    def no_memory(x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("none")

    with pytest.raises(torch.OutOfMemoryError):
        in_halves(no_memory, x)


def refuse(refusal: Exception) -> None:
    raise refusal


def test_a_refusal_is_raised() -> None:
    with pytest.raises(ConfigurationError, match="no"):
        on_first_process(ranking_trainer(QUIET), partial(refuse, ConfigurationError("no")))


class Unpicklable(Exception):
    """Cannot be sent to another process."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__("no such thing")


REFUSALS = (ConfigurationError("no such thing"), Unpicklable(1, 2), KeyError("no such thing"))


def raised_for(refusal: Exception, trainer: Any) -> str:
    try:
        on_first_process(trainer, partial(refuse, refusal))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def refused_on_the_first(global_rank: int, world_size: int) -> list[str]:
    """Exceptions of this process where the work of the first one fails."""
    trainer = SimpleNamespace(
        is_global_zero=global_rank == 0, strategy=SimpleNamespace(root_device=torch.device("cpu"))
    )
    return [raised_for(refusal, trainer) for refusal in REFUSALS]


def test_what_fails_on_the_first_process_fails_on_all() -> None:
    first, second = run_on(2, refused_on_the_first)
    assert first == [f"{type(refusal).__name__}: {refusal}" for refusal in REFUSALS]
    assert second == [f"RunFailed: process 0: {text}" for text in first]


def test_the_bar_counts_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rank_quietly(pictures(tmp_path / "photos", 40), tmp_path / "ranked", trainer={"accelerator": "cpu"})
    shown = capsys.readouterr().out
    for stage in ("Embeddings", "Volumes"):
        assert f"{stage}: 100%" in shown
    assert "40/40 images" in shown
    assert "images/s" in shown


def test_a_callback_of_the_user_stands_beside_the_bar() -> None:

    mine = Callback()
    trainer = ranking_trainer({"accelerator": "cpu", "callbacks": mine})
    assert mine in trainer.callbacks
    assert any(isinstance(callback, StageBar) for callback in trainer.callbacks)
    assert not trainer.loggers
