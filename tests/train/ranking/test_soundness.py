"""Checks of an encoder before the first image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jepa_train.errors import ConfigurationError
from jepa_train.ranking.soundness import check_derivative, check_forward, check_weights


class Function(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)  # type: ignore[operator, no-any-return]  # a module's attribute may be anything


def test_weights_that_are_not_finite_are_named() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    check_weights("e", module)
    module[1].running_mean[0] = torch.nan
    with pytest.raises(ConfigurationError, match=r"weights of e are not finite \(1.running_mean\): choose others"):
        check_weights("e", module)
    with torch.no_grad():
        module[0].weight[0] = torch.inf
    with pytest.raises(ConfigurationError, match=r"\(0.weight, 1.running_mean\)"):
        check_weights("e", module)


def test_a_mask_of_infinities_is_no_fault() -> None:
    module = nn.Linear(2, 2)
    module.register_buffer("mask", torch.full((2, 2), -torch.inf))
    check_weights("e", module)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda images: images.flatten(), r"makes a tensor of shape \(96,\) of 2 images, not one vector of each"),
        (lambda images: images[:1].flatten(1), r"makes a tensor of shape \(1, 48\)"),
        (lambda images: images.flatten(1).log(), r"makes NaN or infinity of a plain image"),
        (lambda images: images.flatten(1) - images.flatten(1).mean(0), r"embeds an image differently in a batch"),
        (lambda images: images @ images.new_zeros(5, 5), r"cannot encode images of 3 x 4 x 4 \("),
    ],
)
def test_what_makes_no_vector_of_an_image_is_refused(function: object, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        check_forward("e", Function(function), (3, 4, 4))


def test_the_size_of_the_embedding_is_returned() -> None:
    assert check_forward("e", Function(lambda images: images.flatten(1)), (3, 4, 4)) == 48


def flat(images: Tensor) -> Tensor:
    return images.flatten(1)


@pytest.mark.parametrize(
    "function",
    [
        torch.no_grad()(flat),
        torch.inference_mode()(flat),
        lambda images: flat(images).detach(),
        lambda images: torch.from_numpy(flat(images).numpy()),
        lambda images: torch.from_numpy(flat(images).detach().numpy()),
        lambda images: torch.tensor(flat(images).tolist()),
    ],
)
def test_an_encoder_without_derivative_is_noticed(function: object) -> None:
    with pytest.raises(ConfigurationError, match="volumes need the derivative of e, which has none"):
        check_derivative("e", Function(function), torch.zeros(3, 4, 4), 48)


def test_an_encoder_with_a_derivative_passes() -> None:
    with torch.inference_mode():
        check_derivative("e", Function(flat), torch.zeros(3, 4, 4), 48)
