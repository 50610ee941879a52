"""Encoders that this package trained: a checkpoint's target encoder, and the folder that an export wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from jepa_train.checkpoints.compatibility import data_state, model_arguments, without_fetching
from jepa_train.checkpoints.files import is_sharded, read_checkpoint
from jepa_train.data.transforms import data_config
from jepa_train.errors import ConfigurationError, one_line
from jepa_train.export import CONFIG, PROJECTOR, SUFFIX, rebuilt
from jepa_train.models.projector import Projector
from jepa_train.module import JEPA
from jepa_train.ranking.families import PooledModel, Pooling, null_note
from jepa_train.ranking.published import LOCAL, Loaded, is_timm_name, of_timm

Z = "The embedding is z, what the projector makes of the mean token: training keeps z from collapsing, and scores it."
MEAN_TOKEN = "The embedding is the mean token before the projector, as asked for."


def of_checkpoint(path: Path, pooling: Pooling, image_size: int | None, *, trained: bool = True) -> Loaded:
    """Load the target encoder of a checkpoint of ours, or build it anew with random weights.

    Args:
        path: the checkpoint.
        pooling: ``auto`` or ``projection`` is the embedding z, ``mean`` or ``own`` the mean token before the projector.
        image_size: must be that of training, if given.
        trained: take its weights; else they are random, from seed 0.

    Raises:
        ConfigurationError: if it is no whole checkpoint of ours, or cannot do what is asked for.
    """
    chosen = _settled(pooling)
    checkpoint = read_checkpoint(path)
    module = rebuilt(checkpoint, path) if trained else _built_anew(checkpoint)
    size, channels = module.hparams["image_size"], module.hparams["channels"]
    if image_size not in (None, size):
        raise ConfigurationError(f"{path} was trained at {size} px: leave image_size out, it cannot be {image_size}.")
    prepared = data_state(checkpoint)[1]
    notes = [Z] if chosen == "projection" else [MEAN_TOKEN, *null_note(module.target.encoder.network, "mean")]
    if not prepared:
        notes.append(f"{path.name} does not say how images were prepared: ImageNet's mean and deviation are guessed.")
    return Loaded(
        PooledModel(module.target if chosen == "projection" else module.target.encoder, "own"),
        prepared.get("data_config") or guessed_config(size, channels),
        chosen,
        notes,
        prepared.get("background", "white"),
    )


def _built_anew(checkpoint: dict[str, Any]) -> JEPA:
    """Build the module of a checkpoint with random weights."""
    arguments = model_arguments(checkpoint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return JEPA(**(arguments | without_fetching(arguments, checkpoint["state_dict"])))


def _settled(pooling: Pooling) -> Pooling:
    """Settle what is the embedding of a model of ours."""
    synonyms: dict[Pooling, Pooling] = {"auto": "projection", "own": "mean"}
    chosen = synonyms.get(pooling, pooling)
    if chosen not in ("projection", "mean"):
        raise ConfigurationError(
            f"a model of this package has no pooling {pooling!r}: choose auto (z, behind the projector) or mean (the "
            "mean token before it)."
        )
    return chosen


def guessed_config(image_size: int, channels: int) -> dict[str, Any]:
    """Guess ImageNet's mean and deviation; of grey images their average."""
    config = data_config(image_size)
    if channels == 3:
        return config
    grey = {key: [sum(config[key]) / 3] * channels for key in ("mean", "std")}
    return {**config, **grey, "input_size": [channels, image_size, image_size]}


def of_folder(folder: Path, pooling: Pooling, image_size: int | None, *, weights: Path | None = None) -> Loaded:
    """Load a folder with timm's ``config.json``, and the projector that ``export`` wrote into it.

    Args:
        folder: what :func:`jepa_train.export.export` or timm wrote.
        pooling: how tokens become one vector; where there is a projector, see :func:`of_checkpoint`.
        image_size: height and width of the input, in pixels; ``None`` is the stated one.
        weights: the file to read; by default the one that timm finds.

    Raises:
        ConfigurationError: if it is no such folder, or does not hold what it says.
    """
    stated = _config_of(folder)
    projectors = sorted((folder / PROJECTOR).glob(f"*{SUFFIX}"))
    chosen = _settled(pooling) if projectors else pooling
    loaded = of_timm(f"{LOCAL}{folder}", "mean" if projectors else pooling, image_size, weights=weights)
    notes = loaded.notes
    if projectors:
        notes = [Z] if chosen == "projection" else [MEAN_TOKEN, *loaded.notes[1:]]
    if not stated.get("pretrained_cfg", stated).get("mean"):
        notes.append(
            f"{folder / CONFIG} does not say how images were prepared: ImageNet's mean and deviation are guessed."
        )
    loaded = replace(loaded, notes=notes, background=stated.get("background", "white"))
    if not projectors:
        return loaded
    module = nn.Sequential(loaded.module, _projector(projectors[0])) if chosen == "projection" else loaded.module
    return replace(loaded, module=module, pooling=chosen)


def _config_of(folder: Path) -> dict[str, Any]:
    """Read the ``config.json`` of a folder, as timm writes it."""
    if is_sharded(folder):
        raise ConfigurationError(f"{folder} is a sharded checkpoint, which rank cannot read: give a single file.")
    if checkpoints := sorted(folder.glob("checkpoints/*.ckpt")):
        raise ConfigurationError(f"{folder} is the folder of a run: give its checkpoint, such as {checkpoints[-1]}.")
    file = folder / CONFIG
    try:
        stated = dict(json.loads(file.read_text(encoding="utf-8")))
        architecture = str(stated["architecture"])
    except (OSError, ValueError, LookupError, TypeError):
        raise ConfigurationError(
            f"{folder} is no folder of an encoder, because it has no {CONFIG} that names an architecture of timm's: "
            "give the folder that export wrote."
        ) from None
    if not is_timm_name(architecture):
        raise ConfigurationError(f"{file} names the architecture {architecture!r}, which timm does not know.")
    return stated


def _projector(file: Path) -> Projector:
    """Rebuild an exported projector from the names and shapes of its weights."""
    try:
        weights = load_file(file)
        matrices = [weight for _, weight in sorted(weights.items()) if weight.ndim == 2]
        projector = Projector(
            matrices[0].shape[1],
            hidden=len(matrices[0]) if len(matrices) > 1 else 0,
            embedding_size=len(matrices[-1]),
            batch_norm=any(name.endswith("running_mean") for name in weights),
        )
        projector.layers.load_state_dict(weights)
    except Exception as error:
        raise ConfigurationError(f"{file} is no projector of an export ({one_line(error)}): export again.") from error
    return projector
