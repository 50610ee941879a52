"""The parts of a JEPA, built from its flat hyper-parameters: each function reads those that are its part's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from torch import nn

from jepa_train.errors import ConfigurationError, check_above_0, check_at_least
from jepa_train.inputs.masks import MultiBlockMasks
from jepa_train.inputs.views import RandomView
from jepa_train.models.encoder import EmbeddingEncoder, ViTEncoder
from jepa_train.models.predictor import Predictor
from jepa_train.models.projector import Projector
from jepa_train.objectives import Objective, build_anticollapse

WEIGHTS = ("token_weight", "embedding_weight", "anticollapse_weight", "spectral_weight")
SCHEDULED = ("learning_rate_start", "learning_rate_end", "weight_decay", "weight_decay_end")
AT_LEAST_0 = (*WEIGHTS, *SCHEDULED, "projector_hidden", "seed")
AT_LEAST_1 = ("channels", "patch_size", "embedding_size", "predictor_width", "predictor_heads", "sigreg_slices")
SHARES = ("ema_start", "ema_end", "warmup_fraction")

Settings = Mapping[str, Any]  # hyper-parameters of ``JEPA`` by name


def check_numbers(settings: Settings) -> None:
    """Check the hyper-parameters that no part checks itself, one by one and with each other.

    Raises:
        ConfigurationError: naming the first that cannot.
    """
    check_at_least(0, **{name: settings[name] for name in AT_LEAST_0})
    check_at_least(1, **{name: settings[name] for name in AT_LEAST_1})
    for name in SHARES:
        if not 0.0 <= settings[name] <= 1.0:
            raise ConfigurationError(f"{name} must lie between 0 and 1, got {settings[name]}.")
    check_above_0(learning_rate=settings["learning_rate"])
    if not settings["stop_gradient"] and (settings["ema_start"] or settings["ema_end"]):
        raise ConfigurationError("without stop_gradient the target is the online encoder: set ema_start, ema_end to 0.")


def build_view(settings: Settings) -> RandomView:
    """Build the augmentation of whole batches, whose arguments are hyper-parameters."""
    return RandomView(**{field.name: settings[field.name] for field in fields(RandomView)})


def build_objective(settings: Settings, *, views_move: bool) -> Objective:
    """Build the terms of the loss.

    Args:
        settings: hyper-parameters.
        views_move: one place of two views need not show the same.

    Raises:
        ConfigurationError: for a term that would compare different places.
    """
    objective = Objective(
        **{name: settings[name] for name in WEIGHTS},
        token_loss=settings["token_loss"],
        stop_gradient=settings["stop_gradient"],
        anticollapse=build_anticollapse(settings["anticollapse"], num_slices=settings["sigreg_slices"]),
        anticollapse_on=settings["anticollapse_on"],
    )
    check_pairs(objective, settings["anticollapse"], views_move=views_move)
    return objective


def check_pairs(objective: Objective, anticollapse: str, *, views_move: bool) -> None:
    """See that no term compares tokens at one place of two views that move.

    Raises:
        ConfigurationError: if ``anticollapse`` does.
    """
    if objective.pairs_tokens and views_move:
        raise ConfigurationError(
            f"{anticollapse} compares tokens at one place of two views, which show different things after crops, "
            "shifts or flips, or where the data bring a view_b: set crop_scale to 1, shift to 0 and flip to false, or "
            "anticollapse_on to embedding."
        )


def build_encoder(settings: Settings, *, with_projector: bool) -> EmbeddingEncoder:
    """Build the online encoder and its projector; without one the mean token is the embedding."""
    vit = ViTEncoder(
        settings["encoder"],
        image_size=settings["image_size"],
        patch_size=settings["patch_size"],
        channels=settings["channels"],
        overrides=settings["encoder_overrides"],
        pretrained=settings["pretrained"],
        positions=settings["positions"],
        gradient_checkpointing=settings["gradient_checkpointing"],
    )
    if not with_projector:
        return EmbeddingEncoder(vit, nn.Identity())
    projector = Projector(
        vit.width,
        hidden=settings["projector_hidden"],
        embedding_size=settings["embedding_size"],
        batch_norm=settings["projector_batch_norm"],
    )
    return EmbeddingEncoder(vit, projector)


def build_predictor(settings: Settings, encoder: ViTEncoder) -> Predictor:
    """Build the predictor of an encoder's tokens; a head that has no part in the loss is not trained."""
    predictor = Predictor(
        token_width=encoder.width,
        grid_size=encoder.grid_size,
        width=settings["predictor_width"],
        depth=settings["predictor_depth"],
        heads=settings["predictor_heads"],
        embedding_size=settings["embedding_size"] if settings["embedding_weight"] else None,
        mode=settings["predictor_mode"],
    )
    predictor.token_head.requires_grad_(bool(settings["token_weight"]))  # DDP would wait for its gradient
    return predictor


def build_masks(settings: Settings, grid_size: tuple[int, int]) -> MultiBlockMasks:
    """Build the sampler of context and target patches."""
    return MultiBlockMasks(
        grid_size=grid_size,
        num_targets=settings["num_targets"],
        target_scale=settings["target_scale"],
        target_aspect=settings["target_aspect"],
        context_scale=settings["context_scale"],
        min_context=settings["min_context"],
        context_group=settings["context_group"],
        mode=settings["mask_mode"],
    )
