"""The card of an exported encoder: what it is, how to load it and feed it, and what was measured."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import timm
import yaml
from torch import nn

from jepa_monitor.history import History
from jepa_train.checkpoints.compatibility import model_arguments
from jepa_train.commands.run_folder import config_beside, read_yaml
from jepa_train.data import transforms
from jepa_train.models.encoder import TimmEncoder

Which = Literal["target", "context"]
ENCODERS = {
    "target": "the target encoder (EMA of the context encoder), which is the one that was measured",
    "context": "the context encoder, which the gradient trained",
}


def model_card(
    checkpoint: Mapping[str, Any],
    ckpt_path: Path,
    weights_name: str,
    *,
    which: Which,
    encoder: TimmEncoder,
    projector: nn.Sequential | None,
    projector_file: str,
    prepared: Mapping[str, Any],
) -> str:
    """Write Markdown with a YAML head, as model hubs read it.

    Args:
        checkpoint: what was exported.
        ckpt_path: where it lies, in the folder of its run.
        weights_name: file of the encoder's weights.
        which, encoder: the branch.
        projector: its projector, if it has one.
        projector_file: where that is written, seen from the card.
        prepared: what was done to the images, see ``ImageDataModule.preparation``.
    """
    settings, features = encoder.timm_arguments, encoder.mean_in_timm
    size, channels = encoder.image_size, encoder.channels
    head = {"library_name": "timm", "pipeline_tag": "image-feature-extraction", "tags": ["timm", "jepa"]}
    sections = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {encoder.name}, trained as a JEPA",
        f"This is {ENCODERS[which]}, after {checkpoint.get('global_step')} optimizer steps "
        f"(in epoch {checkpoint.get('epoch')}, counted from 0). It maps images ({channels}, {size}, {size}), prepared "
        f"as below, to their mean token, {encoder.width} numbers. Written by jepa-train from `{ckpt_path.name}`.",
        f"## How to load it\n\nWith timm {timm.__version__}, in the folder of this file:\n\n"
        + _python(
            'import timm\n\nmodel = timm.create_model("local-dir:.", pretrained=True).eval()  # reads config.json\n'
        )
        + "\n\nor, without that file, with every argument that it needs:\n\n"
        + _python(
            "import timm\nimport torch\n\n"
            f'model = timm.create_model(\n    "{encoder.name}",\n    checkpoint_path="{weights_name}",\n'
            + "".join(f"    {key}={value!r},\n" for key, value in settings.items())
            + ").eval()\n"
            f"images = torch.zeros(1, {channels}, {size}, {size})\n"
            f"with torch.no_grad():\n    features = {features}  # (1, {encoder.width})\n"
        ),
        f"## Images\n\n{_images(prepared)}",
        *([f"## Embedding\n\n{_embedding(projector, projector_file, features)}"] if projector is not None else []),
        f"## Data\n\n{_data_settings(checkpoint, ckpt_path)}",
        f"## Training\n\n{_yaml(model_arguments(checkpoint))}",
        f"## Measurements\n\n{_measurements(checkpoint, which)}",
    ]
    return "\n\n".join(sections) + "\n"


def _images(prepared: Mapping[str, Any]) -> str:
    """Describe how to prepare images: by timm's transform, and before it, for files, as this package did."""
    if not prepared:
        return (
            "Not recorded: how images were prepared. config.json does not say it either, and timm would take ImageNet's"
            " values."
        )
    transform = (
        "from timm.data import create_transform\n\ntransform = create_transform(\n"
        + "".join(f"    {key}={value!r},\n" for key, value in prepared["data_config"].items())
        + ")  # of config.json: create_transform(**resolve_data_config({}, model=model))\n"
    )
    if "background" not in prepared:
        return (
            "They were tensors, to which timm's transform does what the DataModule did (pixels in [0, 1], minus the "
            "mean, over the deviation):\n\n" + _python(transform)
        )
    functions = (transforms.upright, transforms.eight_bit, transforms.without_ends, transforms.to_rgb)
    return (
        "timm's transform does what the DataModule did to pictures in RGB of 8 bit:\n\n"
        + _python(transform)
        + "\n\nFiles that are something else were brought to that first, with `image = "
        + f'transform(without_ends(to_rgb(Image.open(path), "{prepared["background"]}")))`:\n\n'
        + _python(
            "import struct\n\nimport numpy as np\nfrom PIL import ExifTags, Image\n\n"
            + f"THINNEST = {transforms.THINNEST}\n\n\n"
            + "\n\n".join(inspect.getsource(function) for function in functions)
        )
    )


def _embedding(projector: nn.Sequential, projector_file: str, features: str) -> str:
    layers = "".join(f"    nn.{_plain_name(layer)}({layer.extra_repr()}),\n" for layer in projector)
    size = projector[-1].out_features
    return (
        f"The scores were measured on the embedding z, {size} numbers, that a projector makes of the mean token:\n\n"
        + _python(
            "from safetensors.torch import load_file\nfrom torch import nn\n\n"
            f"projector = nn.Sequential(\n{layers})\n"
            f'projector.load_state_dict(load_file("{projector_file}"))\n'
            f"projector.eval()  # embeddings = projector({features})\n"
        )
    )


def _plain_name(layer: nn.Module) -> str:
    """The name in ``torch.nn``: in evaluation mode, batch norm over processes is that of one."""
    names = [kind.__name__ for kind in type(layer).__mro__ if getattr(nn, kind.__name__, None) is kind]
    return str(names[0])


def _data_settings(checkpoint: Mapping[str, Any], ckpt_path: Path) -> str:
    saved = checkpoint.get("datamodule_hyper_parameters")
    if saved:
        return _yaml({name: value for name, value in saved.items() if name != "_instantiator"})
    run_config = config_beside(ckpt_path)
    if run_config is not None:
        return _yaml((read_yaml(run_config) or {})["data"])
    return "Not recorded: neither in the checkpoint nor in a config.yaml of its run."


def _measurements(checkpoint: Mapping[str, Any], which: Which) -> str:
    """Tables of the last values that the monitors of the run remembered, and when they were measured."""
    tables = []
    for key, state in checkpoint.get("callbacks", {}).items():
        if not key.startswith("JEPAScoreMonitor"):
            continue
        history = History()
        history.load_state_dict(state)
        # what was measured before training is not of these weights
        trained = [place for place, step in enumerate(history.steps) if step or not checkpoint.get("global_step")]
        rows = []
        for tag, column in history.values.items():
            known = [place for place in trained if not math.isnan(column[place])]
            if known:
                rows.append(f"| `{tag}` | {column[known[-1]]:.6g} | {history.steps[known[-1]]} |")
        if rows:
            tables.append(f"{key}:\n\n| tag | value | at step |\n|---|---|---|\n" + "\n".join(rows))
        elif len(history):
            tables.append(f"{key} measured the untrained encoder alone.")
    if not tables:
        return "None in the checkpoint."
    note = "They are of the target encoder with its projector, unless the monitor was set to another one"
    return "\n\n".join([*tables, f"{note}." if which == "target" else f"{note}; this file is the context encoder."])


def _python(code: str) -> str:
    return f"```python\n{code}```"


def _yaml(value: Any) -> str:
    plain = json.loads(json.dumps(value, default=str))  # tuples and paths become what YAML has names for
    return f"```yaml\n{yaml.safe_dump(plain, sort_keys=False)}```"
