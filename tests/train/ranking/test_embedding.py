"""An encoder gives one vector a picture; an embedding that is not finite is a row with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.embedding import embedding_size
from tests.train.ranking.tiny import encoder_of, layers, pictures, rank_quietly, tiny_encoder, values


class Answering(nn.Module):
    """Gives whatever a function makes of the batch."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> object:
        """Answer."""
        return self.answer(x)  # type: ignore[operator]  # a function


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x, r"gives \(1, 3, 8, 8\)"),
        (lambda x: x.flatten(2), r"gives \(1, 3, 64\)"),
        (lambda x: (x.flatten(1),), "of type tuple"),
        (lambda x: {"z": x}, "of type dict"),
        (lambda x: x.flatten(1).long(), "torch.int64"),
        (lambda x: x.reshape(7), "cannot embed a picture"),
    ],
)
def test_anything_but_one_vector_a_picture_is_refused(answer: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        embedding_size(encoder_of(Answering(answer)))


def test_the_size_is_found() -> None:
    assert embedding_size(tiny_encoder(9)) == 9


def test_embeddings_that_are_not_finite_are_rows_with_a_reason(tmp_path: Path) -> None:
    plain = layers(4)

    def sometimes(x: Tensor) -> Tensor:
        z = plain(x)
        return torch.where(x.flatten(1)[:, :1] > 0.5, torch.full_like(z, torch.nan), z)

    images = pictures(tmp_path / "photos", 40)
    table = rank_quietly(images, tmp_path / "ranked", encoder=encoder_of(Answering(sometimes)))
    missing = [reason == "its embedding is not finite" for reason in table["reason"].to_pylist()]
    assert 0 < sum(missing) < 40
    for name in ("log_density", "embedding_log_density", "mahalanobis", "nearest_distance"):
        assert [value is None for value in table[name].to_pylist()] == missing
    assert values(table, "compressed_size").min() > 0
