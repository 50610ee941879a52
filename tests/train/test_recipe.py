"""The published recipe (I-JEPA, arXiv 2301.08243): first weights, what decays, which value of a schedule a step has."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from jepa_train.data import MixtureDataModule
from jepa_train.module import JEPA
from jepa_train.optimization import parameter_groups
from tests.train.helpers import SMALL

SHALLOW = SMALL | {"encoder_overrides": {"embed_dim": 32, "depth": 1, "num_heads": 2}, "sigreg_slices": 8}


def train(module: JEPA, folder: Path, *, steps: int, ckpt_path: Path | None = None, **settings: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        log_every_n_steps=1,
        default_root_dir=folder,
        **settings,
    )
    data = MixtureDataModule(num_train=80, num_probe=16, batch_size=8)
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    return trainer


def test_the_predictor_begins_as_a_narrow_normal_with_zero_biases() -> None:
    torch.manual_seed(0)
    module = JEPA(**SHALLOW | {"predictor_width": 128, "predictor_depth": 2})
    named = {name: layer for name, layer in module.predictor.named_modules() if isinstance(layer, nn.Linear)}
    del named["embedding_head"]  # not I-JEPA's
    assert len(named) == 2 + 4 * 2  # input, token head, and qkv, proj, fc1, fc2 of each block
    for layer in named.values():
        assert stats.kstest(layer.weight.detach().flatten().numpy(), stats.norm(scale=0.02).cdf).pvalue > 1e-4
    queries = torch.cat([module.predictor.mask_query, module.predictor.embedding_query]).detach()
    assert stats.kstest(queries.numpy(), stats.norm(scale=0.02).cdf).pvalue > 1e-4
    assert not any(layer.bias.any() for layer in named.values())


def test_the_encoder_begins_with_zero_biases_and_both_encoders_are_one() -> None:
    module = JEPA(**SHALLOW)
    biases = {name: p for name, p in module.online.encoder.named_parameters() if name.endswith("bias")}
    assert "vit.patch_embed.proj.bias" in biases
    assert not any(bias.any() for bias in biases.values())
    for online, target in zip(module.online.parameters(), module.target.parameters(), strict=True):
        assert torch.equal(online, target)


def test_a_patch_embedding_without_bias_can_be_begun_with() -> None:
    module = JEPA(**SHALLOW | {"encoder": "vit_base_patch16_clip_224"})
    assert module.online.encoder.vit.patch_embed.proj.bias is None


def test_every_layer_norm_of_encoder_and_predictor_has_the_published_eps() -> None:
    module = JEPA(**SHALLOW)
    norms = [layer for layer in module.modules() if isinstance(layer, nn.LayerNorm)]
    assert len(norms) == 2 * (2 + 1) + 2 + 1  # of two encoders and the predictor, with one block each
    assert {norm.eps for norm in norms} == {1e-6}


def test_the_predictors_queries_decay_and_no_other_vector_does() -> None:
    module = JEPA(**SHALLOW)
    decayed, others = parameter_groups(module, weight_decay=0.3)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    vectors = {names[id(parameter)] for parameter in decayed["params"] if parameter.ndim <= 1}
    assert vectors == {"predictor.mask_query", "predictor.embedding_query"}
    assert all(parameter.ndim == 1 for parameter in others["params"])


class EachStep(pl.Callback):
    """Learning rate and weight decay that the optimizer steps with, and the momentum that the target moved by."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float, float]] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        group = optimizer.param_groups[0]
        self.settings = group["lr"], group["weight_decay"]
        self.before = flat(pl_module.target)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        online, after = flat(pl_module.online), flat(pl_module.target)
        moved, gap = (after - self.before).double(), (online - self.before).double()
        self.seen.append((*self.settings, 1.0 - float((moved @ gap) / (gap @ gap))))


def flat(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def published(total: int, warmup: int) -> list[tuple[float, float, float]]:
    """Schedulers count up before the optimizer steps; the momentum is the next of a list that begins at its start."""
    values = []
    for step in range(1, total + 1):
        if step < warmup:
            rate = 2e-4 + (1e-3 - 2e-4) * step / warmup
        else:
            rate = 1e-6 + (1e-3 - 1e-6) * (1.0 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2.0
        decay = 0.4 + (0.04 - 0.4) * (1.0 + math.cos(math.pi * step / total)) / 2.0
        values.append((rate, decay, 0.9 + (step - 1) * (1.0 - 0.9) / total))
    return values


@pytest.mark.parametrize("warmup", [0, 3])
def test_each_step_has_the_published_values(warmup: int, tmp_path: Path) -> None:
    each = EachStep()
    module = JEPA(**SHALLOW, ema_start=0.9, warmup_fraction=warmup / 10)
    train(module, tmp_path, steps=10, precision="64-true", callbacks=[each])
    expected = published(10, warmup)
    assert expected[-1][:2] == pytest.approx((1e-6, 0.4))
    for ours, theirs in zip(each.seen, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)


def of_an_older_version(checkpoint: dict[str, Any], module: JEPA) -> dict[str, Any]:
    """The checkpoint as it was when no vector decayed: one optimizer's state, its parameters in another order."""
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    matrices = [name for name, parameter in trained if parameter.ndim > 1]
    vectors = [name for name, parameter in trained if parameter.ndim <= 1]
    queries = [name for name, _ in trained if name.endswith("_query")]
    now = [name for name, parameter in trained if parameter.ndim > 1 or name in queries]
    now += [name for name in vectors if name not in queries]
    (state,) = checkpoint["optimizer_states"]
    by_name = {name: state["state"][number] for number, name in enumerate(now)}
    state["state"] = {number: by_name[name] for number, name in enumerate(matrices + vectors)}
    first, second = state["param_groups"]
    first["params"] = list(range(len(matrices)))
    second["params"] = list(range(len(matrices), len(now)))
    return checkpoint


def test_a_run_whose_queries_did_not_decay_can_be_resumed(tmp_path: Path) -> None:
    module = JEPA(**SHALLOW)
    trainer = train(module, tmp_path, steps=3)
    trainer.save_checkpoint(tmp_path / "now.ckpt")
    checkpoint = torch.load(tmp_path / "now.ckpt", weights_only=True)
    torch.save(of_an_older_version(checkpoint, module), tmp_path / "before.ckpt")
    weights = []
    for name in ("now", "before"):
        resumed = JEPA(**SHALLOW)
        train(resumed, tmp_path, steps=6, ckpt_path=tmp_path / f"{name}.ckpt")
        weights.append(flat(resumed))
    assert torch.equal(*weights)
