"""The parts of a JEPA, built from its flat hyper-parameters: each function reads those that are its part's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import Parameter
from typing import Any

from torch import nn

from jepa_train.errors import ConfigurationError, check_above_0, check_at_least
from jepa_train.inputs.masks import MultiBlockMasks
from jepa_train.inputs.views import RandomView
from jepa_train.models.encoder import EmbeddingEncoder, ViTEncoder, check_name, is_vision_transformer
from jepa_train.models.feature_maps import FeatureEncoder
from jepa_train.models.predictor import Predictor, check_predictor
from jepa_train.models.projector import Projector
from jepa_train.objectives import Objective, build_anticollapse, linear_weights

WEIGHTS = ("token_weight", "embedding_weight", "centre_weight", "anticollapse_weight", "spectral_weight")
VIEW = ("crop_scale", "shift", "flip", "noise", "brightness", "contrast", "crop_aspect", "saturation", "hue")
SCHEDULED = ("learning_rate_start", "learning_rate_end", "weight_decay", "weight_decay_end")
AT_LEAST_0 = (*WEIGHTS, *SCHEDULED, "projector_hidden", "local_views", "seed")
SIZES = ("image_size", "channels", "patch_size", "embedding_size", "predictor_width", "predictor_heads")
AT_LEAST_1 = (*SIZES, "sigreg_slices", "global_views")
MASKED = (
    *("num_targets", "target_scale", "target_aspect", "context_scale", "min_context", "context_group", "mask_mode"),
    *("predictor_width", "predictor_depth", "predictor_heads", "predictor_mode"),
)
OF_EMBEDDING = ("embedding_size", "projector_hidden", "projector_batch_norm")
OF_TOKENS = ("token_loss", "stop_gradient")
LOCAL = ("local_scale", "local_size")
SHARES = ("ema_start", "ema_end", "warmup_fraction")

Settings = Mapping[str, Any]  # hyper-parameters of ``JEPA`` by name


def check_numbers(settings: Settings) -> None:
    """Check the hyper-parameters that no part checks itself, and those of parts that the objective may leave out.

    A number that cannot work is refused, whether or not its part is built.

    Raises:
        ConfigurationError: naming the first that cannot.
    """
    check_at_least(0, **{name: settings[name] for name in AT_LEAST_0})
    check_at_least(1, **{name: settings[name] for name in AT_LEAST_1})
    for name in SHARES:
        if not 0.0 <= settings[name] <= 1.0:
            raise ConfigurationError(f"{name} must lie between 0 and 1, got {settings[name]}.")
    check_above_0(learning_rate=settings["learning_rate"])
    if settings["local_size"] is not None:
        check_at_least(1, local_size=settings["local_size"])
    build_masks(settings, grid_size=(1, 1))  # their ranges do not depend on the grid
    check_predictor(**{name: settings[f"predictor_{name}"] for name in ("width", "depth", "heads", "mode")})
    if not settings["stop_gradient"] and has_average(settings):
        raise ConfigurationError(
            "stop_gradient false needs a target without moving average: set ema_start, ema_end to 0."
        )


def has_average(settings: Settings) -> bool:
    """Return true if the target is a moving average at some step: momentum is a straight line between its ends."""
    return bool(settings["ema_start"] or settings["ema_end"])


def build_views(settings: Settings) -> list[RandomView]:
    """Build the augmentation of each view: of view A and view B, or of all global views and then all local ones.

    Raises:
        ConfigurationError: for numbers of views or a range of crops that cannot work.
    """
    view = RandomView(**{name: settings[name] for name in VIEW})
    num_global, num_local = settings["global_views"], settings["local_views"]
    _check_number_of_views(settings)
    low, high = settings["local_scale"]
    if not 0.0 < low <= high <= 1.0:
        raise ConfigurationError("local_scale must be two shares of the area, 0 < low <= high <= 1.")
    size = settings["local_size"] if has_local_size(settings) else None
    local = replace(view, crop_scale=low, largest_crop=high, size=size)
    views = [view] * num_global + [local] * num_local
    if settings["crop_aspect"] > 1.0 and all(each.crop_scale == 1.0 for each in views):
        raise ConfigurationError(
            "crop_aspect does nothing where crops keep the whole image: lower crop_scale, or leave out crop_aspect."
        )
    return views


def _check_number_of_views(settings: Settings) -> None:
    num_global, num_local = settings["global_views"], settings["local_views"]
    if not settings["centre_weight"] and (num_global, num_local) != (2, 0):
        raise ConfigurationError(
            "with centre_weight 0 there are always two views: raise centre_weight, or leave out global_views and "
            "local_views."
        )
    if num_global + num_local < 2:
        raise ConfigurationError(
            "centre_weight compares views, and there is only one: raise global_views or local_views."
        )
    if num_global < 2 and (settings["token_weight"] or settings["embedding_weight"]):
        raise ConfigurationError(
            "token_weight and embedding_weight predict the second global view, and there is only one: set global_views "
            "to 2 or more, or both weights to 0."
        )


def has_local_size(settings: Settings) -> bool:
    """Return true if there are local views of another size than the images."""
    return bool(settings["local_views"]) and settings["local_size"] not in (None, settings["image_size"])


def without_part(
    settings: Settings, parameters: Mapping[str, Parameter], objective: Objective
) -> dict[str, tuple[str, ...]]:
    """List the hyper-parameters that are not their defaults and do nothing, each with those that leave it out.

    Args:
        settings: all hyper-parameters.
        parameters: their defaults, as :func:`inspect.signature` gives them.
        objective: the terms of the loss.
    """
    left_out: dict[tuple[str, ...], Sequence[str]] = {}
    if not objective.hides_patches:
        left_out["token_weight", "embedding_weight"] = MASKED
    if not objective.weights["tokens"]:
        left_out["token_weight",] = OF_TOKENS
    if not objective.needs_embedding:
        left_out["embedding_weight", "anticollapse", "anticollapse_on", "anticollapse_weight"] = OF_EMBEDDING
    elif not settings["projector_hidden"]:
        left_out["projector_hidden",] = ("projector_batch_norm",)
    if objective.anticollapse is None:
        left_out["anticollapse", "anticollapse_weight"] = ("anticollapse_on", "sigreg_slices")
    elif settings["anticollapse"] != "sigreg":
        left_out["anticollapse",] = ("sigreg_slices",)
    if not settings["local_views"]:
        left_out["local_views",] = LOCAL
    if not is_vision_transformer(settings["encoder"]):
        left_out["encoder",] = ("patch_size",)
    reasons_of = {name: reasons for reasons, names in left_out.items() for name in names}
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return {name: reasons for name, reasons in reasons_of.items() if not _is_same(settings[name], defaults[name])}


def _is_same(value: Any, other: Any) -> bool:
    """Compare values, of which ranges may be tuples or lists."""
    return bool(value == other or (isinstance(value, (list, tuple)) and list(value) == list(other)))


def what_does_nothing(left_out: Mapping[str, tuple[str, ...]], settings: Settings) -> list[str]:
    """Write one sentence on hyper-parameters that do nothing, or none where there are none.

    Args:
        left_out: hyper-parameters, each with those that leave it out.
        settings: values of all.
    """
    names_of: dict[tuple[str, ...], list[str]] = {}
    for name, reasons in left_out.items():
        names_of.setdefault(reasons, []).append(name)
    clauses = [
        f"{', '.join(names)} with {', '.join(f'{reason} {settings[reason]}' for reason in reasons)}"
        for reasons, names in names_of.items()
    ]
    return [f"Settings that do nothing: {'; '.join(clauses)}."] if clauses else []


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
        global_views=settings["global_views"],
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


def build_encoder(settings: Settings, objective: Objective) -> EmbeddingEncoder:
    """Build the online encoder and its projector; without one the mean token is the embedding.

    Raises:
        ConfigurationError: for an encoder that cannot be built, or not for this objective.
    """
    name = settings["encoder"]
    check_name(name, hides_patches=objective.hides_patches)  # before its sizes
    encoder = _vision_transformer(settings) if is_vision_transformer(name) else _feature_encoder(settings)
    if objective.hides_patches and isinstance(encoder, ViTEncoder) and encoder.vit.pos_embed is None:
        raise ConfigurationError(
            "an encoder without positions does not know where the hidden patches are: leave pos_embed out of "
            "encoder_overrides, or set token_weight and embedding_weight to 0."
        )
    if objective.weights["spectral"]:
        linear_weights(encoder)  # refuses an encoder without any
    if not objective.needs_embedding:
        return EmbeddingEncoder(encoder, nn.Identity())
    projector = Projector(
        encoder.width,
        hidden=settings["projector_hidden"],
        embedding_size=settings["embedding_size"],
        batch_norm=settings["projector_batch_norm"],
    )
    return EmbeddingEncoder(encoder, projector)


def _vision_transformer(settings: Settings) -> ViTEncoder:
    overrides = settings["encoder_overrides"]
    size, patch_size = settings["local_size"], settings["patch_size"]
    if size is not None and size % patch_size:
        raise ConfigurationError(f"local_size {size} must be a multiple of patch_size {patch_size}.")
    if has_local_size(settings):
        overrides = {"dynamic_img_size": True, **(overrides or {})}
        if not overrides["dynamic_img_size"]:
            raise ConfigurationError(
                "local views of another size need dynamic_img_size: leave dynamic_img_size out of encoder_overrides, "
                "or leave out local_size."
            )
    return ViTEncoder(
        settings["encoder"],
        image_size=settings["image_size"],
        patch_size=settings["patch_size"],
        channels=settings["channels"],
        overrides=overrides,
        pretrained=settings["pretrained"],
        positions=settings["positions"],
        stem=settings["stem"],
        stem_channels=settings["stem_channels"],
        gradient_checkpointing=settings["gradient_checkpointing"],
    )


def _feature_encoder(settings: Settings) -> FeatureEncoder:
    if settings["positions"] != "fixed":
        raise ConfigurationError(f"{settings['encoder']} brings its own positions: leave positions out.")
    if settings["stem"] != "linear" or settings["stem_channels"] is not None:
        raise ConfigurationError(f"{settings['encoder']} brings its own stem: leave out stem and stem_channels.")
    return FeatureEncoder(
        settings["encoder"],
        image_size=settings["image_size"],
        channels=settings["channels"],
        sizes=[settings["local_size"]] if has_local_size(settings) else [],
        overrides=settings["encoder_overrides"],
        pretrained=settings["pretrained"],
        gradient_checkpointing=settings["gradient_checkpointing"],
    )


def build_predictor(settings: Settings, encoder: ViTEncoder) -> Predictor:
    """Build the predictor from visible to hidden; a head that has no part in the loss is not trained."""
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
