"""Prediction losses against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine

from jepa_train.errors import ConfigurationError
from jepa_train.objectives import TOKEN_LOSSES, TokenLoss, centre_prediction, embedding_prediction, token_prediction


def normalised(target: np.ndarray) -> np.ndarray:
    return (target - target.mean(-1, keepdims=True)) / np.sqrt(target.var(-1, keepdims=True) + 1e-5)


def oracle(predicted: np.ndarray, target: np.ndarray, loss: TokenLoss) -> float:
    if loss == "cosine":
        pairs = zip(predicted.reshape(-1, 6), target.reshape(-1, 6), strict=True)
        return float(np.mean([cosine(*pair) for pair in pairs]))
    error = np.abs(predicted - normalised(target))
    if loss == "smooth_l1":
        error = np.sqrt(2.0 * np.where(error < 1.0, error**2 / 2.0, error - 0.5))
    return float(np.mean(error**2 / (2.0 if loss == "smooth_l1" else 1.0)))


@pytest.mark.parametrize("loss", TOKEN_LOSSES)
def test_token_prediction_is_its_formula_and_detaches_the_target(loss: TokenLoss) -> None:
    predicted, target = 2.0 * torch.randn(2, 3, 4, 6).double(), 3.0 * torch.randn(2, 3, 4, 6).double() + 1.0
    predicted.requires_grad_()
    target.requires_grad_()
    value = token_prediction(predicted, target, loss=loss)
    assert float(value.detach()) == pytest.approx(oracle(predicted.detach().numpy(), target.detach().numpy(), loss))
    value.backward()
    assert target.grad is None
    assert predicted.grad is not None


def test_token_prediction_is_smooth_l1_by_default() -> None:
    predicted, target = torch.randn(2, 5, 6), torch.randn(2, 5, 6)
    assert torch.equal(token_prediction(predicted, target), token_prediction(predicted, target, loss="smooth_l1"))


def test_a_perfect_prediction_costs_nothing() -> None:
    target = 3.0 * torch.randn(2, 5, 6).double() + 1.0
    white = torch.from_numpy(normalised(target.numpy()))
    for loss in ("smooth_l1", "l2"):
        assert float(token_prediction(white, target, loss=loss)) == pytest.approx(0.0, abs=1e-12)
    assert float(token_prediction(0.1 * target, target, loss="cosine")) == pytest.approx(0.0, abs=1e-12)
    assert float(token_prediction(-target, target, loss="cosine")) == pytest.approx(2.0)


@pytest.mark.parametrize("loss", TOKEN_LOSSES)
def test_gradient_is_finite_at_zero_tokens(loss: TokenLoss) -> None:
    predicted = torch.zeros(2, 5, 6, requires_grad=True)
    token_prediction(predicted, torch.zeros(2, 5, 6), loss=loss).backward()
    assert predicted.grad is not None
    assert torch.isfinite(predicted.grad).all()


def test_embedding_prediction_has_gradient_on_both_sides() -> None:
    predicted, z = torch.randn(5, 3, 4).double().requires_grad_(), torch.randn(5, 4).double().requires_grad_()
    loss = embedding_prediction(predicted, z)
    pairs = [(predicted[b, m].detach().numpy(), z[b].detach().numpy()) for b in range(5) for m in range(3)]
    assert float(loss.detach()) == pytest.approx(np.mean([np.mean((a - b) ** 2) for a, b in pairs]))
    loss.backward()
    assert predicted.grad is not None
    assert z.grad is not None
    torch.testing.assert_close(predicted.grad.sum(1), -z.grad)


def test_prediction_losses_stay_in_float32_under_autocast() -> None:
    predicted, z = torch.randn(4, 3, 6), torch.randn(4, 6)
    plain = [token_prediction(predicted, predicted.flip(0), loss=loss) for loss in TOKEN_LOSSES]
    plain.append(embedding_prediction(predicted, z))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = [token_prediction(predicted, predicted.flip(0), loss=loss) for loss in TOKEN_LOSSES]
        cast.append(embedding_prediction(predicted, z))
    assert all(torch.equal(*pair) for pair in zip(cast, plain, strict=True))


def test_half_precision_tokens_are_compared_in_float32() -> None:
    predicted, target = torch.randn(4, 3, 6).bfloat16(), torch.randn(4, 3, 6).bfloat16()
    for loss in TOKEN_LOSSES:
        expected = token_prediction(predicted.float(), target.float(), loss=loss)
        assert torch.equal(token_prediction(predicted, target, loss=loss), expected)


def test_unknown_token_loss_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="smooth_l1, l2, cosine"):
        token_prediction(torch.ones(1, 2), torch.ones(1, 2), loss="l1")  # type: ignore[arg-type]  # the point of it


@pytest.mark.parametrize(("views", "num_global"), [(2, 2), (5, 2), (3, 1)])
def test_the_distance_from_the_centre_is_a_loop_written_out(views: int, num_global: int) -> None:
    z = torch.randn(views, 7, 3, dtype=torch.float64)
    total = 0.0
    for view in range(views):
        for sample in range(7):
            for coordinate in range(3):
                centre = sum(float(z[number, sample, coordinate]) for number in range(num_global)) / num_global
                total += (float(z[view, sample, coordinate]) - centre) ** 2
    assert float(centre_prediction(z, num_global=num_global)) == pytest.approx(total / (views * 7 * 3), rel=1e-12)
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: centre_prediction(z, num_global=num_global), z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert centre_prediction(z.bfloat16(), num_global=num_global).dtype == torch.float32
