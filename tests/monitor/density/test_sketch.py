"""The sketch against the exact score, and its refusals."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from jepa_monitor import Sketch, jacobian_gram, jepa_score, log_volume
from jepa_monitor.density.densities import GaussianDensity


def make_encoder(size: int = 24) -> nn.Module:
    return nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, size))


def inputs(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = 1.0 + 2.0 * torch.rand(count, 1, generator=generator)
    return scale * torch.randn(count, 32, generator=generator)


def spearman(a: Tensor, b: Tensor) -> float:
    return float(stats.spearmanr(a, b).statistic)


def test_ranks_held_out_samples_and_knows_how_well() -> None:
    encode, held_out = make_encoder(), inputs(300, 1)
    sketch = Sketch.fit(encode, inputs(64, 0), 8)
    assert sketch.rows.shape == (8, 24)
    reached = spearman(sketch.score(encode, held_out), jepa_score(encode, held_out))
    assert reached > 0.9
    assert sketch.cross_validated_spearman == pytest.approx(reached, abs=0.1)


def test_all_rows_are_exact() -> None:
    encode, held_out = make_encoder(8), inputs(100, 1)
    sketch = Sketch.fit(encode, inputs(48, 0), 8)
    assert spearman(sketch.score(encode, held_out), jepa_score(encode, held_out)) > 0.999


def test_learned_rows_beat_random_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    encode, held_out = make_encoder(), inputs(300, 1)
    exact = jepa_score(encode, held_out)
    learned = spearman(Sketch.fit(encode, inputs(64, 0), 3).score(encode, held_out), exact)
    monkeypatch.setattr("jepa_monitor.density.sketch.STEPS", 0)
    random = spearman(Sketch.fit(encode, inputs(64, 0), 3).score(encode, held_out), exact)
    assert learned > random


def test_any_function_of_the_gram_can_be_estimated() -> None:
    encode, held_out = make_encoder(), inputs(200, 1)
    whitener = GaussianDensity.fit(encode(inputs(200, 2))).whitener

    def top_volume(gram: Tensor) -> Tensor:
        return log_volume(whitener @ gram @ whitener.T, convention="rank", rank=4)

    sketch = Sketch.fit(encode, inputs(64, 0), 8, target=top_volume)
    assert spearman(sketch.score(encode, held_out), top_volume(jacobian_gram(encode, held_out))) > 0.9


def test_a_null_direction_does_not_disturb() -> None:
    encode = nn.Sequential(make_encoder(), nn.LayerNorm(24))
    held_out = inputs(300, 1)
    sketch = Sketch.fit(encode, inputs(64, 0), 8)
    assert spearman(sketch.score(encode, held_out), jepa_score(encode.double(), held_out.double())) > 0.8


def test_refuses_an_encoder_that_was_trained_on() -> None:
    encode = make_encoder()
    sketch = Sketch.fit(encode, inputs(32, 0), 4)
    sketch.score(encode, inputs(3, 1))
    optimizer = torch.optim.SGD(encode.parameters(), lr=1e-3)
    encode(inputs(8, 2)).square().mean().backward()
    optimizer.step()
    with pytest.raises(ValueError, match="fit it again"):
        sketch.score(encode, inputs(3, 1))
    with pytest.raises(ValueError, match="fit it again"):
        sketch.score(make_encoder(5), inputs(3, 1))


def test_refuses_what_cannot_be_fitted() -> None:
    encode = make_encoder()
    with pytest.raises(ValueError, match="at least 16"):
        Sketch.fit(encode, inputs(15, 0), 4)
    spoilt = inputs(20, 0)
    spoilt[2:10] = math.nan
    with pytest.raises(ValueError, match="12 of 20"):
        Sketch.fit(encode, spoilt, 4)
    for m in (1, 25):
        with pytest.raises(ValueError, match="from 2 to K = 24"):
            Sketch.fit(encode, inputs(20, 0), m)


def test_constant_scores_are_nan_and_spoilt_samples_stay_alone() -> None:
    linear = nn.Linear(32, 6)
    assert math.isnan(
        Sketch.fit(linear, inputs(20, 0), 3, target=lambda gram: gram.new_zeros(len(gram))).cross_validated_spearman
    )
    encode, x = make_encoder(), inputs(4, 1)
    sketch = Sketch.fit(encode, inputs(20, 0), 3)
    clean = sketch.score(encode, x)
    x[2] = math.nan
    scores = sketch.score(encode, x)
    assert math.isnan(float(scores[2]))
    torch.testing.assert_close(scores[[0, 1, 3]], clean[[0, 1, 3]])


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_same_where_gradients_are_off_and_draws_nothing(context: type) -> None:
    encode, reference, x = make_encoder(), inputs(20, 0), inputs(4, 1)
    expected = Sketch.fit(encode, reference, 3).score(encode, x)
    before = torch.get_rng_state()
    with context():
        scores = Sketch.fit(encode, reference, 3).score(encode, x)
    assert torch.equal(scores, expected)
    assert torch.equal(torch.get_rng_state(), before)
