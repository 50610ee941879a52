"""The module: what is equal to I-JEPA, what carries gradient, what a checkpoint rebuilds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from jepa_train.errors import ConfigurationError
from jepa_train.module import JEPA, update_ema

SMALL: dict[str, Any] = {
    "image_size": 16,
    "channels": 1,
    "encoder_overrides": {"embed_dim": 32, "depth": 2, "num_heads": 2},
    "patch_size": 4,
    "embedding_size": 4,
    "projector_hidden": 16,
    "predictor_width": 16,
    "predictor_depth": 1,
    "predictor_heads": 2,
    "num_targets": 2,
    "sigreg_slices": 16,
}


class Images(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(index))}


def make_trainer(tmp_path: Path, *, steps: int = 4, **settings: Any) -> pl.Trainer:
    return pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        default_root_dir=tmp_path,
        **settings,
    )


def train(module: JEPA, tmp_path: Path, **settings: Any) -> pl.Trainer:
    trainer = make_trainer(tmp_path, **settings)
    trainer.fit(module, DataLoader(Images(), batch_size=16), DataLoader(Images(), batch_size=16))
    return trainer


def test_a_step_moves_all_that_should_move(tmp_path: Path) -> None:
    module = JEPA(**SMALL)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trainer = train(module, tmp_path)
    still = {name for name, value in module.state_dict().items() if torch.equal(value, before[name])}
    assert still == {"online.encoder.vit.pos_embed", "target.encoder.vit.pos_embed"}
    metrics = trainer.callback_metrics
    expected = (
        metrics["train/loss_tokens"] + metrics["train/loss_embedding"] + 0.05 * metrics["train/loss_anticollapse"]
    )
    torch.testing.assert_close(metrics["train/loss"], expected)


def test_plain_i_jepa_has_no_embedding_query_and_trains_no_projector(tmp_path: Path) -> None:
    module = JEPA(**SMALL, embedding_weight=0.0, anticollapse_weight=0.0)
    assert module.predictor.embedding_query is None
    before = [parameter.clone() for parameter in module.online.projector.parameters()]
    trainer = train(module, tmp_path, steps=1)
    assert set(trainer.callback_metrics) >= {"train/loss", "train/loss_tokens"}
    assert "train/loss_anticollapse" not in trainer.callback_metrics
    for parameter, old in zip(module.online.projector.parameters(), before, strict=True):
        assert torch.equal(parameter, old)


@pytest.mark.parametrize("anticollapse", ["vicreg", "none"])
def test_other_anticollapse_terms_train(anticollapse: str, tmp_path: Path) -> None:
    trainer = train(JEPA(**SMALL, anticollapse=anticollapse), tmp_path, steps=2)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])


def test_bf16_mixed_trains(tmp_path: Path) -> None:
    trainer = train(JEPA(**SMALL, crop_scale=0.5, flip=True, noise=0.1), tmp_path, precision="bf16-mixed")
    assert torch.isfinite(trainer.callback_metrics["train/loss"])


def test_schedules_follow_optimizer_steps_under_accumulation(tmp_path: Path) -> None:
    module = JEPA(**SMALL, ema_start=0.9, ema_end=1.0, weight_decay=0.1, weight_decay_end=0.3)
    trainer = train(module, tmp_path, steps=2, accumulate_grad_batches=2)
    assert trainer.global_step == 2
    # read in the last micro-batch, that of the second of two steps
    assert float(trainer.callback_metrics["train/ema_momentum"]) == pytest.approx(0.95)
    assert trainer.optimizers[0].param_groups[0]["weight_decay"] == pytest.approx(0.2)
    assert trainer.optimizers[0].param_groups[1]["weight_decay"] == 0.0
    assert all(parameter.ndim <= 1 for parameter in trainer.optimizers[0].param_groups[1]["params"])


def test_ema_follows_parameters_and_batch_norm_statistics() -> None:
    online, target = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    online.weight.data.fill_(3.0)
    online.running_mean.fill_(10.0)
    online.num_batches_tracked.fill_(7)
    update_ema(target, online, momentum=0.9)
    torch.testing.assert_close(target.weight.data, torch.full((2,), 1.2))
    torch.testing.assert_close(target.running_mean, torch.full((2,), 1.0))
    assert int(target.num_batches_tracked) == 7


def test_checkpoint_rebuilds_the_model(tmp_path: Path) -> None:
    module = JEPA(**SMALL)
    trainer = train(module, tmp_path, steps=2)
    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path)
    loaded = JEPA.load_from_checkpoint(path, weights_only=True)
    images = torch.randn(3, 1, 16, 16)
    assert torch.equal(loaded.eval()(images), module.eval()(images))
    assert dict(loaded.hparams) == dict(module.hparams)


def test_masks_do_not_depend_on_the_global_generator(tmp_path: Path) -> None:
    weights = []
    for seed in (1, 2):
        torch.manual_seed(0)
        module = JEPA(**SMALL, crop_scale=0.5, noise=0.1)
        torch.manual_seed(seed)
        train(module, tmp_path, steps=2)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in module.parameters()]))
    assert torch.equal(*weights)


def test_a_batch_of_one_says_what_to_change(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, steps=1)
    with pytest.raises(ConfigurationError, match="raise the batch size"):
        trainer.fit(JEPA(**SMALL), DataLoader(Images(), batch_size=1), DataLoader(Images(), batch_size=16))


def test_nan_images_end_training_with_a_sentence(tmp_path: Path) -> None:
    class NaN(Images):
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {"image": torch.full((1, 16, 16), torch.nan)}

    trainer = make_trainer(tmp_path, steps=1)
    loader = DataLoader(NaN(), batch_size=16)
    with pytest.raises(ConfigurationError, match="images that are not finite"):
        trainer.fit(JEPA(**SMALL), loader, loader)


def test_predictor_width_must_fit_its_heads() -> None:
    with pytest.raises(ConfigurationError, match="not divisible by predictor_heads"):
        JEPA(**{**SMALL, "predictor_heads": 3})
