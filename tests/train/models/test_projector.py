"""The projector, and its batch norm under averages of weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, StochasticWeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.data import DataLoader

from jepa_train.models.batch_norm import GlobalBatchNorm1d
from jepa_train.models.encoder import EmbeddingEncoder
from jepa_train.models.projector import Projector
from jepa_train.module import JEPA
from tests.train.helpers import TINIEST

TINY = TINIEST | {"ema_end": 0.999}  # not 1, so that a step too much would be seen


IMAGES = torch.randn(32, 1, 16, 16, generator=torch.Generator().manual_seed(0))  # one batch


@torch.no_grad()
def assert_statistics_of(branch: EmbeddingEncoder, images: Tensor) -> None:
    """Its running statistics are those of these images under its weights, computed in double."""
    branch = copy.deepcopy(branch).double()
    values = branch.encoder(images.double()).mean(1)
    seen = 0
    for layer in branch.projector.layers:
        if isinstance(layer, GlobalBatchNorm1d):
            seen += 1
            torch.testing.assert_close(layer.running_mean, values.mean(0), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(layer.running_var, values.var(0), atol=1e-5, rtol=1e-4)
            spread = (values.var(0, unbiased=False) + layer.eps).sqrt()
            values = (values - values.mean(0)) / spread * layer.weight + layer.bias
        else:
            values = layer(values)
    assert seen == 2


def test_statistics_of_averaged_weights_are_estimated_by_torchs_own_way() -> None:
    averaged = AveragedModel(JEPA(**TINY))
    update_bn([IMAGES], averaged)
    assert_statistics_of(averaged.module.target, IMAGES)
    assert {norm.momentum for norm in averaged.modules() if isinstance(norm, nn.BatchNorm1d)} == {0.1}


def fit(module: JEPA, folder: Path, callback: Callback) -> None:
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        default_root_dir=folder,
        callbacks=[callback],
    )
    dataset: Any = [{"image": image} for image in IMAGES]
    trainer.fit(module, DataLoader(dataset, batch_size=32), DataLoader(dataset, batch_size=32))


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")  # the schedule goes by steps
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")
def test_stochastic_weight_averaging_ends_with_the_statistics_of_the_averages(tmp_path: Path) -> None:
    module = JEPA(**TINY)
    before = module.online.encoder.vit.pos_embed.detach().clone()
    callback = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=2)
    fit(module, tmp_path, callback)
    average = callback._average_model
    assert average is not None
    for name, weight in average.named_parameters():
        assert torch.equal(weight, module.get_parameter(name)), name
    assert torch.equal(module.target.encoder.vit.pos_embed, before)
    assert_statistics_of(module.target, IMAGES)
    counters = {int(buffer) for name, buffer in module.named_buffers() if name.endswith("num_batches_tracked")}
    assert counters == {1}  # the online projector's are of this pass too


@pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback with a model that overrides")
def test_weight_averaging_during_training(tmp_path: Path) -> None:
    module = JEPA(**TINY)
    before = module.online.encoder.vit.pos_embed.detach().clone()
    fit(module, tmp_path, EMAWeightAveraging(decay=0.5))
    assert torch.equal(module.target.encoder.vit.pos_embed, before)
    assert all(bool(weight.isfinite().all()) for weight in module.state_dict().values())


def test_projector_shapes() -> None:
    features = torch.randn(6, 32)
    assert Projector(32, hidden=16, embedding_size=4)(features).shape == (6, 4)
    assert [type(layer) for layer in Projector(32, hidden=0, embedding_size=4).layers] == [torch.nn.Linear]
