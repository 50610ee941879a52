"""Options that do nothing are named where a user meant them, and not where an overlay left them out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from jepa_train.cli import CONFIGS, main
from jepa_train.commands.idle import idle_options
from tests.train.helpers import TINY

SETTINGS = {"token_weight": 0.0, "embedding_weight": 0.0, "num_targets": 9, "projector_hidden": 0}
LEFT_OUT = {"num_targets": ("token_weight", "embedding_weight"), "projector_batch_norm": ("projector_hidden",)}
BASE, OVERLAY = ["num_targets", "noise"], ["token_weight", "embedding_weight"]


@pytest.mark.parametrize(
    ("given", "is_named"),
    [
        ([[]], False),  # both by the default config
        ([OVERLAY, []], False),
        ([BASE, OVERLAY, []], False),
        ([["num_targets", "token_weight"], ["embedding_weight"], []], False),
        ([[*BASE, *OVERLAY, "projector_hidden"], []], False),  # all, as the record of a run has
        ([OVERLAY, BASE, []], True),
        ([[*BASE, *OVERLAY], []], True),
        ([OVERLAY, ["num_targets"]], True),
        ([["num_targets"]], True),
    ],
    ids=str,
)
def test_what_is_given_with_or_after_its_reason_is_named(given: list[list[str]], is_named: bool) -> None:
    sentence = "Settings that do nothing: num_targets with token_weight 0.0, embedding_weight 0.0."
    assert idle_options(LEFT_OUT, given, SETTINGS) == ([sentence] if is_named else [])


def test_all_are_named_in_one_sentence() -> None:
    (sentence,) = idle_options(LEFT_OUT, [list(LEFT_OUT)], SETTINGS)
    assert sentence.endswith(" embedding_weight 0.0; projector_batch_norm with projector_hidden 0.")


def options(folder: Path) -> list[str]:
    typed = [word for word in TINY if not word.startswith("--model.predictor")]
    return [*typed, "--trainer.max_epochs=1", f"--trainer.logger.save_dir={folder}"]


@pytest.mark.slow
def test_the_command_line_names_what_was_typed_and_no_more(tmp_path: Path) -> None:
    """Predictor and masks are set by the mixture beneath the overlay, and by the record of the run that it was."""
    lejepa = ["-c", str(CONFIGS / "objective" / "lejepa.yaml")]
    with pytest.warns(UserWarning, match=r"^Settings that do nothing: min_context with token_weight 0\.0, embedding"):
        main(["fit", *lejepa, *options(tmp_path), "--model.min_context=9"])
    record = tmp_path / "mixture" / "lejepa" / "version_0" / "config.yaml"
    assert yaml.safe_load(record.read_text())["model"]["min_context"] == 9
    main(["fit", *lejepa, *options(tmp_path)])  # where a warning would be an error
    main(["fit", "-c", str(record), *options(tmp_path)])
