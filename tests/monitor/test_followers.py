"""A tag that a callback follows and a run cannot have is said at the start, with the reason."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from jepa_monitor import JEPAScoreMonitor
from tests.monitor.helpers import Autoencoder, images, loader, trainer


@pytest.mark.parametrize(
    ("tag", "inputs", "why"),
    [
        ("monitor/keep", torch.randint(0, 9, (48, 16)), "there is none for token ids"),
        ("density/spearman", images(48), "it needs a truth"),
        ("density/ood_auroc/moon", images(48), "what it is measured on is not among the data"),
        ("monitor/kept", images(48), "there is no tag of that name"),
        ("alarm/collapse", images(48), "its name is monitor/alarm_collapse now"),
        ("density/log_density_q10", images(48), "its name is scores/log_density_q10 now"),
    ],
)
def test_a_tag_that_cannot_be_there_is_said_at_the_start(tag: str, inputs: Tensor, why: str, tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path / "best", monitor=tag, mode="max")
    callback = JEPAScoreMonitor(encoder="encoder", preprocess=lambda x: x.float().view(-1, 1, 4, 4), probe=inputs)
    run = trainer(tmp_path, callback, best, enable_checkpointing=True, max_epochs=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(MisconfigurationException, match=tag):
            run.fit(Autoencoder(), loader(), loader(seed=1))
    said = [text for warning in caught if "ModelCheckpoint follows" in (text := str(warning.message))]
    assert len(said) == 1
    assert f"{tag}, which this run does not have: {why}" in said[0]
