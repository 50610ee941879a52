"""Encoders of images by name: published weights, a file, a checkpoint or an export of ours, or Python code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from PIL import Image
from torch import Tensor, nn

from jepa_train.errors import ConfigurationError
from jepa_train.export import CONFIG
from jepa_train.ranking.arguments import check_arguments, check_choice
from jepa_train.ranking.families import POOLINGS, Pooling
from jepa_train.ranking.identity import identity_of
from jepa_train.ranking.preparation import PicturePreparation
from jepa_train.ranking.published import HUB, LOCAL, Loaded, check_is_published, is_timm_name, of_timm
from jepa_train.ranking.soundness import check_forward, check_weights
from jepa_train.ranking.trained import guessed_config, of_checkpoint, of_folder
from jepa_train.ranking.user_code import called, of_module

RANDOM = "random:"
GREY = "The encoder has one channel: pictures become grey, and their colors do not count."
REPOSITORY = "timm/"  # where timm publishes the weights of its names
CODE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
FILES = (".ckpt", ".safetensors", ".pth", ".pt", ".bin", ".tar", ".npz")


@dataclass(frozen=True)
class ImageEncoder:
    """An encoder of images, and all that its embeddings depend on.

    Attributes:
        module: (B, C, H, W) prepared images -> (B, K) float32, in evaluation mode, its weights without gradients.
        prepare: a picture of any mode -> (C, H, W) float32; it can be pickled, and gives the same each time.
        name: as the user gave it.
        identity: sha256, in hexadecimal, of layers, weights and preparation.
        preparation: plain JSON types: input_size, interpolation, crop_pct, crop_mode, mean, std, background, pooling.
        notes: sentences: why this pooling, what was guessed.
    """

    module: nn.Module
    prepare: Callable[[Image.Image], Tensor]
    name: str
    identity: str
    preparation: Mapping[str, Any]
    notes: tuple[str, ...]


def load_encoder(name: str, *, pooling: str = "auto", image_size: int | None = None) -> ImageEncoder:
    """Load an encoder on the CPU.

    Args:
        name: one of

            - a name of timm's registry, whose published weights are fetched (``vit_small_patch14_dinov2.lvd142m``);
              ``timm/NAME``, ``hf-hub:REPOSITORY`` and ``local-dir:FOLDER`` as timm takes them;
            - ``NAME=FILE``: this timm model with the weights of a file;
            - a file of weights with timm's ``config.json`` beside it, or the folder of both, as ``export`` writes it;
              a projector that was exported is applied;
            - a checkpoint of ours (``.ckpt``): the embedding z of its target encoder;
            - ``module:callable``, which returns an ``nn.Module`` or an :class:`ImageEncoder`. A module may state
              ``data_config``, arguments of ``timm.data.create_transform``, or timm's ``pretrained_cfg``;
            - ``random:`` before a timm name or a checkpoint of ours: the same with random weights, always those.
        pooling: how an image becomes one vector; ``auto`` decides by the family, see ``docs/encoders.md``.
        image_size: height and width of the input, in pixels; by default the encoder's own.

    Raises:
        ConfigurationError: if there is no such encoder, its weights cannot be fetched or read or are not finite, or it
            does not make one vector of an image.
    """
    check_arguments(load_encoder, locals())
    check_choice("pooling", pooling, POOLINGS)
    if image_size is not None and image_size < 1:
        raise ConfigurationError(f"image_size must be 1 pixel or more, got {image_size}.")
    chosen = cast("Pooling", pooling)
    if not CODE.fullmatch(name) or name.startswith((LOCAL, RANDOM, *HUB)):
        return _assembled(name, _found(name, chosen, image_size))
    made = called(name)
    if isinstance(made, ImageEncoder):
        return replace(made, name=name)
    return _assembled(name, of_module(name, made, chosen, image_size))


def _found(name: str, pooling: Pooling, image_size: int | None) -> Loaded:
    """Load what a name stands for."""
    if name.startswith(RANDOM):
        return _random(name.removeprefix(RANDOM), pooling, image_size)
    if name.startswith(LOCAL):
        return of_folder(Path(name.removeprefix(LOCAL)), pooling, image_size)
    if name.startswith(HUB):
        return of_timm(name, pooling, image_size)
    architecture, _, file = name.partition("=")
    if file and is_timm_name(architecture):
        return of_timm(architecture, pooling, image_size, weights=_existing(Path(file)))
    path = Path(name).expanduser()
    if path.exists() and not is_timm_name(name):
        return _of_path(path, pooling, image_size)
    _refuse_what_looks_like_a_path(name)
    published = name.removeprefix(REPOSITORY)
    check_is_published(published)
    return of_timm(published, pooling, image_size)


def _refuse_what_looks_like_a_path(name: str) -> None:
    if name.endswith(FILES) or name.startswith((".", "/", "~")):
        raise ConfigurationError(
            f"there is no file or folder {name}: give the path of a checkpoint, weights or export."
        )
    if "/" in name.removeprefix(REPOSITORY):
        raise ConfigurationError(
            f"there is no file or folder {name}: a repository of the Hugging Face hub is hf-hub:{name}, a model of "
            "timm's has no slash."
        )


def _existing(file: Path) -> Path:
    if not file.expanduser().is_file():
        raise ConfigurationError(f"there is no file {file}: give that of the weights.")
    return file.expanduser()


def _of_path(path: Path, pooling: Pooling, image_size: int | None) -> Loaded:
    """Load a file or folder."""
    if path.is_dir():
        return of_folder(path, pooling, image_size)
    if path.suffix == ".ckpt":
        return of_checkpoint(path, pooling, image_size)
    if not (path.parent / CONFIG).is_file():
        raise ConfigurationError(
            f"{path} does not say of which model it has the weights: give NAME={path} with timm's name of it, or put "
            f"timm's {CONFIG} beside it."
        )
    return of_folder(path.parent, pooling, image_size, weights=path)


def _random(name: str, pooling: Pooling, image_size: int | None) -> Loaded:
    """Build an encoder with random weights: the control that a ranking is compared with."""
    if is_timm_name(name):
        loaded = of_timm(name, pooling, image_size, pretrained=False)
    elif name.endswith(".ckpt"):
        loaded = of_checkpoint(Path(name).expanduser(), pooling, image_size, trained=False)
    else:
        raise ConfigurationError(f"{RANDOM}{name} must name a model of timm's registry or a checkpoint of ours.")
    loaded.notes.append("Its weights are random: a control, not a ranking to use.")
    return loaded


def _assembled(name: str, found: Loaded) -> ImageEncoder:
    """Check an encoder, and put together what is known of it."""
    module = found.module.float().eval().requires_grad_(False)
    check_weights(name, module)
    config = dict(found.data_config)
    channels = config["input_size"][0]
    if len(config["mean"]) != channels:  # timm's default is of three
        config |= {key: guessed_config(1, channels)[key] for key in ("mean", "std")}
    prepare = PicturePreparation(config, background=found.background)
    size = check_forward(name, module, tuple(config["input_size"]))
    facts = {**prepare.data_config, "background": found.background, "pooling": found.pooling, "embedding_size": size}
    notes = [GREY, *found.notes] if channels == 1 else found.notes
    described = json.loads(json.dumps(facts))
    return ImageEncoder(module, prepare, name, identity_of(module, described), described, tuple(notes))
