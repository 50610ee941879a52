"""A renderer of curved blobs, differentiable in all that it shows, and the volume it spans.

Content is the shape: log width, log aspect, angle and bend. Nuisance is what else an image shows: the shape's place,
its contrast, and a background of a level and two slopes. Places and lengths are shares of the image side, from -1/2
to 1/2 about its centre.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacfwd, vmap

CENTERS = (math.log(0.09), 1.2, 0.0, 0.0)  # log width, log aspect, angle in radians, bend
SCALES = (0.15, 0.27, 0.17, 0.17)  # of one unit of content
MAX_CONTENT = len(CENTERS)
NUISANCES = 6  # place along x and y, log contrast, level, slopes along x and y
CHUNK = 256  # samples whose Jacobians are in memory at once

Renderer = Callable[[Tensor, Tensor], Tensor]


def render_blobs(content: Tensor, nuisance: Tensor, *, image_size: int) -> Tensor:
    """Render images in the precision of their content.

    Args:
        content: (N, F) with F from 1 to 4, in units of ``SCALES`` from ``CENTERS``; factors beyond F stay at their
            centre.
        nuisance: (N, 6) place along x and y, log contrast, level, and slopes along x and y, all 0 for a blob in the
            middle of an image of zeros, of height 1 at the central width and else of the same sum of squares.
        image_size: S, height and width in pixels.

    Returns:
        (N, 1, S, S).
    """
    factors = content.shape[1]
    centers, scales = (content.new_tensor(values) for values in (CENTERS, SCALES))
    shapes = torch.cat([content * scales[:factors] + centers[:factors], centers[factors:].expand(len(content), -1)], 1)
    log_width, log_aspect, angle, bend = shapes[..., None, None].unbind(1)
    place_x, place_y, log_contrast, level, slope_x, slope_y = nuisance[..., None, None].unbind(1)
    axis = (torch.arange(image_size, dtype=content.dtype, device=content.device) + 0.5) / image_size - 0.5
    y, x = axis[:, None], axis
    from_x, from_y = x - place_x, y - place_y
    along = (angle.cos() * from_x + angle.sin() * from_y) / (log_width + log_aspect / 2.0).exp()
    across = (angle.cos() * from_y - angle.sin() * from_x) / (log_width - log_aspect / 2.0).exp()
    # a parabola whose mean over the blob is 0, so that a bend does not move it
    bent = across - bend * log_aspect.exp() * (along.square() - 1.0)
    # the narrower the higher: a width that changed the energy of an image could be read off it by any model of pixels
    log_height = log_contrast + centers[0] - log_width
    blob = torch.exp(log_height - 0.5 * (along.square() + bent.square()))
    return (blob + level + slope_x * x + slope_y * y).unsqueeze(1)


def log_content_volume(render: Renderer, content: Tensor, nuisance: Tensor) -> Tensor:
    """Log volume that a renderer gives to a unit of content, beside all that nuisance can change.

    Half the log determinant of J_c^T P J_c, with the Jacobian J_c (D, F) of an image with respect to its content, and
    P the projection onto the complement of the directions of nuisance, J_n (D, M). By Schur's complement this is
    half of log det [J_c J_n]^T [J_c J_n] - log det J_n^T J_n.

    Args:
        render: maps content (N, F) and nuisance (N, M) to images (N, ...), each by itself.
        content, nuisance: float64.

    Returns:
        (N,) nats, float64; -inf where some change of content looks like one of nuisance.
    """

    factors = content.shape[1]

    def one(both: Tensor) -> Tensor:
        return render(both[None, :factors], both[None, factors:]).flatten()

    found = []
    for both in torch.cat([content, nuisance], dim=1).split(CHUNK):
        jacobian = vmap(jacfwd(one))(both)
        gram = jacobian.mT @ jacobian
        found.append(0.5 * (torch.logdet(gram) - torch.logdet(gram[:, factors:, factors:])))
    return torch.cat(found)
