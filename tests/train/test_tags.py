"""The page of what the ``train/`` tags mean."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jepa_train import JEPA, tags
from jepa_train.data import MixtureDataModule

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_every_tag_of_training_is_explained(tmp_path: Path) -> None:
    model = JEPA(
        image_size=8,
        channels=1,
        patch_size=2,
        encoder_overrides={"embed_dim": 16, "depth": 1, "num_heads": 2},
        embedding_size=2,
        predictor_width=16,
        predictor_depth=1,
        spectral_weight=0.1,
        min_context=1,
    )
    logger = TensorBoardLogger(tmp_path, name="", version="run")
    trainer = pl.Trainer(
        max_epochs=1,
        log_every_n_steps=1,
        logger=logger,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, MixtureDataModule(image_size=8, num_train=64, num_probe=16, batch_size=32))
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    logged = events.Tags()
    names = {tag for tag in (*logged["scalars"], *logged["images"]) if tag.startswith("train/")}
    assert names == tags.MEANINGS.keys()
    (page,) = events.Tensors("train/tags/text_summary")
    assert page.tensor_proto.string_val[0].decode() == tags.explanation()


def test_the_documentation_has_the_same_table() -> None:
    assert tags.explanation() in (DOCS / "training.md").read_text()
