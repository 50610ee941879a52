"""The choice of one vector an image, by family of published weights, checked against timm's registry and models."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.models import get_pretrained_cfg

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.families import FAMILIES, PooledModel, Pooling, family_of, null_directions, null_note, settled

IJEPA = (
    "vit_huge_patch14_gap_224.in1k_ijepa",
    "vit_huge_patch14_gap_224.in22k_ijepa",
    "vit_giant_patch16_gap_224.in22k_ijepa",
    "vit_huge_patch16_gap_448.in1k_ijepa",
)
NAMES: dict[str, Pooling] = {
    **dict.fromkeys(IJEPA, "mean"),
    "vit_small_patch14_dinov2.lvd142m": "cls",
    "vit_giant_patch14_reg4_dinov2.lvd142m": "cls",
    "vit_small_patch16_dinov3.lvd1689m": "cls",
    "convnext_tiny.dinov3_lvd1689m": "own",
    "vit_base_patch32_clip_224.openai": "projection",
    "vit_base_patch16_clip_quickgelu_224.metaclip_400m": "projection",
    "vit_base_patch32_clip_224.laion2b_ft_in1k": "own",
    "resnet50_clip.openai": "projection",
    "resnet50_clip_gap.openai": "own",
    "vit_pe_core_small_patch16_384.fb": "projection",
    "vit_base_patch16_siglip_224.webli": "map",
    "vit_base_patch16_siglip_gap_224.webli": "own",
    "resnet50.a1_in1k": "own",
}
CLASSES = (1000, 11821)  # of the data that CLIP's weights were fine-tuned on


def small(name: str, **arguments: object) -> torch.nn.Module:
    return timm.create_model(name, num_classes=0, **arguments).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_the_choice_is_one_that_the_model_has(name: str) -> None:
    with torch.device("meta"):  # shapes alone: some have a billion weights
        model = timm.create_model(name)
    family = family_of(name)
    assert settled(family, "auto", model) == NAMES[name]
    assert name in timm.list_pretrained()


@pytest.mark.parametrize("name", IJEPA)
def test_ijepas_mean_is_timms_own_of_normalised_patch_tokens(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert (model.global_pool, model.num_prefix_tokens) == ("avg", 0)
    assert isinstance(model.norm, torch.nn.LayerNorm)
    assert isinstance(model.fc_norm, torch.nn.Identity)


def test_a_projection_is_kept_exactly_where_the_head_is_no_classifier() -> None:
    contrastive = [name for name in timm.list_pretrained() if "clip" in name or "pe_core" in name]
    assert len(contrastive) > 100
    for name in contrastive:
        outputs = get_pretrained_cfg(name).num_classes
        assert (family_of(name).pooling == "projection") == (outputs != 0 and outputs not in CLASSES), name


def test_docs_have_the_same_table() -> None:
    text = (Path(__file__).parents[3] / "docs" / "encoders.md").read_text()
    for family in FAMILIES:
        assert f"| {family.name} | `{family.pooling}` |" in text


def test_class_token_and_mean_leave_other_tokens_out() -> None:
    images = torch.randn(2, 3, 160, 160)
    model = small("test_vit", reg_tokens=2)
    tokens = model.forward_features(images)  # type: ignore[operator]
    assert torch.equal(PooledModel(model, "cls")(images), tokens[:, 0])
    assert torch.equal(PooledModel(model, "mean")(images), tokens[:, 3:].mean(1))
    assert torch.equal(PooledModel(model, "own")(images), model(images))


def test_feature_maps_are_averaged_over_positions() -> None:
    images = torch.randn(2, 3, 160, 160)
    model = small("test_resnet")
    maps = model.forward_features(images)  # type: ignore[operator]
    torch.testing.assert_close(PooledModel(model, "mean")(images), maps.mean((2, 3)))
    torch.testing.assert_close(PooledModel(model, "own")(images), maps.mean((2, 3)))


def test_a_pooling_that_the_model_has_not_is_refused_with_those_it_has() -> None:
    resnet = small("test_resnet")
    for pooling, lacks in (("cls", "a class token"), ("map", "attention pooling"), ("projection", "a projection")):
        with pytest.raises(ConfigurationError, match=rf"because it lacks {lacks}: choose from auto, own, mean\."):
            settled(FAMILIES[-1], pooling, resnet)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "arguments", "pooling", "expected"),
    [
        ("test_vit", {}, "cls", 2),
        ("test_vit", {}, "own", 2),
        ("test_vit", {}, "mean", 1),
        ("test_vit", {"global_pool": "avg"}, "own", 2),  # timm moves the norm behind the pooling
        ("test_vit", {"global_pool": "avg"}, "mean", 0),
        ("test_vit", {"global_pool": "avg", "fc_norm": False}, "own", 1),  # as I-JEPA
        ("test_vit3", {}, "own", 0),  # attention pooling
        ("test_convnext", {}, "own", 2),
    ],
)
def test_null_directions_are_those_of_the_jacobian(
    name: str, arguments: dict[str, object], pooling: Pooling, expected: int
) -> None:
    size = 64 if name == "test_convnext" else 32
    model = small(name, **({} if name == "test_convnext" else {"img_size": size}), **arguments).double()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]
    for norm in norms:  # as after training
        torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
        torch.nn.init.normal_(norm.bias)
        norm.eps = 1e-12  # which lets the length vary a little
    encoder = PooledModel(model, pooling)
    image = torch.randn(1, 3, size, size, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: encoder.pooled(encoder.output(x)).sum(0), image)
    values = torch.linalg.svdvals(jacobian.flatten(1))
    assert int((values < 1e-9 * values[0]).sum()) == expected
    assert null_directions(model, pooling) == expected
    assert bool(null_note(model, pooling)) == bool(expected)


def test_batch_norm_fixes_nothing() -> None:
    assert null_directions(small("test_resnet"), "own") == 0
