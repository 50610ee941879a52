"""Training that becomes non-finite ends with one sentence, and what was saved before it stays as it is."""

from __future__ import annotations

import hashlib
import re
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint, OnExceptionCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.utils.data import DataLoader

from jepa_train.checkpoints.files import AtomicCheckpointIO, read_checkpoint
from jepa_train.checkpoints.finite import not_finite
from jepa_train.checkpoints.stopping import ClosingCheckpoint, StopSignals
from jepa_train.cli import main
from jepa_train.errors import ConfigurationError, RunFailed
from jepa_train.export import export
from jepa_train.module import JEPA
from tests.monitor.helpers import trainer_on
from tests.processes import run_on
from tests.train.helpers import TINIEST

BATCH, BATCHES = 4, 4
BAD = 6  # the batch, counted over two epochs


class Images(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Two epochs of batches; one batch of the second is NaN, if asked for."""

    def __init__(self, *, bad: bool) -> None:
        self.bad = bad
        self.seen = 0

    def __len__(self) -> int:
        return BATCH * BATCHES

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(index))
        spoilt = self.bad and self.seen // BATCH == BAD
        self.seen += 1
        return {"image": image * (torch.nan if spoilt else 1.0)}


def trainer_in(folder: Path, *callbacks: Callback, **settings: Any) -> pl.Trainer:
    defaults = {"max_epochs": 2, "log_every_n_steps": 1000, "logger": False, "accelerator": "cpu"}
    return pl.Trainer(
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **(defaults | settings),
    )


def fit(trainer: pl.Trainer, *, bad: bool, ckpt_path: str | None = None, module: JEPA | None = None) -> None:
    torch.manual_seed(0)
    training, validation = (DataLoader(Images(bad=bad and train), batch_size=BATCH) for train in (True, False))
    trainer.fit(module or JEPA(**TINIEST), training, validation, ckpt_path=ckpt_path, weights_only=True)


def content(folder: Path) -> dict[Path, str]:
    """Contents of the links and files of a folder."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.ckpt"))
        if path.stem != "on_exception"
    }


class Before(Callback):
    """Remembers the files as they are when the bad batch comes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[Path, str] = {}

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        if not batch["image"].isfinite().all():
            self.files = content(self.folder)


SAVING: dict[str, dict[str, Any]] = {
    "last of every step": {"every_n_train_steps": 1, "save_last": True},
    "last of every second step": {"every_n_train_steps": 2, "save_last": True},
    "a link": {"every_n_train_steps": 1, "save_last": "link"},
    "last alone": {"every_n_train_steps": 1, "save_last": True, "save_top_k": 0},
    "all": {"every_n_train_steps": 1, "save_top_k": -1},
    "the best": {"every_n_train_steps": 1, "save_top_k": 2, "monitor": "train/loss", "save_last": True},
    "the worst": {"every_n_train_steps": 1, "save_top_k": 1, "monitor": "train/loss", "mode": "max"},
    "epochs": {"save_last": True},
    "time": {"train_time_interval": timedelta(0), "save_last": True},
    "weights": {"every_n_train_steps": 1, "save_weights_only": True, "save_last": True},
    "exceptions": {"every_n_train_steps": 2, "save_last": True, "save_on_exception": True},
}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize("saving", SAVING)
def test_no_file_is_written_over_or_removed(saving: str, tmp_path: Path) -> None:
    before = Before(tmp_path)
    trainer = trainer_in(tmp_path, before, ModelCheckpoint(tmp_path / "checkpoints", **SAVING[saving]))
    with pytest.raises(RunFailed) as failure:
        fit(trainer, bad=True)
    assert content(tmp_path) == before.files != {}
    newest = max(before.files, key=lambda path: (path.stat().st_mtime_ns, path.name))
    step = torch.load(newest, weights_only=True)["global_step"]
    assert re.match(
        rf"training became non-finite after step {step}, by step [78] \(state_dict\.\S+ and \d+ other tensors\): .*; "
        rf"--ckpt_path {newest} goes on from the last good checkpoint\.$",
        str(failure.value),
    )
    if saving != "weights":
        resumed = trainer_in(tmp_path, ModelCheckpoint(tmp_path / "checkpoints", **SAVING[saving]))
        fit(resumed, bad=False, ckpt_path=str(newest))
        assert resumed.global_step == 2 * BATCHES


class Own(TorchCheckpointIO):
    """A user's own way to a file."""


WAYS: dict[str, dict[str, Any]] = {
    "ours": {"plugins": [AtomicCheckpointIO()]},
    "in the background": {"plugins": [AsyncCheckpointIO()]},
    "a user's own": {"plugins": [Own()]},
    "accumulation": {"accumulate_grad_batches": 2},
    "half precision": {"precision": "bf16-mixed"},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_a_file(way: str, tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_last=True)
    with pytest.raises(RunFailed, match="training became non-finite after step"):
        fit(trainer_in(tmp_path, saver, **WAYS[way]), bad=True)
    assert {path.name for path in content(tmp_path)} > {"last.ckpt"}
    assert not [path for path in content(tmp_path) if not_finite(torch.load(path, weights_only=True))]


class AtEachStep(Callback):
    """Saves by hand."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "by_hand.ckpt", weights_only=bool(batch_idx % 2))


@pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback with a model that overrides")
@pytest.mark.filterwarnings("ignore:.*was called without a model")  # Lightning, where exceptions are saved
@pytest.mark.filterwarnings("ignore:.*there is no last checkpoint available")  # the same
@pytest.mark.parametrize("writer", ["by hand", "closing", "exception", "average", "nothing"])
def test_every_writer(writer: str, tmp_path: Path) -> None:
    last = ModelCheckpoint(tmp_path, every_n_train_steps=5, save_last=True)
    callbacks: dict[str, list[Callback]] = {
        "by hand": [AtEachStep()],
        "closing": [last, ClosingCheckpoint(StopSignals())],
        "exception": [last, AtEachStep(), OnExceptionCheckpoint(tmp_path)],
        "average": [EMAWeightAveraging(decay=0.5), ModelCheckpoint(tmp_path, every_n_train_steps=1)],
        "nothing": [],
    }
    trainer = trainer_in(
        tmp_path, *callbacks[writer], enable_checkpointing=writer in ("closing", "exception", "average")
    )
    with pytest.raises(RunFailed, match="training became non-finite after step"):
        fit(trainer, bad=True)
    assert bool(content(tmp_path)) == (writer != "nothing")
    assert not [path for path in content(tmp_path) if not_finite(torch.load(path, weights_only=True))]
    assert not (tmp_path / "on_exception.ckpt").exists()


def test_the_first_checkpoint_is_not_written_either(tmp_path: Path) -> None:
    module = JEPA(**TINIEST, learning_rate=1e30, learning_rate_start=1e30)
    with pytest.raises(RunFailed, match=r"after step 0, by step 4 .*; no checkpoint was written before"):
        fit(trainer_in(tmp_path, ModelCheckpoint(tmp_path)), bad=False, module=module)
    assert content(tmp_path) == {}


class NaNBatch(Callback):
    """The images of the fourth step are NaN."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        if trainer.global_step == 3:
            batch["image"].fill_(torch.nan)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:The number of training batches")  # the loss is looked at in the first step alone
def test_the_last_checkpoint_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [
        "fit",
        "--trainer.max_steps=6",
        "--trainer.log_every_n_steps=1000",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--trainer.logger.save_dir=runs",
        "--trainer.callbacks=lightning.pytorch.callbacks.ModelCheckpoint",
        "--trainer.callbacks.every_n_train_steps=1",
        "--trainer.callbacks.save_last=true",
        "--data.num_train=512",
        "--data.num_probe=32",
        "--data.batch_size=64",
        "--model.encoder_overrides={embed_dim: 16, depth: 1, num_heads: 2}",
        "--model.projector_hidden=16",
        "--model.predictor_width=16",
    ]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, f"--trainer.callbacks+={__name__}.NaNBatch"])
    assert ended.value.code == 1
    last = Path("runs/mixture/version_0/checkpoints/last.ckpt")
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: training became non-finite after step 3, by step 4 (")
    assert error.endswith(f"--ckpt_path {last} goes on from the last good checkpoint.")
    cli = main([*arguments, "--ckpt_path=last"])
    assert cli is not None
    assert cli.trainer.global_step == read_checkpoint(last)["global_step"] == 6


def test_a_module_that_was_never_trained_is_saved(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, enable_checkpointing=False)
    trainer.strategy.connect(JEPA(**TINIEST))
    trainer.save_checkpoint(tmp_path / "new.ckpt")
    assert read_checkpoint(tmp_path / "new.ckpt")["global_step"] == 0


@pytest.mark.parametrize("part", ["state_dict", "optimizer_states", "current_model_state", "MixedPrecision"])
def test_what_is_looked_at(part: str) -> None:
    good: dict[str, Any] = {
        "state_dict": {"a": torch.ones(3), "empty": torch.ones(0), "counter": torch.tensor(1)},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2)}}, "param_groups": []}],
        "current_model_state": {"a": torch.ones(3, dtype=torch.bfloat16)},
        "callbacks": {"EarlyStopping": {"best_score": torch.tensor(torch.inf)}},
        "MixedPrecision": {"scale": 0.5},
    }
    assert not_finite(good) == []
    for value in (torch.nan, torch.inf, -torch.inf):
        if part == "MixedPrecision":
            good[part]["scale"] = 0.0
            assert not_finite(good) == ["MixedPrecision.scale"]
        elif part == "optimizer_states":
            good[part][0]["state"][0]["exp_avg"][1] = value
            assert not_finite(good) == ["optimizer_states.0.state.0.exp_avg"]
        else:
            good[part]["a"][1] = value
            assert not_finite(good) == [f"{part}.a"]


class Overflow(Callback):
    """Gradients of one step overflow, as in half precision."""

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.total.ready == 3:
            next(p for p in pl_module.parameters() if p.grad is not None).grad.fill_(torch.inf)  # type: ignore[union-attr]


def test_a_step_that_a_gradient_scaler_leaves_out_is_no_failure(tmp_path: Path) -> None:
    precision = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=256.0))
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1)
    trainer = trainer_in(tmp_path, saver, Overflow(), plugins=[precision], log_every_n_steps=1)
    fit(trainer, bad=False)
    assert read_checkpoint(Path(saver.best_model_path))["MixedPrecision"]["scale"] == 128.0


def test_a_checkpoint_that_is_not_finite_is_not_read(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, ModelCheckpoint(tmp_path, save_last=True))
    fit(trainer, bad=False)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    checkpoint["state_dict"]["target.projector.layers.0.weight"][0, 0] = torch.nan
    torch.save(checkpoint, tmp_path / "old.ckpt")  # of another program
    sentence = r"old.ckpt has NaN or infinity in state_dict.target.projector.layers.0.weight: choose"
    with pytest.raises(ConfigurationError, match=sentence):
        read_checkpoint(tmp_path / "old.ckpt")
    with pytest.raises(ConfigurationError, match=sentence):
        export(tmp_path / "old.ckpt", tmp_path / "exported" / "model.safetensors")
    assert not (tmp_path / "exported" / "model.safetensors").exists()


class SpoilOne(Callback):
    """One weight of the last process becomes NaN after the third step."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 3 and not trainer.is_global_zero:
            weight = pl_module.get_parameter("online.encoder.vit.norm.weight").detach()
            getattr(weight, "to_local", lambda: weight)().fill_(torch.nan)


def fit_on(rank: int, world_size: int, folder: str, sharded: bool | None) -> tuple[str, float]:
    """The end of a process, and its seconds; ``sharded`` also of the checkpoint, None for DDP."""
    strategy = None
    if sharded is not None:
        strategy = ModelParallelStrategy(
            data_parallel_size=world_size,
            tensor_parallel_size=1,
            save_distributed_checkpoint=sharded,
            timeout=timedelta(seconds=30),
        )
    saver = ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1)
    trainer = trainer_on(
        rank, world_size, SpoilOne(), saver, strategy=strategy, max_epochs=2, enable_checkpointing=True,
        log_every_n_steps=1000, default_root_dir=folder,
    )  # fmt: skip
    begun = time.monotonic()
    with pytest.raises(RunFailed) as failure:
        fit(trainer, bad=False)
    return str(failure.value), time.monotonic() - begun


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [None, False, True])
def test_processes_decide_together(sharded: bool | None, tmp_path: Path) -> None:
    """One process alone has seen it, of which the one that writes knows nothing."""
    ends = run_on(2, fit_on, str(tmp_path), sharded)
    assert all("after step 2, by step 3" in message for message, _ in ends)
    assert max(seconds for _, seconds in ends) < 25
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == [f"epoch=0-step={step}.ckpt" for step in (1, 2)]
