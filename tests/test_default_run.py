"""A fraction of the default run already ranks better than before it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jepa_train.cli import main


@pytest.mark.slow
def test_two_of_five_epochs_of_the_default_run_learn_the_ranking(tmp_path: Path) -> None:
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    cli = main(["fit", "--trainer.max_epochs=2", f"--trainer.logger.save_dir={tmp_path}", *quiet])
    events = EventAccumulator(cli.trainer.log_dir).Reload()
    untrained, *_, trained = [event.value for event in events.Scalars("density/spearman")]
    gaussian = events.Scalars("density/spearman_gaussian")[-1].value
    assert untrained < 0.75
    assert gaussian < 0.75
    assert trained > untrained + 0.2
    assert trained > gaussian
    ratio = [event.value for event in events.Scalars("gaussianity/sliced_ep_ratio")]
    assert ratio[-1] < 0.5 * ratio[0]
