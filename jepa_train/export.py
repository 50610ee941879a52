"""Export of a trained encoder, as a file that timm loads without this package, with a model card beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from safetensors.torch import save
from torch import nn

from jepa_train.checkpoints.compatibility import (
    check_arguments,
    check_fits,
    data_state,
    model_arguments,
    without_fetching,
)
from jepa_train.checkpoints.files import is_sharded, read_checkpoint, written_whole
from jepa_train.commands.parsing import Parser
from jepa_train.errors import ConfigurationError
from jepa_train.model_card import Which, model_card
from jepa_train.models.encoder import EmbeddingEncoder, TimmEncoder, ViTEncoder
from jepa_train.models.projector import Projector
from jepa_train.module import JEPA

EXPORT_HELP = "One more subcommand: export, which writes the encoder of a checkpoint for timm (export --help)."
SUFFIX = ".safetensors"
CONFIG = "config.json"  # the name that timm looks for in a folder
LAST = "last"  # which other subcommands take for the newest checkpoint
PATH_OF_A_RUN = "give --ckpt_path RUN/checkpoints/last.ckpt, with the folder of a run"
PROJECTOR = "projector"  # a folder of its own: timm takes the first weights that it finds in the encoder's


def run_export(arguments: list[str]) -> None:
    """Run the subcommand ``export`` of the command line.

    Raises:
        ConfigurationError: for options that do not exist; see :func:`export`.
    """
    if any(word.startswith("-c") or word.split("=")[0] == "--config" for word in arguments):
        raise ConfigurationError(f"export takes no config, the checkpoint holds all settings: {PATH_OF_A_RUN}.")
    parser = Parser(prog="train.py export", description="Write the encoder of a checkpoint for timm.")
    parser.add_function_arguments(export, skip={"overwrite"}, as_positional=False)
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier export wrote")
    settings = parser.parse_args(arguments)
    written = export(**settings.as_dict())
    print(f"Wrote {', '.join(str(path) for path in written)}.")


def export(ckpt_path: Path, output: Path, which: Which = "target", overwrite: bool = False) -> list[Path]:
    """Write the encoder of a checkpoint as timm loads it, a ``config.json`` for timm, and a model card.

    The output of a Vision Transformer is the mean token (B, D) before the projector, as ``JEPA.features`` gives it; for
    other networks the card has the line that makes it of ``forward_features``. A model that has a projector has it
    written too, to ``projector/`` beside the encoder: of its output, the embedding z, are the scores. How images were
    prepared stands in ``config.json``, where ``timm.data.resolve_data_config`` finds it.

    Args:
        ckpt_path: checkpoint of a run.
        output: file to write, ending in .safetensors, best in a folder of its own.
        which: the target encoder (EMA) or the context encoder.
        overwrite: replace what an earlier export wrote.

    Returns:
        the files: weights, timm's config, card, and the projector's weights if there are any.

    Raises:
        ConfigurationError: for a file that is no checkpoint of a JEPA, an encoder that timm cannot build, or a place
            that cannot be written to.
    """
    ckpt_path, output = Path(ckpt_path), Path(output)
    weights_file, config_file, card_file = output, output.with_name(CONFIG), output.with_suffix(".md")
    projector_file = output.parent / PROJECTOR / output.name
    _check_is_a_file(ckpt_path)
    _check_place(output, [weights_file, config_file, card_file, projector_file], overwrite=overwrite)
    checkpoint = read_checkpoint(ckpt_path)
    module = rebuilt(checkpoint, ckpt_path)
    branch: EmbeddingEncoder = module.target if which == "target" else module.online
    _check_timm_builds(branch.encoder)
    prepared = data_state(checkpoint)[1]
    if not prepared:
        rank_zero_warn(
            f"The checkpoint {ckpt_path} does not say how images were prepared (an earlier version wrote it, or the "
            f"DataModule has no preparation()), and neither does {config_file}: timm would take ImageNet's values."
        )
    projector = branch.projector.layers if isinstance(branch.projector, Projector) else None
    card = model_card(
        checkpoint,
        ckpt_path,
        weights_file.name,
        which=which,
        encoder=branch.encoder,
        projector=projector,
        projector_file=f"{PROJECTOR}/{output.name}",
        prepared=prepared,
    )
    contents = {weights_file: _safetensors(branch.encoder.network)}
    if projector is not None:
        contents[projector_file] = _safetensors(projector)
    config = timm_config(branch.encoder, prepared.get("data_config", {}))
    if "background" in prepared:
        config["background"] = prepared["background"]  # which timm does not read, and ``rank`` does
    contents[config_file] = json.dumps(config, indent=2).encode()
    contents[card_file] = card.encode()  # the last: where it is, everything is
    for path, content in contents.items():
        _write(path, content)
    if projector is None:
        projector_file.unlink(missing_ok=True)  # of an earlier export
    return [weights_file, config_file, card_file, *([projector_file] if projector is not None else [])]


def _safetensors(module: nn.Module) -> bytes:
    weights = {name: weight.detach().contiguous() for name, weight in module.state_dict().items()}
    return bytes(save(weights, metadata={"format": "pt"}))


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        with written_whole(path) as file:
            file.write(content)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written ({error.strerror or error}): make room for it, or choose another --output."
        ) from error


def _check_is_a_file(ckpt_path: Path) -> None:
    if ckpt_path == Path(LAST) and not ckpt_path.exists():
        raise ConfigurationError(f"export does not know which run is the last: {PATH_OF_A_RUN}.")
    if is_sharded(ckpt_path):
        raise ConfigurationError(
            f"{ckpt_path} is a folder, a sharded checkpoint, which export cannot read: save with the strategy's "
            "save_distributed_checkpoint: false, also when going on from this one."
        )


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
            f"{output.parent} holds other weights ({others[0]}), and timm could not tell which to load: choose an "
            "--output in a folder of its own."
        )


def _check_timm_builds(encoder: TimmEncoder) -> None:
    if isinstance(encoder, ViTEncoder) and encoder.stem != "linear":
        raise ConfigurationError(
            "timm has no convolutional stem, so it could not load an export: use the checkpoint itself (with "
            "JEPA.load_from_checkpoint or rank), or train with stem linear."
        )


def rebuilt(checkpoint: Mapping[str, Any], path: Path) -> JEPA:
    """Rebuild the module of a checkpoint, in evaluation mode.

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


def timm_config(encoder: TimmEncoder, data_config: Mapping[str, Any]) -> dict[str, Any]:
    """Make the ``config.json`` that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` reads.

    Args:
        encoder: what is exported.
        data_config: arguments of ``timm.data.create_transform``, as ``resolve_data_config`` will give them back.
    """
    settings, size = encoder.timm_arguments, encoder.image_size
    published = encoder.network.pretrained_cfg
    return {
        "architecture": encoder.name,
        "num_classes": 0,
        "num_features": encoder.width,
        **({"global_pool": settings["global_pool"]} if "global_pool" in settings else {}),
        "model_args": settings,
        "pretrained_cfg": {
            **data_config,
            "architecture": encoder.name,
            "input_size": [encoder.channels, size, size],
            "fixed_input_size": "img_size" in settings,
            "num_classes": 0,
            "pool_size": None,
            "first_conv": published.get("first_conv"),
            "classifier": published.get("classifier"),
        },
    }
