"""The module: what is equal to I-JEPA, what carries gradient, what a checkpoint rebuilds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import DataLoader

from jepa_train.errors import ConfigurationError, RunFailed
from jepa_train.inputs.masks import MultiBlockMasks
from jepa_train.models.encoder import gather_tokens
from jepa_train.module import JEPA
from jepa_train.objectives import token_prediction
from jepa_train.optimization import warmup_cosine
from tests.train.helpers import SMALL, Images, make_trainer, train

CONVOLUTIONAL: dict[str, Any] = {
    "encoder": "test_resnet",
    "encoder_overrides": {},
    "crop_scale": 0.5,
    "local_views": 1,
    "local_size": 8,
    "token_weight": 0.0,
    "embedding_weight": 0.0,
    "centre_weight": 1.0,
}


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


@pytest.mark.parametrize("settings", [{}, {"centre_weight": 1.0, "crop_scale": 0.5, "local_views": 1, "local_size": 8}])
def test_a_convolutional_stem_is_trained(settings: dict[str, Any], tmp_path: Path) -> None:
    module = JEPA(**SMALL, **settings, stem="convolutional")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    train(module, tmp_path, steps=2)
    still = {name for name, value in module.state_dict().items() if torch.equal(value, before[name])}
    assert still == {"online.encoder.vit.pos_embed", "target.encoder.vit.pos_embed"}


def test_plain_i_jepa_trains_encoder_and_predictor_alone(tmp_path: Path) -> None:
    module = JEPA(**SMALL, embedding_weight=0.0, anticollapse="none")
    assert module.predictor.embedding_query is None
    assert not list(module.online.projector.parameters())
    before = {name: value.clone() for name, value in module.named_parameters()}
    trainer = train(module, tmp_path, steps=2)  # the last step has the end of the cosine, too little to see
    logged = {name for name in trainer.callback_metrics if name.startswith("train/loss")}
    assert logged == {"train/loss", "train/loss_tokens"}
    still = {name for name, value in module.named_parameters() if torch.equal(value, before[name])}
    assert still == {"online.encoder.vit.pos_embed", "target.encoder.vit.pos_embed"}
    images = torch.randn(2, 1, 16, 16)
    assert torch.equal(module(images), module.features(images))


def test_its_loss_is_that_of_the_paper_written_out() -> None:
    """Full EMA encoder, layer norm, gather; context encoder by timm on gathered tokens; one predictor pass a block."""
    module = JEPA(**SMALL, embedding_weight=0.0, anticollapse="none").double().eval()
    images = torch.randn(3, 1, 16, 16, dtype=torch.float64)
    context, targets = MultiBlockMasks((4, 4), num_targets=2)(3, torch.Generator().manual_seed(0))
    (term,) = module.terms([images, images], (context, targets), slice_seed=0).values()

    full = torch.nn.functional.layer_norm(module.target.encoder.vit.forward_features(images), (32,))
    vit, predictor = module.online.encoder.vit, module.predictor
    patches = vit.patch_embed(images) + vit.pos_embed
    losses = []
    for b in range(3):
        seen = vit.norm(vit.blocks(patches[b : b + 1, context[b]]))
        for block in targets[b]:
            queries = (predictor.mask_query + predictor.positions[block]).unsqueeze(0)
            sequence = torch.cat([predictor.input(seen) + predictor.positions[context[b]], queries], dim=1)
            hidden = predictor.norm(predictor.blocks(sequence))[0, -len(block) :]
            error = (predictor.token_head(hidden) - full[b, block]).abs()
            losses.append(torch.where(error < 1.0, 0.5 * error**2, error - 0.5).mean())
    torch.testing.assert_close(term, torch.stack(losses).mean(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("on", ["embedding", "tokens", "both"])
def test_the_anticollapse_term_acts_where_it_is_told(on: str) -> None:
    module = JEPA(**SMALL, anticollapse_on=on, predictor_mode="per_block").double()
    images = torch.randn(8, 1, 16, 16, dtype=torch.float64)
    context, targets = MultiBlockMasks((4, 4), num_targets=2)(8, torch.Generator().manual_seed(0))
    term = module.terms([images, images], (context, targets), slice_seed=5)["anticollapse"]
    tokens = module.online.encoder(images, context), module.online.encoder(images)
    at_context = tokens[1].gather(1, context.unsqueeze(-1).expand(-1, -1, 32))
    expected = []
    if on != "tokens":
        z = module.online.projector(torch.cat([side.mean(1) for side in tokens]))
        expected.append(module.objective.anticollapse(z[:8], z[8:], 5))
    if on != "embedding":
        expected.append(module.objective.anticollapse(tokens[0].flatten(0, 1), at_context.flatten(0, 1), 5))
    torch.testing.assert_close(term, torch.stack(expected).mean(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("token_loss", ["smooth_l1", "l2", "cosine"])
def test_the_token_loss_is_the_chosen_one(token_loss: Any) -> None:
    module = JEPA(**SMALL, token_loss=token_loss).double()
    images = torch.randn(4, 1, 16, 16, dtype=torch.float64)
    context, targets = MultiBlockMasks((4, 4), num_targets=2)(4, torch.Generator().manual_seed(0))
    predicted, _ = module.predictor(module.online.encoder(images, context), context, targets)
    full = module.target.encoder(images)
    at_targets = gather_tokens(full, targets.flatten(1)).unflatten(1, targets.shape[1:])
    expected = token_prediction(predicted, at_targets, loss=token_loss)
    assert torch.equal(module.terms([images, images], (context, targets), slice_seed=0)["tokens"], expected)


def test_without_an_average_the_target_is_the_online_encoder(tmp_path: Path) -> None:
    module = JEPA(**SMALL, ema_start=0.0, ema_end=0.0)
    train(module, tmp_path, steps=2)
    for ours, theirs in zip(module.target.state_dict().values(), module.online.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_target_drops_nothing_and_dropped_paths_do_not_depend_on_the_global_generator(tmp_path: Path) -> None:
    overrides = {**SMALL["encoder_overrides"], "drop_path_rate": 0.5}
    weights = []
    for seed in (1, 2):
        torch.manual_seed(0)
        module = JEPA(**{**SMALL, "encoder_overrides": overrides})
        torch.manual_seed(seed)
        train(module, tmp_path, steps=2)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in module.parameters()]))
    assert torch.equal(*weights)
    images = torch.randn(2, 1, 16, 16)
    module.train()
    assert torch.equal(module.features(images), module.features(images))


@pytest.mark.slow
# raised inside torch 2.14's compiler, which looks at .grad of what it traces
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("settings", [{}, CONVOLUTIONAL, {"stem": "convolutional"}], ids=["masks", "resnet", "stem"])
def test_compiled_training_is_training(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_module = torch.nn.Module.compile

    def without_code_generation(module: torch.nn.Module, **settings: Any) -> None:
        compile_module(module, backend="aot_eager", **settings)  # a tenth of the time of the default backend

    monkeypatch.setattr(torch.nn.Module, "compile", without_code_generation)
    weights = []
    for compile in (False, True):
        torch.manual_seed(0)
        module = JEPA(**{**SMALL, "predictor_depth": 3, **settings}, compile=compile)
        train(module, tmp_path, steps=2)
        assert all("_orig_mod" not in name for name in module.state_dict())
        weights.append(torch.cat([parameter.detach().flatten() for parameter in module.parameters()]))
    torch.testing.assert_close(*weights, atol=2e-4, rtol=0.0)


@pytest.mark.filterwarnings("ignore:Nothing keeps the embedding")  # of the control
@pytest.mark.parametrize("anticollapse", ["vicreg", "none"])
def test_other_anticollapse_terms_train(anticollapse: str, tmp_path: Path) -> None:
    trainer = train(JEPA(**SMALL, anticollapse=anticollapse), tmp_path, steps=2)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])


def test_bf16_mixed_trains(tmp_path: Path) -> None:
    trainer = train(JEPA(**SMALL, crop_scale=0.5, flip=True, noise=0.1), tmp_path, precision="bf16-mixed")
    assert torch.isfinite(trainer.callback_metrics["train/loss"])


class EveryBatch(pl.Callback):
    """Record the schedules and the target at the end of each micro-batch."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []
        self.targets: list[Tensor] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        names = ("train/ema_momentum", "train/lr", "train/weight_decay")
        self.seen.append({name: float(trainer.callback_metrics[name]) for name in names})
        self.targets.append(torch.cat([p.flatten() for p in pl_module.target.parameters()]).clone())


def test_schedules_and_target_follow_optimizer_steps_under_accumulation(tmp_path: Path) -> None:
    """Four batches an epoch in windows of three: the last of an epoch is a window of its own."""
    settings = {"ema_start": 0.9, "ema_end": 1.0, "weight_decay": 0.1, "weight_decay_end": 0.3, "warmup_fraction": 0.5}
    module, each = JEPA(**{**SMALL, **settings}), EveryBatch()
    trainer = make_trainer(tmp_path, steps=-1, max_epochs=2, accumulate_grad_batches=3, callbacks=[each])
    trainer.fit(module, DataLoader(Images(), batch_size=16), DataLoader(Images(), batch_size=16))
    steps = [0, 0, 0, 1, 2, 2, 2, 3]
    assert trainer.global_step == 4
    for step, seen in zip(steps, each.seen, strict=True):  # steps done before
        peak = {"start": 2e-4, "peak": 1e-3, "end": 1e-6}
        expected = warmup_cosine(step + 1, **peak, warmup_steps=2, total_steps=4)
        assert seen["train/lr"] == pytest.approx(expected)
        assert seen["train/ema_momentum"] == pytest.approx(0.9 + 0.1 * step / 4)
        assert seen["train/weight_decay"] == pytest.approx(0.3 - 0.1 * (1.0 + math.cos(math.pi * (step + 1) / 4)))
    moved = [not torch.equal(before, after) for before, after in itertools.pairwise(each.targets)]
    assert moved == [False, True, True, False, False, True, True]
    assert trainer.optimizers[0].param_groups[0]["weight_decay"] == pytest.approx(each.seen[-1]["train/weight_decay"])
    assert trainer.optimizers[0].param_groups[1]["weight_decay"] == 0.0


def test_a_peak_that_is_changed_later_counts(tmp_path: Path) -> None:
    """Lightning's Tuner changes it among the hyper-parameters of a module that is there."""
    module, each = JEPA(**SMALL), EveryBatch()
    module.hparams["learning_rate"] = 0.5
    train(module, tmp_path, steps=4, callbacks=[each])
    expected = warmup_cosine(1, start=2e-4, peak=0.5, end=1e-6, warmup_steps=0, total_steps=4)
    assert each.seen[0]["train/lr"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"centre_weight": 1.0, "crop_scale": 0.5, "anticollapse": "none"}, "Nothing keeps the embedding from"),
        ({"centre_weight": 1.0, "crop_scale": 0.5, "anticollapse_on": "tokens"}, "Nothing keeps the embedding from"),
        ({"anticollapse_weight": 0.0}, "Nothing keeps the embedding from"),
        ({"ema_start": 0.0, "ema_end": 0.0, "stop_gradient": False}, "Nothing keeps the tokens from"),
        ({"local_size": 8}, "Settings that do nothing: local_size with local_views 0"),
        ({"local_scale": (0.1, 0.2)}, "Settings that do nothing: local_scale with local_views 0"),
    ],
    ids=str,
)
def test_a_warning_before_training_where_it_cannot_go_well(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    module = JEPA(**SMALL, **settings)
    with pytest.warns(UserWarning, match=message) as caught:
        train(module, tmp_path, steps=1)
    assert len([warning for warning in caught if warning.category is UserWarning]) == 1
    make_trainer(tmp_path).validate(module, DataLoader(Images(), batch_size=16), verbose=False)  # which is silent


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_can_be_clipped(precision: Any, tmp_path: Path) -> None:
    trainer = train(JEPA(**SMALL), tmp_path, steps=1, precision=precision, gradient_clip_val=0.1)
    assert trainer.global_step == 1
    assert trainer.optimizers[0].defaults["fused"] == (precision == "32-true")


@pytest.mark.parametrize("ends", [(0.996, 1.0), (0.0, 0.9), (0.9, 0.0)])
def test_weights_in_half_precision_cannot_follow_an_average(ends: tuple[float, float], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="bf16-mixed"):
        train(JEPA(**SMALL, ema_start=ends[0], ema_end=ends[1]), tmp_path, precision="bf16-true")


def test_blocks_are_computed_again_in_half_precision_with_the_same_attention(tmp_path: Path) -> None:
    train(JEPA(**{**SMALL, "gradient_checkpointing": True}), tmp_path, precision="bf16-mixed")


def test_a_run_of_unknown_length_says_what_to_give(tmp_path: Path) -> None:
    class Stream(torch.utils.data.IterableDataset[dict[str, Tensor]]):
        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            return (Images()[index] for index in range(32))

    trainer = make_trainer(tmp_path, steps=-1, max_epochs=1, limit_val_batches=0)
    loader = DataLoader(Images(), batch_size=16)
    with pytest.raises(ConfigurationError, match=r"give --trainer\.max_steps"):
        trainer.fit(JEPA(**SMALL), DataLoader(Stream(), batch_size=16), loader)


def test_images_of_another_size_say_what_to_set(tmp_path: Path) -> None:
    overrides = {**SMALL["encoder_overrides"], "dynamic_img_size": True}
    with pytest.raises(ConfigurationError, match="16 x 16 pixels, and the model is made for 24 x 24: set image_size"):
        train(JEPA(**{**SMALL, "image_size": 24, "encoder_overrides": overrides}), tmp_path)


def test_nothing_in_a_step_waits_for_an_accelerator() -> None:
    """Tensors without values refuse to be looked at, which is where an accelerator would be waited for."""
    module = JEPA(**SMALL)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        images = torch.empty(8, 1, 16, 16)
        context, targets = torch.zeros(8, 6, dtype=torch.int64), torch.zeros(8, 2, 4, dtype=torch.int64)
        masks = fake.from_tensor(context), fake.from_tensor(targets)
        terms = module.terms([images, images], masks, slice_seed=0)
        torch.stack(list(terms.values())).sum().backward()
    assert set(terms) == {"tokens", "embedding", "anticollapse"}


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
    with pytest.raises(RunFailed, match="images that are not finite"):
        trainer.fit(JEPA(**SMALL), loader, loader)


class Pairs(Images):
    """Samples that bring their own view B."""

    def __init__(self, size: int = 16) -> None:
        self.size = size

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1000 + index)
        return super().__getitem__(index) | {"view_b": torch.randn(1, self.size, self.size, generator=generator)}


def test_a_batch_may_bring_view_b(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, seen = JEPA(**SMALL), []
    terms = module.terms

    def keep(views: list[Tensor], *rest: Any, **named: Any) -> dict[str, Tensor]:
        seen.append(views)
        return terms(views, *rest, **named)

    monkeypatch.setattr(module, "terms", keep)
    make_trainer(tmp_path, steps=1).fit(module, DataLoader(Pairs(), batch_size=4), DataLoader(Images(), batch_size=4))
    ((view_a, view_b),) = seen
    assert torch.equal(view_a, torch.stack([Pairs()[index]["image"] for index in range(4)]))
    assert torch.equal(view_b, torch.stack([Pairs()[index]["view_b"] for index in range(4)]))


@pytest.mark.filterwarnings("ignore:Nothing keeps the embedding from collapsing")  # this is about tokens
@pytest.mark.parametrize(
    ("settings", "size", "message"),
    [
        ({}, 8, "training images have 8 x 8 pixels"),
        ({"anticollapse": "barlow", "anticollapse_on": "tokens"}, 16, "or where the data bring a view_b"),
    ],
    ids=["size", "tokens by place"],
)
def test_view_b_that_cannot_be_compared_is_refused(
    settings: dict[str, Any], size: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_trainer(tmp_path, steps=1).fit(
            JEPA(**SMALL, **settings), DataLoader(Pairs(size), batch_size=4), DataLoader(Images(), batch_size=4)
        )
