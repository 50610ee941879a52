"""Work of the first process, batches in halves, and the Trainer of a ranking."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.passes import StageBar, images_at_once, in_halves, on_first_process, ranking_trainer
from tests.processes import run_on
from tests.train.ranking.tiny import QUIET, encoder_of, layers, pictures, rank_quietly, values


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


class Roomy(nn.Module):
    """Takes batches up to a size, as a device with little memory does."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.layers, self.room = layers(), room

    def forward(self, x: Tensor) -> Tensor:
        """Embed."""
        if len(x) > self.room:
            raise torch.OutOfMemoryError(f"{len(x)} images do not fit")
        z: Tensor = self.layers(x)
        return z


@pytest.mark.parametrize("estimator", ["exact", "subspace"])
def test_a_ranking_ends_in_whatever_memory_suffices_for_two_images(tmp_path: Path, estimator: str) -> None:
    images = pictures(tmp_path / "images", 40)
    much, little = (
        rank_quietly(
            images, tmp_path / f"{room}", encoder=encoder_of(Roomy(room), identity=f"{room}"), estimator=estimator
        )
        for room in (1000, 2)
    )
    for name in ("embedding_log_density", "log_volume", "log_density", "mahalanobis", "knn_distance"):
        np.testing.assert_allclose(values(little, name), values(much, name), atol=1e-4)


def refuse(refusal: Exception) -> None:
    raise refusal


def test_forward_passes_keep_to_half_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 1000), torch.nn.ReLU(), torch.nn.Linear(1000, 2))
    x = torch.randn(64, 3, 2, 2)
    monkeypatch.setattr("jepa_train.ranking.passes.free_bytes", lambda device: 2 * 10 * 3 * 2000 * 4)
    assert images_at_once(wide, x) == 10
    monkeypatch.setattr("jepa_train.ranking.passes.free_bytes", lambda device: 100)
    assert images_at_once(wide, x) == 1


def test_a_ranking_with_little_memory_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(tmp_path / "photos", 12)
    whole = rank_quietly(images, tmp_path / "whole", scores="embedding_log_density")
    monkeypatch.setattr("jepa_train.ranking.passes.free_bytes", lambda device: 1)
    single = rank_quietly(images, tmp_path / "single", scores="embedding_log_density")
    np.testing.assert_allclose(
        values(whole, "embedding_log_density"), values(single, "embedding_log_density"), atol=1e-4
    )


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
