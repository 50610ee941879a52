"""A trained encoder as a file that timm loads without this package, with a card that says what it is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import timm
import yaml
from safetensors.torch import save

from jepa_monitor.history import History
from jepa_train.checkpoints import (
    check_arguments,
    check_fits,
    is_sharded,
    model_arguments,
    read_checkpoint,
    without_fetching,
    written_whole,
)
from jepa_train.encoder import EmbeddingEncoder
from jepa_train.errors import ConfigurationError
from jepa_train.module import JEPA
from jepa_train.parsing import Parser
from jepa_train.run_config import config_beside, read_yaml

Which = Literal["target", "context"]
EXPORT_HELP = "One more subcommand: export, which writes the encoder of a checkpoint for timm (export --help)."
SUFFIX = ".safetensors"
CONFIG = "config.json"  # the name that timm looks for in a folder
ENCODERS = {
    "target": "the target encoder (EMA of the context encoder), which is the one that was measured",
    "context": "the context encoder, which the gradient trained",
}


def run_export(arguments: list[str]) -> None:
    """The subcommand ``export`` of the command line.

    Raises:
        ConfigurationError: for options that do not exist; see :func:`export`.
    """
    parser = Parser(prog="train.py export", description="Write the encoder of a checkpoint for timm.")
    parser.add_function_arguments(export, skip={"overwrite"}, as_positional=False)
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier export wrote")
    settings = parser.parse_args(arguments)
    written = export(**settings.as_dict())
    print(f"Wrote {', '.join(str(path) for path in written)}.")


def export(ckpt_path: Path, output: Path, which: Which = "target", overwrite: bool = False) -> list[Path]:
    """Write the Vision Transformer of a checkpoint as timm loads it, a ``config.json`` for timm, and a model card.

    Its output, ``vit(images)``, is the mean token (B, D) before the projector, as ``JEPA.features`` gives it.

    Args:
        ckpt_path: checkpoint of a run.
        output: file to write, ending in .safetensors, best in a folder of its own.
        which: the target encoder (EMA) or the context encoder.
        overwrite: replace what an earlier export wrote.

    Returns:
        the files: weights, timm's config, card.

    Raises:
        ConfigurationError: for a file that is no checkpoint of a JEPA, or a place that cannot be written to.
    """
    ckpt_path, output = Path(ckpt_path), Path(output)
    weights_file, config_file, card_file = output, output.with_name(CONFIG), output.with_suffix(".md")
    _check_place(output, [weights_file, config_file, card_file], overwrite=overwrite)
    if is_sharded(ckpt_path):
        raise ConfigurationError(
            f"{ckpt_path} is a folder, a sharded checkpoint, which export cannot read: save with the strategy's "
            "save_distributed_checkpoint: false, also when going on from this one."
        )
    checkpoint = read_checkpoint(ckpt_path)
    module = rebuilt(checkpoint, ckpt_path)
    branch: EmbeddingEncoder = module.target if which == "target" else module.online
    vit = branch.encoder.vit
    name, settings = branch.encoder.name, branch.encoder.timm_arguments
    config = timm_config(name, settings, width=vit.embed_dim)
    card = model_card(
        checkpoint, ckpt_path, weights_file.name, which=which, name=name, settings=settings, width=vit.embed_dim
    )
    weights = {key: weight.detach().contiguous() for key, weight in vit.state_dict().items()}
    # the card last: where it is, everything is
    for path, content in (
        (weights_file, save(weights, metadata={"format": "pt"})),
        (config_file, json.dumps(config, indent=2).encode()),
        (card_file, card.encode()),
    ):
        _write(path, content)
    return [weights_file, config_file, card_file]


def _write(path: Path, content: bytes) -> None:
    try:
        with written_whole(path) as file:
            file.write(content)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written ({error.strerror or error}): make room for it, or choose another --output."
        ) from error


def _check_place(output: Path, files: list[Path], *, overwrite: bool) -> None:
    if output.suffix != SUFFIX:
        raise ConfigurationError(f"--output {output} must end in {SUFFIX}.")
    if not output.parent.is_dir():
        try:
            output.parent.mkdir(parents=True)
        except OSError as error:
            raise ConfigurationError(
                f"the folder {output.parent} cannot be made ({error.strerror}): choose another --output."
            ) from error
    existing = [str(path) for path in files if path.exists()]
    if existing and not overwrite:
        raise ConfigurationError(f"{', '.join(existing)} exists already: add --overwrite, or choose another --output.")
    others = sorted(path.name for path in output.parent.glob(f"*{SUFFIX}") if path != output)
    if others:
        raise ConfigurationError(
            f"{output.parent} holds other weights ({others[0]}), between which timm could not tell: choose an --output "
            "in a folder of its own."
        )


def rebuilt(checkpoint: Mapping[str, Any], path: Path) -> JEPA:
    """The module of a checkpoint, in evaluation mode.

    Raises:
        ConfigurationError: if it is of another model.
    """
    check_arguments(checkpoint, path)
    weights = checkpoint["state_dict"]
    arguments = model_arguments(checkpoint)
    arguments |= without_fetching(arguments, weights)
    module = JEPA(**arguments)
    check_fits(module, weights, path)
    module.load_state_dict(weights)
    return module.eval()


def timm_config(name: str, settings: dict[str, Any], *, width: int) -> dict[str, Any]:
    """What ``timm.create_model("local-dir:FOLDER", pretrained=True)`` reads from ``config.json``."""
    size = settings["img_size"]
    return {
        "architecture": name,
        "num_classes": 0,
        "num_features": width,
        "global_pool": settings["global_pool"],
        "model_args": settings,
        "pretrained_cfg": {
            "architecture": name,
            "input_size": [settings["in_chans"], size, size],
            "fixed_input_size": True,
            "num_classes": 0,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


def model_card(
    checkpoint: Mapping[str, Any],
    ckpt_path: Path,
    weights_name: str,
    *,
    which: Which,
    name: str,
    settings: dict[str, Any],
    width: int,
) -> str:
    """Markdown with a YAML head, as model hubs read it."""
    size, channels = settings["img_size"], settings["in_chans"]
    head = {"library_name": "timm", "pipeline_tag": "image-feature-extraction", "tags": ["timm", "jepa"]}
    sections = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {name}, trained as a JEPA",
        f"This is {ENCODERS[which]}, after {checkpoint.get('global_step')} optimizer steps "
        f"(in epoch {checkpoint.get('epoch')}, counted from 0). It maps images ({channels}, {size}, {size}), in the "
        f"range of values that the DataModule below gives, to their mean token, {width} numbers. Written by jepa-train "
        f"from `{ckpt_path.name}`.",
        f"## How to load it\n\nWith timm {timm.__version__}, in the folder of this file:\n\n"
        + _python(f'import timm\n\nvit = timm.create_model("local-dir:.", pretrained=True).eval()  # reads {CONFIG}\n')
        + "\n\nor, without that file, with every argument that it needs:\n\n"
        + _python(
            "import timm\nimport torch\n\n"
            f'vit = timm.create_model(\n    "{name}",\n    checkpoint_path="{weights_name}",\n'
            + "".join(f"    {key}={value!r},\n" for key, value in settings.items())
            + ").eval()\n"
            f"with torch.no_grad():\n    features = vit(torch.zeros(1, {channels}, {size}, {size}))  # (1, {width})\n"
        ),
        f"## Data\n\n{_data_settings(checkpoint, ckpt_path)}",
        f"## Training\n\n{_yaml(model_arguments(checkpoint))}",
        f"## Measurements\n\n{_measurements(checkpoint, which)}",
    ]
    return "\n\n".join(sections) + "\n"


def _data_settings(checkpoint: Mapping[str, Any], ckpt_path: Path) -> str:
    saved = checkpoint.get("datamodule_hyper_parameters")
    if saved:
        return _yaml({name: value for name, value in saved.items() if name != "_instantiator"})
    run_config = config_beside(ckpt_path)
    if run_config is not None:
        return _yaml((read_yaml(run_config) or {})["data"])
    return "Not recorded: neither in the checkpoint nor in a config.yaml of its run."


def _measurements(checkpoint: Mapping[str, Any], which: Which) -> str:
    """Tables of the last values that the monitors of the run remembered."""
    tables = []
    for key, state in checkpoint.get("callbacks", {}).items():
        if not key.startswith("JEPAScoreMonitor"):
            continue
        history = History()
        history.load_state_dict(state)
        if not len(history):
            continue
        rows = [f"| `{tag}` | {value:.6g} |" for tag, value in history.last().items() if not math.isnan(value)]
        tables.append(f"{key}, at step {history.steps[-1]}:\n\n| tag | value |\n|---|---|\n" + "\n".join(rows))
    if not tables:
        return "None in the checkpoint."
    note = "They are of the target encoder with its projector, unless the monitor was set to another one"
    return "\n\n".join([*tables, f"{note}." if which == "target" else f"{note}; this file is the context encoder."])


def _python(code: str) -> str:
    return f"```python\n{code}```"


def _yaml(value: Any) -> str:
    plain = json.loads(json.dumps(value, default=str))  # tuples and paths become what YAML has names for
    return f"```yaml\n{yaml.safe_dump(plain, sort_keys=False)}```"
