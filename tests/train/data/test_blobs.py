"""The renderer: what each factor does to an image, and the volume of content by other ways."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from jepa_train.data.blobs import CENTERS, NUISANCES, SCALES, log_content_volume, render_blobs

SIZE = 24
render = partial(render_blobs, image_size=SIZE)


def content_of(*physical: float) -> Tensor:
    """Content (1, 4) of a log width, log aspect, angle and bend."""
    centers, scales = torch.tensor(CENTERS, dtype=torch.float64), torch.tensor(SCALES, dtype=torch.float64)
    return ((torch.tensor(physical, dtype=torch.float64) - centers) / scales)[None]


def nuisance_of(**values: float) -> Tensor:
    """Nuisance (1, 6), 0 where nothing is said."""
    names = ("x", "y", "contrast", "level", "slope_x", "slope_y")
    return torch.tensor([[values.get(name, 0.0) for name in names]], dtype=torch.float64)


def drawn(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    content = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return content, 0.2 * torch.rand(count, NUISANCES, generator=generator, dtype=torch.float64) - 0.1


def moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (2,) and covariance (2, 2) of an image (1, S, S) taken as a density over places x, y."""
    axis = (torch.arange(SIZE, dtype=torch.float64) + 0.5) / SIZE - 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    places, weights = torch.stack([x.flatten(), y.flatten()], 1), image.flatten() / image.sum()
    mean = weights @ places
    return mean, (places - mean).T @ (weights[:, None] * (places - mean))


def test_without_a_bend_a_blob_is_a_gaussian_of_that_width_aspect_and_angle() -> None:
    width, aspect, angle = 0.08, 1.6, 0.5
    image = render(content_of(math.log(width), math.log(aspect), angle, 0.0), nuisance_of(x=0.05, y=-0.1))[0]
    mean, covariance = moments(image)
    torch.testing.assert_close(mean, torch.tensor([0.05, -0.1], dtype=torch.float64), rtol=0.0, atol=1e-3)
    along = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    across = torch.tensor([-along[1], along[0]], dtype=torch.float64)
    assert along @ covariance @ along == pytest.approx(width**2 * aspect, rel=0.02)
    assert across @ covariance @ across == pytest.approx(width**2 / aspect, rel=0.02)
    assert along @ covariance @ across == pytest.approx(0.0, abs=1e-4)


def test_the_energy_of_a_blob_does_not_show_its_width() -> None:
    wide, narrow = (render(content_of(math.log(width), 0.0, 0.3, 0.0), nuisance_of()) for width in (0.1, 0.07))
    assert wide.square().sum().item() == pytest.approx(narrow.square().sum().item(), rel=1e-3)
    assert wide.sum().item() > 1.3 * narrow.sum().item()
    assert render(content_of(*CENTERS), nuisance_of(x=0.5 / SIZE, y=0.5 / SIZE)).max().item() == pytest.approx(1.0)


def test_a_bend_moves_the_ends_and_not_the_middle_of_mass() -> None:
    straight, bent = (render(content_of(math.log(0.08), 0.8, 0.0, bend), nuisance_of())[0] for bend in (0.0, 0.4))
    torch.testing.assert_close(moments(bent)[0], moments(straight)[0], rtol=0.0, atol=2e-3)
    assert moments(bent)[1][1, 1] > 1.5 * moments(straight)[1][1, 1]
    torch.testing.assert_close(render(content_of(math.log(0.08), 0.8, 0.0, -0.4), nuisance_of())[0], bent.flip(1))


def test_nuisance_is_a_contrast_a_plane_and_a_place() -> None:
    content, _ = drawn(1)
    plain = render(content, nuisance_of())
    axis = (torch.arange(SIZE, dtype=torch.float64) + 0.5) / SIZE - 0.5
    expected = math.exp(0.3) * plain + 0.1 + 0.2 * axis - 0.3 * axis[:, None]
    shown = render(content, nuisance_of(contrast=0.3, level=0.1, slope_x=0.2, slope_y=-0.3))
    torch.testing.assert_close(shown, expected)
    moved = render(content, nuisance_of(x=2 / SIZE, y=-3 / SIZE))
    torch.testing.assert_close(moved[..., :-3, 2:], plain[..., 3:, :-2])


def test_factors_that_are_left_out_stay_at_their_centre() -> None:
    content, nuisance = drawn(5)
    few = render(content[:, :2], nuisance)
    torch.testing.assert_close(render(torch.cat([content[:, :2], torch.zeros(5, 2)], 1), nuisance), few)
    assert render(content.float(), nuisance.float()).dtype == torch.float32
    single = render(content.float(), nuisance.float())
    torch.testing.assert_close(single, render(content, nuisance).float(), rtol=0.0, atol=1e-5)


def test_the_volume_of_content_is_that_of_finite_differences_beside_nuisance() -> None:
    content, nuisance = drawn(3)
    step, both = 1e-5, torch.cat([content, nuisance], 1)
    columns = [
        (render(*(both + move).split([4, NUISANCES], 1)) - render(*(both - move).split([4, NUISANCES], 1))) / 2 / step
        for move in step * torch.eye(4 + NUISANCES, dtype=torch.float64)
    ]
    jacobian = torch.stack(columns, -1).flatten(1, 3)
    of_content, of_nuisance = jacobian.split([4, NUISANCES], 2)
    basis = torch.linalg.qr(of_nuisance).Q
    beside = of_content - basis @ (basis.mT @ of_content)
    expected = torch.linalg.svdvals(beside).log().sum(1)
    torch.testing.assert_close(log_content_volume(render, content, nuisance), expected, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("num_nuisances", [0, 2])
def test_the_volume_of_a_linear_renderer_is_a_determinant(num_nuisances: int) -> None:
    generator = torch.Generator().manual_seed(1)
    shows = torch.linalg.qr(torch.randn(9, 9, generator=generator, dtype=torch.float64)).Q
    mixes = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    # content also leaks into the directions of nuisance, which must not count
    a, b = shows[:, :3] @ mixes + shows[:, 3:5] @ torch.ones(2, 3, dtype=torch.float64), shows[:, 3 : 3 + num_nuisances]
    content, nuisance = torch.zeros(300, 3, dtype=torch.float64), torch.zeros(300, num_nuisances, dtype=torch.float64)
    found = log_content_volume(lambda y, n: y @ a.T + n @ b.T, content, nuisance)
    expected = torch.logdet(a.T @ a) / 2 if num_nuisances == 0 else mixes.det().abs().log()
    torch.testing.assert_close(found, expected.expand(300))
