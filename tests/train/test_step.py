"""The forward pass of whole views: what is equal to LeJEPA, what is not computed, and both halves together."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import DataLoader

from jepa_train.errors import ConfigurationError
from jepa_train.inputs.masks import MultiBlockMasks
from jepa_train.module import JEPA
from jepa_train.objectives import build_anticollapse
from tests.train.helpers import SMALL

LEJEPA: dict[str, Any] = {**SMALL, "token_weight": 0.0, "embedding_weight": 0.0, "centre_weight": 1.0}
LOCAL: dict[str, Any] = {"local_views": 2, "local_size": 8, "crop_scale": 0.5}


def views_of(module: JEPA, batch_size: int) -> list[Tensor]:
    sizes = [view.size or 16 for view in module.views]
    return [torch.randn(batch_size, 1, size, size, dtype=module.dtype) for size in sizes]


def train(
    module: JEPA, folder: Path, *, steps: int = 3, ckpt_path: Path | None = None, callbacks: Any = None
) -> pl.Trainer:
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        log_every_n_steps=1,
        default_root_dir=folder,
    )
    images = torch.randn(32, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    dataset: Any = [{"image": image} for image in images]
    loader = DataLoader(dataset, batch_size=16)
    trainer.fit(module, loader, loader, ckpt_path=ckpt_path, weights_only=True)
    return trainer


def test_the_terms_are_those_of_lejepa_written_out() -> None:
    """View by view and sample by sample: distance from the centre of the global views, and SIGReg of each view."""
    module = JEPA(**LEJEPA, **LOCAL, global_views=3, projector_batch_norm=False).double()
    views = views_of(module, 6)
    with torch.no_grad():
        terms = module.terms(views, None, slice_seed=3)
        z = [module.online.projector(module.online.encoder(view).mean(1)) for view in views]
    assert len(z) == 5
    total = 0.0
    for sample in range(6):
        centre = (z[0][sample] + z[1][sample] + z[2][sample]) / 3
        for view in z:
            total += float((view[sample] - centre).square().sum())
    torch.testing.assert_close(float(terms["centre"]), total / (5 * 6 * z[0].shape[1]), rtol=1e-12, atol=0.0)
    sigreg = build_anticollapse("sigreg", num_slices=SMALL["sigreg_slices"])
    assert sigreg is not None
    expected = torch.stack([sigreg(view, view, 3) for view in z]).mean()
    torch.testing.assert_close(terms["anticollapse"], expected, rtol=1e-10, atol=0.0)
    assert set(terms) == {"centre", "anticollapse"}


def test_batch_norm_sees_all_views_at_once() -> None:
    module = JEPA(**LEJEPA, **LOCAL).double()
    views = views_of(module, 6)
    z = module.online.projector(torch.cat([module.online.encoder(view).mean(1) for view in views])).unflatten(0, (4, 6))
    expected = (z - z[:2].mean(0)).square().mean()
    torch.testing.assert_close(module.terms(views, None, slice_seed=0)["centre"], expected, rtol=1e-10, atol=0.0)


def test_the_gradient_reaches_every_view_and_the_centre() -> None:
    module = JEPA(**LEJEPA, **LOCAL, anticollapse="none").double()
    views = [view.requires_grad_() for view in views_of(module, 4)]
    terms = module.terms(views, None, slice_seed=0)
    assert set(terms) == {"centre"}
    for gradient in torch.autograd.grad(terms["centre"], views):
        assert bool((gradient.flatten(1).abs().sum(1) > 0).all())


def test_one_pass_of_the_encoder_for_each_size_and_one_of_the_projector() -> None:
    module = JEPA(**LEJEPA, **LOCAL)
    calls: list[tuple[int, ...]] = []
    for part in (module.online.encoder, module.online.projector, module.target.encoder, module.target.projector):
        part.register_forward_pre_hook(lambda _, inputs: calls.append(tuple(inputs[0].shape)))
    module.terms(views_of(module, 4), None, slice_seed=0)
    assert calls == [(8, 1, 16, 16), (8, 1, 8, 8), (16, 32)]


def test_batch_norm_of_an_encoder_has_one_batch_for_each_size() -> None:
    """Global and local views of one size are joined; small views move the running statistics a second time."""
    settings = {**LEJEPA, "encoder": "test_resnet", "encoder_overrides": {}, "crop_scale": 0.5, "local_views": 2}
    for local_size, passes in ((None, [4]), (8, [2, 2])):
        module = JEPA(**settings, local_size=local_size)
        before = copy.deepcopy(module.online.encoder)
        views = views_of(module, 6)
        module.terms(views, None, slice_seed=0)
        for count in passes:
            before(torch.cat(views[:count]))
            views = views[count:]
        for ours, expected in zip(module.online.encoder.buffers(), before.buffers(), strict=True):
            torch.testing.assert_close(ours, expected)


def test_where_nothing_is_hidden_there_are_neither_masks_nor_predictor(tmp_path: Path) -> None:
    module = JEPA(**LEJEPA, **LOCAL, ema_start=0.5, ema_end=0.5)
    assert module.masks is None
    assert module.predictor is None
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trainer = train(module, tmp_path)
    still = {name for name, value in module.state_dict().items() if torch.equal(value, before[name])}
    assert still == {"online.encoder.vit.pos_embed", "target.encoder.vit.pos_embed"}  # the average moves, too
    logged = {name for name in trainer.callback_metrics if name.startswith("train/loss_")}
    assert logged == {"train/loss_centre", "train/loss_anticollapse"}
    assert "train/context_tokens" not in trainer.callback_metrics


def test_both_halves_are_summed_and_share_a_pass() -> None:
    settings = {**SMALL, "centre_weight": 0.7, "anticollapse_on": "both", "global_views": 3, "local_views": 1}
    module = JEPA(**settings).double()
    views = views_of(module, 6)
    masks = MultiBlockMasks((4, 4), num_targets=2)(6, torch.Generator().manual_seed(0))
    terms = module.terms(views, masks, slice_seed=3)
    assert set(terms) == {"tokens", "embedding", "centre", "anticollapse"}
    assert module.predictor is not None
    tokens = [module.online.encoder(view) for view in views]
    z = module.online.projector(torch.cat([each.mean(1) for each in tokens])).unflatten(0, (4, 6))
    context = module.online.encoder(views[0], masks[0])
    _, predicted = module.predictor(context, *masks)
    torch.testing.assert_close(terms["embedding"], (predicted - z[1].unsqueeze(1)).square().mean())
    torch.testing.assert_close(terms["centre"], (z - z[:3].mean(0)).square().mean())
    at_context = tokens[1].gather(1, masks[0].unsqueeze(-1).expand(-1, -1, 32))
    sigreg = module.objective.anticollapse
    assert sigreg is not None
    of_tokens = sigreg(context.flatten(0, 1), at_context.flatten(0, 1), 3)
    torch.testing.assert_close(terms["anticollapse"], 0.5 * (sigreg.over_views(z.unbind(), 3) + of_tokens))
    alone = JEPA(**{**settings, "centre_weight": 0.0, "global_views": 2, "local_views": 0}).double()
    alone.load_state_dict(module.state_dict())
    same = alone.terms(views[:2], masks, slice_seed=3)
    torch.testing.assert_close(terms["tokens"], same["tokens"])


def test_views_that_are_all_the_same_predict_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="all views of an image are the same"):
        train(JEPA(**LEJEPA), tmp_path)


def test_nothing_waits_for_an_accelerator() -> None:
    """Tensors without values refuse to be looked at, which is where an accelerator would be waited for."""
    module = JEPA(**LEJEPA, **LOCAL)
    with FakeTensorMode(allow_non_fake_inputs=True):
        views = [torch.empty(8, 1, size, size) for size in (16, 16, 8, 8)]
        terms = module.terms(views, None, slice_seed=0)
        torch.stack(list(terms.values())).sum().backward()
    assert set(terms) == {"centre", "anticollapse"}


@pytest.mark.parametrize("anticollapse", ["vicreg", "barlow", "whitening_mse", "uniformity"])
def test_other_terms_train_on_three_views(anticollapse: str, tmp_path: Path) -> None:
    settings = {"anticollapse": anticollapse, "local_views": 1, "crop_scale": 0.5, "gradient_checkpointing": True}
    trainer = train(JEPA(**LEJEPA, **settings), tmp_path, steps=1)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])


@pytest.mark.parametrize("encoder", ["test_resnet", "test_convnext"])
def test_encoders_of_other_families_train_on_views_of_two_sizes(encoder: str, tmp_path: Path) -> None:
    """A patch that does not divide the images, as of another config, is not theirs."""
    settings = {**LEJEPA, **LOCAL, "encoder": encoder, "encoder_overrides": {}, "patch_size": 7}
    if encoder == "test_convnext":  # which cannot take 8 pixels
        settings |= {"local_size": None, "encoder_overrides": {"patch_size": 1, "stem_type": "patch"}}
    module = JEPA(**settings, ema_start=0.5, ema_end=0.5)
    before = {name: parameter.clone() for name, parameter in module.named_parameters()}
    trainer = train(module, tmp_path, steps=2)
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    still = {name for name, parameter in module.named_parameters() if torch.equal(parameter, before[name])}
    frozen = {"head.norm.weight", "head.norm.bias"} if encoder == "test_convnext" else set()
    assert still == {f"{branch}.encoder.network.{name}" for branch in ("online", "target") for name in frozen}
    images = torch.randn(2, 1, 16, 16)
    assert module.eval().features(images).shape == (2, module.online.encoder.width)
    assert module(images).shape == (2, 4)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("settings", [{}, {"encoder": "test_resnet", "encoder_overrides": {}}], ids=["vit", "resnet"])
def test_a_restart_goes_on_bit_for_bit(settings: dict[str, Any], tmp_path: Path) -> None:
    def built() -> JEPA:
        torch.manual_seed(0)
        return JEPA(**{**LEJEPA, **LOCAL, **settings}, brightness=0.2, noise=0.1, ema_start=0.5)

    def saving(name: str) -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / name, filename="{step}", every_n_train_steps=2, save_top_k=-1)

    whole, again = built(), built()
    train(whole, tmp_path, steps=4, callbacks=saving("whole"))
    train(again, tmp_path, steps=4, callbacks=saving("again"), ckpt_path=tmp_path / "whole" / "step=2.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
