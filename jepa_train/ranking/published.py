"""Models that timm builds: with published weights, with those of a file or folder, or with random ones."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.config import resolve_data_config
from timm.models import resolve_model_input_args
from torch import nn

from jepa_train.errors import ConfigurationError, nearest, one_line
from jepa_train.ranking.families import PooledModel, Pooling, family_of, null_note, settled

LOCAL = "local-dir:"
HUB = ("hf-hub:", "hf_hub:")
LONGEST = 240  # characters of a reason; a list of missing weights has thousands


@dataclass(frozen=True)
class Loaded:
    """An encoder as it was found, before it is checked.

    Attributes:
        module: (B, C, H, W) -> (B, K).
        data_config: arguments of ``timm.data.create_transform``.
        pooling: the choice that was made.
        notes: sentences for the user.
        background: color behind transparent pixels.
    """

    module: nn.Module
    data_config: Mapping[str, Any]
    pooling: str
    notes: list[str] = field(default_factory=list)
    background: str = "white"


def is_timm_name(name: str) -> bool:
    """Return true for a name of timm's registry, with a tag that it knows or without one (``resnet50.pth`` is none)."""
    architecture, _, tag = name.partition(".")
    return timm.is_model(architecture) and (not tag or name in timm.list_pretrained())


def check_is_published(name: str) -> None:
    """See that timm knows weights of a name of its registry; nothing is fetched.

    Raises:
        ConfigurationError: naming the nearest that it knows.
    """
    architecture, _, tag = name.partition(".")
    published = timm.list_pretrained()
    if not timm.is_model(architecture):
        near = nearest(name, published if tag else timm.list_models())
        like = f"names like it are {', '.join(near)}" if near else "timm.list_pretrained() returns those there are"
        raise ConfigurationError(f"there is no file, no folder and no timm model {name!r}: {like}.")
    of_architecture = [other for other in published if other.split(".")[0] == architecture]
    if not of_architecture:
        raise ConfigurationError(
            f"timm has no weights of {name}: give those of a file as {name}=FILE, or random:{name} for random ones."
        )
    if tag and name not in published:
        near = nearest(name, of_architecture, cutoff=0.0)
        raise ConfigurationError(f"timm has no weights {tag!r} of {architecture}: there are {', '.join(near)}.")


def build(
    source: str, *, image_size: int | None, weights: Path | None = None, pretrained: bool = True
) -> tuple[Any, dict[str, Any]]:
    """Build a timm model, its head included, and find how timm prepares its images.

    With the head, because timm then sees to it that every weight of a file finds its place.

    Args:
        source: name of timm's registry, ``hf-hub:REPOSITORY`` or ``local-dir:FOLDER``.
        image_size: height and width of the input, in pixels; ``None`` is the published one.
        weights: file to read instead of the published weights.
        pretrained: read weights at all; else they are random, from seed 0.

    Returns:
        the model, and arguments of ``timm.data.create_transform``.

    Raises:
        ConfigurationError: if timm cannot build it, or its weights cannot be fetched, read, or do not fit.
    """
    with (
        _one_sentence_about(source, weights, image_size),
        _without_warnings_of_the_hub(),
        torch.random.fork_rng(devices=[]),
    ):
        torch.manual_seed(0)
        arguments = resolve_model_input_args(source, args={"img_size": image_size})
        if weights is not None:
            arguments["pretrained_cfg"] |= {
                **dict.fromkeys(("source", "url", "hf_hub_id", "hf_hub_filename", "state_dict")),
                "file": os.fspath(weights),
                "custom_load": weights.suffix == ".npz",
            }
        model: Any = timm.create_model(pretrained=pretrained, **arguments)
        size = {}
        if image_size is not None:
            size["input_size"] = (model.pretrained_cfg["input_size"][0], image_size, image_size)
        config: dict[str, Any] = resolve_data_config(size, model=model)  # type: ignore[no-untyped-call]  # timm's is
    return model, config


def of_timm(
    source: str, pooling: Pooling, image_size: int | None, *, weights: Path | None = None, pretrained: bool = True
) -> Loaded:
    """Load a timm model, pooled as its family is, without its classifier.

    Args:
        source, image_size, weights, pretrained: see :func:`build`.
        pooling: how its tokens become one vector.

    Raises:
        ConfigurationError: see :func:`build`; or the model has not what the pooling needs.
    """
    model, config = build(source, image_size=image_size, weights=weights, pretrained=pretrained)
    stated = model.pretrained_cfg
    family = family_of(f"{stated['architecture']}.{stated.get('tag') or ''}")
    chosen = settled(family, pooling, model)
    if chosen != "projection":
        model.reset_classifier(0)
    note = f"Pooling is {chosen!r}: {family.reason}" if pooling == "auto" else f"Pooling is {chosen!r}, as asked for."
    return Loaded(PooledModel(model, chosen), config, chosen, [note, *null_note(model, chosen)])


@contextmanager
def _one_sentence_about(source: str, weights: Path | None, image_size: int | None) -> Iterator[None]:
    """Turn whatever the network, a file or a check of timm's ends in into a sentence."""
    try:
        yield
    except Exception as error:
        reason = one_line(error)[:LONGEST].rstrip(".") or type(error).__name__
        local = weights is not None or source.startswith(LOCAL)
        if not local and _is_of_network(error):
            advice = "see that it exists and can be reached" if source.startswith(HUB) else f"or give {source}=FILE"
            raise ConfigurationError(
                f"the weights of {source} cannot be fetched ({reason}): run once where there is a network, {advice}."
            ) from error
        place = source.removeprefix(LOCAL) if weights is None else f"{source.removeprefix(LOCAL)} with {weights}"
        size = "" if image_size is None else f" at {image_size} px"
        raise ConfigurationError(
            f"timm cannot build the encoder {place}{size} ({reason}): check name, weights and image size."
        ) from error


@contextmanager
def _without_warnings_of_the_hub() -> Iterator[None]:
    """Leave out a dozen lines on attempts to connect: one sentence says how it ended."""
    hub = logging.getLogger("huggingface_hub")
    before = hub.level
    hub.setLevel(logging.ERROR)
    try:
        yield
    finally:
        hub.setLevel(before)


def _is_of_network(error: BaseException) -> bool:
    """Recognise errors of the hub and of downloads, which share no class."""
    return isinstance(error, OSError) or type(error).__module__.startswith(("huggingface_hub", "httpx", "httpcore"))
