"""Hyper-parameters that cannot work are named, and each part is built from its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from jepa_train.errors import ConfigurationError
from jepa_train.module import JEPA
from tests.train.helpers import SMALL

WHOLE = {"token_weight": 0.0, "embedding_weight": 0.0, "centre_weight": 1.0}  # nothing is hidden


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"anticollapse_on": "pixels"}, "embedding, tokens or both"),
        ({"token_weight": 0.0, "embedding_weight": 0.0}, "nothing is predicted"),
        ({"token_weight": -1.0}, "0 or more"),
        ({"ema_start": 3.0}, "ema_start must lie between 0 and 1"),
        ({"warmup_fraction": 5.0}, "warmup_fraction must lie"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"sigreg_slices": 0}, "sigreg_slices must be 1 or more"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"weight_decay": -0.1}, "weight_decay must be 0 or more"),
        ({"learning_rate_end": -1.0}, "learning_rate_end must be 0 or more"),
        ({"embedding_size": 0}, "embedding_size must be 1 or more"),
        ({"patch_size": 0}, "patch_size must be 1 or more"),
        ({"encoder_overrides": {**SMALL["encoder_overrides"], "pos_embed": "none"}}, "leave pos_embed out"),
        ({"predictor_width": 0}, "predictor_width must be 1 or more"),
        ({"projector_hidden": -1}, "projector_hidden must be 0 or more"),
        ({"stop_gradient": False}, "set ema_start, ema_end to 0"),
        ({"crop_scale": 7.0}, "crop_scale, the smallest share"),
        ({"noise": -1.0}, "0 or more"),
        ({"anticollapse": "nonsense", "anticollapse_weight": 0.0}, "anticollapse must be one of"),
        ({"local_views": 2}, "raise centre_weight, or leave out global_views"),
        ({"centre_weight": 1.0, "global_views": 1, "token_weight": 0.0, "embedding_weight": 0.0}, "there is only one"),
        ({"centre_weight": 1.0, "global_views": 1, "local_views": 1}, "set global_views to 2 or more"),
        ({"centre_weight": 1.0, "global_views": 0}, "global_views must be 1 or more"),
        ({"centre_weight": 1.0, "local_views": 1, "local_scale": (0.3, 0.1)}, "local_scale must be two shares"),
        ({"centre_weight": 1.0, "local_views": 1, "local_size": 6}, "local_size 6 must be a multiple of patch_size 4"),
        (
            {
                "centre_weight": 1.0,
                "local_views": 1,
                "local_size": 8,
                "encoder_overrides": {**SMALL["encoder_overrides"], "dynamic_img_size": False},
            },
            "need dynamic_img_size",
        ),
        ({"local_size": -4}, "local_size must be 1 or more, got -4"),
        (
            {**WHOLE, "encoder": "test_resnet", "encoder_overrides": {}, "local_views": 2, "local_size": -4},
            "local_size must be 1 or more, got -4",
        ),
        ({"local_size": 6}, "local_size 6 must be a multiple of patch_size 4"),
        ({"crop_aspect": 1.3}, "lower crop_scale"),
        *(
            ({**objective, **setting}, message)
            for objective in ({}, WHOLE)
            for setting, message in (
                ({"num_targets": 0}, "num_targets, min_context and context_group must be 1 or more"),
                ({"min_context": -1}, "must be 1 or more"),
                ({"target_scale": (0.9, 0.1)}, "target_scale must be two shares"),
                ({"context_scale": (0.5, 1.5)}, "context_scale must be two shares"),
                ({"target_aspect": (0.0, 1.0)}, "target_aspect must be two positive"),
                ({"mask_mode": "nonsense"}, "mask_mode must be"),
                ({"predictor_heads": 3}, "not divisible by predictor_heads"),
                ({"predictor_width": 18}, "predictor_width must be a multiple of 4"),
                ({"predictor_depth": 0}, "predictor_depth must be 1 or more"),
                ({"predictor_mode": "nonsense"}, "predictor_mode must be"),
                ({"token_loss": "nonsense"}, "token_loss must be one of"),
            )
        ),
        ({"encoder": "test_resnet"}, "other encoders cannot hide patches: choose a vit_.*lejepa.yaml"),
        ({**WHOLE, "encoder": "no_such_model"}, "timm has no model named"),
        (
            {"encoder": "no_such_model", "image_size": 17},
            "'no_such_model'; timm.list_models",
        ),
        ({"encoder": "vit_tyni_patch16_224"}, "names like it: vit_tiny_patch16_224"),
        ({**WHOLE, "encoder": "resnet81"}, "names like it: resnet"),
        ({**WHOLE, "encoder": "resnet81", "local_views": 1, "local_size": 7}, "names like it: resnet"),
        ({"image_size": -16}, "image_size must be 1 or more"),
        (
            {**WHOLE, "encoder": "test_resnet", "encoder_overrides": {}, "spectral_weight": 0.1},
            "spectral_weight looks at linear layers, and the encoder has none",
        ),
        ({**WHOLE, "encoder": "test_resnet"}, "timm refuses an argument in encoder_overrides"),
        ({**WHOLE, "encoder": "test_resnet", "encoder_overrides": {}, "positions": "learned"}, "leave positions out"),
        ({**WHOLE, "encoder": "test_resnet", "encoder_overrides": {}, "stem": "convolutional"}, "leave out stem"),
        ({**WHOLE, "encoder": "test_resnet", "encoder_overrides": {}, "stem_channels": [8]}, "leave out stem"),
        ({"anticollapse": "barlow", "anticollapse_on": "tokens", "flip": True}, "show different things after crops"),
    ],
)
def test_settings_that_cannot_work_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        JEPA(**{**SMALL, **settings})


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        ({}, set()),
        (WHOLE, {"predictor_width", "predictor_depth", "predictor_heads", "num_targets"}),
        ({"token_weight": 0.0, "token_loss": "l2"}, {"token_loss"}),
        ({"token_loss": "l2"}, set()),
        ({"local_size": 8, "local_scale": (0.05, 0.2)}, {"local_size", "local_scale"}),
        ({"local_scale": [0.05, 0.3]}, set()),  # its default
        ({"anticollapse": "vicreg"}, {"sigreg_slices"}),
        ({"anticollapse_weight": 0.0}, {"sigreg_slices"}),
        ({"anticollapse": "none", "anticollapse_on": "both"}, {"sigreg_slices", "anticollapse_on"}),
        ({"anticollapse": "none", "embedding_weight": 0.0}, {"sigreg_slices", "embedding_size", "projector_hidden"}),
        ({"projector_hidden": 0, "projector_batch_norm": False}, {"projector_batch_norm"}),
    ],
)
def test_what_has_no_part_is_listed(settings: dict[str, Any], idle: set[str]) -> None:
    assert set(JEPA(**{**SMALL, **settings}).without_part) == idle


def test_a_patch_size_has_no_part_in_other_encoders() -> None:
    settings = {**WHOLE, "encoder": "test_resnet", "encoder_overrides": {}}
    assert JEPA(**{**SMALL, **settings}).without_part["patch_size"] == ("encoder",)


def test_arguments_of_a_subclass_are_its_own() -> None:
    """Hyper-parameters are those of the subclass; the parts are built from what it passes on."""

    class Doubled(JEPA):
        def __init__(self, patch_size: int = 2, embedding_size: int = 3) -> None:
            super().__init__(**{**SMALL, "patch_size": 2 * patch_size, "embedding_size": embedding_size})

    module = Doubled()
    assert module.online.encoder.grid_size == (4, 4)
    assert module.hparams["patch_size"] == 2


def test_without_a_term_that_reads_it_there_is_no_embedding() -> None:
    tokens = {**SMALL, "embedding_weight": 0.0, "anticollapse_on": "tokens"}
    assert isinstance(JEPA(**tokens).online.projector, torch.nn.Identity)
    assert not isinstance(JEPA(**{**tokens, "anticollapse_on": "both"}).online.projector, torch.nn.Identity)


def test_a_head_without_a_part_in_the_loss_is_not_trained() -> None:
    module = JEPA(**{**SMALL, "token_weight": 0.0})
    assert not any(parameter.requires_grad for parameter in module.predictor.token_head.parameters())
    assert module.predictor.embedding_head is not None


def test_local_views_of_another_size_are_seen_by_the_same_weights() -> None:
    settings = {**SMALL, "centre_weight": 1.0, "crop_scale": 0.5}
    module = JEPA(**settings, local_views=2, local_size=8, local_scale=(0.1, 0.4))
    assert [(view.crop_scale, view.largest_crop, view.size) for view in module.views] == [
        *[(0.5, 1.0, None)] * 2,
        *[(0.1, 0.4, 8)] * 2,
    ]
    assert module.online.encoder(torch.randn(2, 1, 8, 8)).shape == (2, 4, 32)
    other = JEPA(**settings, local_views=2)
    assert other.state_dict().keys() == module.state_dict().keys()
    other.load_state_dict(module.state_dict())
    images = torch.randn(3, 1, 16, 16)
    assert torch.equal(other.eval()(images), module.eval()(images))
