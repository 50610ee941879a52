"""A measurement gives the pictures that its readings have data for, by tag."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from jepa_monitor.history import History
from jepa_monitor.pictures.illustrations import illustrate
from jepa_monitor.probe.facts import ProbeFacts
from jepa_monitor.probe.samples import Samples
from jepa_monitor.probe.shards import Shard
from jepa_monitor.probe.sources import Prepared
from jepa_monitor.probe.sparing import Sparing
from jepa_monitor.readings import Readings, Scores

COUNT = 10
OF_DENSITY = {"pictures/histogram", "pictures/score_against_truth", "pictures/latent_plane", "pictures/gallery"}
OF_EMBEDDING = {"pictures/norm_qq", "pictures/spectrum"}


def readings() -> Readings:
    spectrum = torch.randn(COUNT, 3).sort(1, descending=True).values
    scores, far = (Scores(torch.randn(COUNT), torch.randn(COUNT)) for _ in range(2))
    z = torch.randn(COUNT, 3)
    return Readings(z, z, spectrum, 2, None, scores, torch.randn(COUNT), None, ood={"far": far})


def prepared(inputs: Tensor, *, labels: Tensor | None = None) -> Prepared:
    facts = ProbeFacts({"truth": torch.randn(COUNT)}, None, torch.ones(COUNT), None, torch.randn(COUNT, 2), "truth")
    shard = Shard(torch.arange(COUNT), inputs)
    return Prepared(Samples.of(inputs), COUNT, shard, {}, facts, labels, Sparing())


def test_a_first_measurement_gives_one_picture_a_kind() -> None:
    found = illustrate(readings(), prepared(torch.rand(COUNT, 1, 4, 4)), History())
    assert set(found) == OF_DENSITY | OF_EMBEDDING
    assert all(image.shape[0] == 4 and image.dtype == torch.uint8 for image in found.values())


def test_later_ones_show_the_training_too() -> None:
    history, seen = History(), readings()
    for step in (0, 5):
        history.append_ranking(step, seen.scores.log_density, torch.randn(3 + step))
    found = illustrate(seen, prepared(torch.rand(COUNT, 1, 4, 4)), history)
    assert set(found) == OF_DENSITY | OF_EMBEDDING | {
        "pictures/spectrum_over_training",
        "pictures/gallery_over_training",
    }


def test_what_there_is_no_data_for_is_left_out() -> None:
    seen, vectors = readings(), prepared(torch.randn(COUNT, 7))
    unknown = replace(vectors, facts=replace(vectors.facts, truths={}, coordinates=None))
    assert set(illustrate(seen, unknown, History())) == OF_EMBEDDING | {"pictures/histogram"}
    nothing = Scores(seen.scores.jepa_score, torch.full((COUNT,), math.nan))
    unwhitened = replace(seen, z_white=None, rank=0, scores=nothing)
    assert set(illustrate(unwhitened, vectors, History())) == {"pictures/norm_qq"}


def test_a_gallery_has_one_row_a_class() -> None:
    seen, images = readings(), torch.rand(COUNT, 1, 4, 4)
    one = illustrate(seen, prepared(images), History())["pictures/gallery"]
    two = illustrate(seen, prepared(images, labels=torch.arange(COUNT) % 2), History())["pictures/gallery"]
    assert two.shape[1] > 2 * one.shape[1]
