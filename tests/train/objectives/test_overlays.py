"""Every pairing of objective, target and place trains, as overlays of a config."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
import yaml

from jepa_train.cli import CONFIGS, main
from jepa_train.objectives import ANTICOLLAPSE_NAMES

OVERLAYS = CONFIGS / "objective"
# beneath overlays, which leave some of it without a part: silently
SMALL_MODEL = """
model:
  encoder_overrides: {embed_dim: 32, depth: 1, num_heads: 2}
  predictor_width: 16
  predictor_depth: 1
  projector_hidden: 16
  sigreg_slices: 8
"""
CONTROLS = ("weight_decay", "spectral_norm", "i_jepa")
WHOLE = "lejepa"  # an objective without masks
MODIFIERS = {"ema_off", "no_stop_gradient", "on_tokens", "on_both", "tokens_l2", "tokens_cosine"}
TERMS = [name for name in ANTICOLLAPSE_NAMES if name != "none"]
PAIRINGS = [
    *product((*ANTICOLLAPSE_NAMES, *CONTROLS), ("", "ema_off")),
    *product(TERMS, ("", "ema_off"), ("on_tokens", "on_both")),
    *product((WHOLE,), ("", "vicreg", "barlow", "none")),
    *product(("sigreg",), ("tokens_l2", "tokens_cosine")),
    *product((*TERMS, "none"), ("no_stop_gradient",)),
]


def test_there_is_an_overlay_for_each() -> None:
    assert {path.stem for path in OVERLAYS.glob("*.yaml")} == {*ANTICOLLAPSE_NAMES, *CONTROLS, WHOLE} | MODIFIERS


@pytest.mark.parametrize("base", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_plain_i_jepa_is_that_over_every_config(base: Path) -> None:
    beneath, above = (yaml.safe_load(path.read_text()) for path in (base, OVERLAYS / "i_jepa.yaml"))
    model = beneath.get("model", {}) | above["model"]
    names = ("token_weight", "embedding_weight", "centre_weight")
    assert [model[name] for name in names] == [1.0, 0.0, 0.0]
    assert model["anticollapse"] == "none"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Nothing keeps the")  # of controls
@pytest.mark.parametrize("overlays", PAIRINGS, ids=lambda names: "-".join(filter(None, names)))
def test_every_pairing_trains_two_steps(
    overlays: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = tmp_path / "small.yaml"
    small.write_text(SMALL_MODEL)
    configs = [CONFIGS / "mixture.yaml", small, *(OVERLAYS / f"{name}.yaml" for name in overlays if name)]
    arguments = [word for config in configs for word in ("-c", str(config))]
    # the callbacks have tests of their own
    quick = ["--trainer.fast_dev_run=2", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    alone = ["--monitor=null", "--trainer.callbacks=[]", "--trainer.logger=false"]
    few = ["--data.num_train=128", "--data.num_probe=32", "--data.batch_size=64"]
    cli = main(["fit", *arguments, *quick, *alone, *few])
    assert cli.trainer.global_step == 2
    assert torch.isfinite(cli.trainer.callback_metrics["train/loss"])
    moved = any(
        not torch.equal(ours, theirs)
        for ours, theirs in zip(cli.model.online.parameters(), cli.model.target.parameters(), strict=True)
    )
    assert moved != bool({"ema_off", "no_stop_gradient", WHOLE} & set(overlays))
