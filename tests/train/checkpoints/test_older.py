"""A checkpoint that an earlier layout of the packages wrote is resumed as if nothing had changed."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jepa_train.checkpoints.files import read_checkpoint
from jepa_train.cli import main
from tests.train.helpers import last_checkpoint

HERE = Path(__file__).parent
WRITTEN = "version_0_1_step_8.ckpt.gz"  # in the middle of the second of epochs of five steps
REACHED = "version_0_1_step_12.txt"  # sum and norm of each weight of that run four steps later
SETTINGS = [
    *("--data.contrast=0.1", "--data.noise=0.1"),
    *("--data.num_train=40", "--data.batch_size=8", "--data.num_probe=16"),
    *("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.precision=64-true", "--trainer.max_steps=12"),
    *("--trainer.max_epochs=-1", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    "--trainer.log_every_n_steps=1",
    "--model.encoder_overrides={embed_dim: 8, depth: 2, num_heads: 2, drop_path_rate: 0.2}",
    *("--model.embedding_size=4", "--model.projector_hidden=8", "--model.sigreg_slices=8"),
    *("--model.predictor_width=8", "--model.predictor_heads=2", "--model.predictor_depth=1"),
    *("--model.noise=0.1", "--model.flip=true"),
    *("--monitor.num_samples=16", "--monitor.every_n_steps=4", "--monitor.budget=null"),
    "--trainer.callbacks=lightning.pytorch.callbacks.ModelCheckpoint",
    *("--trainer.callbacks.every_n_train_steps=4", "--trainer.callbacks.save_top_k=-1"),
    "--trainer.callbacks.save_last=true",
    "--trainer.callbacks+=jepa_monitor.FeatureStatistics",
    *("--trainer.callbacks+=jepa_monitor.LiDAR", "--trainer.callbacks.num_samples=8"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("older") / "step_8.ckpt"
    path.write_bytes(gzip.decompress((HERE / WRITTEN).read_bytes()))
    return path


@pytest.fixture(scope="module")
def reached(checkpoint: Path) -> dict[str, Any]:
    """The last checkpoint of a run that went on from the older one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(checkpoint.parent)
        main(["fit", *SETTINGS, "--trainer.logger.save_dir=runs", f"--ckpt_path={checkpoint}"])
        return read_checkpoint(last_checkpoint(Path("runs")))


def test_it_goes_on_to_the_same_weights(reached: dict[str, Any]) -> None:
    assert reached["global_step"] == 12
    lines = [line.split() for line in (HERE / REACHED).read_text().splitlines()]
    assert [name for name, *_ in lines] == list(reached["state_dict"])
    found = [[float(w.sum()), float(w.double().norm())] for w in reached["state_dict"].values()]
    np.testing.assert_allclose(
        found, [[float(value) for value in values] for _, *values in lines], rtol=1e-7, atol=1e-9
    )


def test_its_history_goes_on_under_the_names_of_now(checkpoint: Path, reached: dict[str, Any]) -> None:
    before, now = (read["callbacks"]["JEPAScoreMonitor"] for read in (read_checkpoint(checkpoint), reached))
    assert {"monitor/seconds(s)", "density/log_density_median(nats)"} <= set(before["values"]["tags"])
    assert not any("(" in tag for tag in [*now["values"]["tags"], *now["last"]])
    assert (now["steps"][0], now["steps"][-1]) == (0, 12)
    columns = dict(zip(now["values"]["tags"], now["values"]["table"].tolist(), strict=True))
    for tag in ("monitor/seconds", "scores/log_density_median", "scores/jepa_score_q10"):
        assert all(map(math.isfinite, columns[tag])), tag
        assert now["last"][tag] == columns[tag][-1]


def test_callbacks_keep_their_names_and_states(checkpoint: Path) -> None:
    saved = read_checkpoint(checkpoint)["callbacks"]
    assert saved["JEPAScoreMonitor"]["steps"] == [0]
    assert "density/spearman" in saved["JEPAScoreMonitor"]["last"]
    assert saved["FeatureStatistics"].keys() == saved["LiDAR"].keys() == {"last"}
