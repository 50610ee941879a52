"""The pictures of one measurement, by tag."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..history import History
from ..probe.sources import Prepared
from ..ranking import auroc, spearman
from ..readings import Readings
from ..verdict import verdict
from .charts import Course, alarms_of, charts_of
from .gallery import GalleryRow, gallery_over_training_picture, gallery_picture
from .norms import norm_qq_picture
from .plots import heat_map_picture, histogram_picture, scatter_picture
from .spectrum import spectrum_over_training_picture, spectrum_picture
from .story import MOST_SHOWN, story_picture

IMAGES_A_SIDE = 5
MOST_CLASSES = 10


def illustrate(readings: Readings, prepared: Prepared, history: History) -> dict[str, Tensor]:
    """Draw the pictures that the readings give, but for the story: tag to (4, H, W), uint8."""
    density, facts = readings.scores.log_density, prepared.facts
    n = len(density)
    found = {"pictures/norm_qq": norm_qq_picture(readings.z, readings.z_white)}
    if readings.rank and torch.isfinite(readings.log_singular).all(1).any():
        found["pictures/spectrum"] = spectrum_picture(readings.log_singular, readings.rank)
        if len(history.spectra) > 1:
            shortest = min(map(len, history.spectra.values()))
            spectra = torch.stack([spectrum[:shortest] for spectrum in history.spectra.values()])
            steps = list(history.spectra)
            found["pictures/spectrum_over_training"] = spectrum_over_training_picture(steps, spectra, readings.rank)
    if not torch.isfinite(density).any():
        return found
    for name, truth in facts.truths.items():
        rho, title = spearman(density, truth[:n]), name if name == "truth" else f"truth ({name})"
        found[f"pictures/score_against_{name}"] = scatter_picture(
            truth[:n], density, spearman=rho, name="log_density", truth_name=title
        )
    sets = {"probe": density.numpy()} | {name: other.log_density.numpy() for name, other in readings.ood.items()}
    aurocs = {name: auroc(density, other.log_density) for name, other in readings.ood.items()}
    found["pictures/histogram"] = histogram_picture(sets, name="log_density", aurocs=aurocs)
    if facts.coordinates is not None and facts.coordinates.shape[1] == 2:
        panels = {"log_density": density, "JEPA-SCORE (Eq. 5)": readings.scores.jepa_score}
        if facts.truths:
            panels = {"true log density": next(iter(facts.truths.values()))[:n]} | panels
        found["pictures/latent_plane"] = heat_map_picture(facts.coordinates[:n], panels)
    if prepared.probe.inputs.ndim == 4:
        found["pictures/gallery"] = gallery_picture(_gallery(density, prepared))
        # a run that resumes may have a smaller probe
        there = [place for place, position in enumerate(history.followed) if position < len(prepared.samples)]
        if there and history.percentiles:
            found["pictures/gallery_over_training"] = gallery_over_training_picture(
                prepared.samples.read([history.followed[place] for place in there]),
                list(history.percentiles),
                torch.stack(list(history.percentiles.values()))[:, there],
            )
    return found


def draw_story(readings: Readings, prepared: Prepared, history: History) -> dict[str, Tensor]:
    """Draw the course of the run, beside the most and the least typical images of the probe: tag to (4, H, W), uint8.

    Nothing is drawn before the first measurement.
    """
    if not len(history):
        return {}
    density, course = readings.scores.log_density, Course(history.steps, history.values)
    sides: dict[str, Tensor] = {}
    finite = torch.isfinite(density).nonzero().flatten().tolist()
    if finite and prepared.probe.inputs.ndim == 4:
        extremes = _gallery_row("", finite, density, prepared, MOST_SHOWN)
        sides = {"highest": extremes.highest, "lowest": extremes.lowest}
    num_samples, embedding_size = readings.z.shape
    charts = charts_of(course, history.beside, num_samples=num_samples, embedding_size=embedding_size)
    sentence = verdict(history.newest, num_samples=num_samples)
    return {"density/story": story_picture(charts, alarms_of(course), verdict=sentence, **sides)}


def _gallery(density: Tensor, prepared: Prepared) -> list[GalleryRow]:
    """Choose the probe's images of highest and lowest log density, overall and within each class."""
    finite = torch.isfinite(density).nonzero().flatten().tolist()
    rows = [_gallery_row("all", finite, density, prepared, IMAGES_A_SIDE)]
    labels = prepared.labels
    if labels is None or len(labels.unique()) < 2:
        return rows
    for label in labels.unique().tolist()[:MOST_CLASSES]:
        members = ((labels[: len(density)] == label) & torch.isfinite(density)).nonzero().flatten().tolist()
        if members:
            title = _class_name(prepared.samples.dataset, label)
            rows.append(_gallery_row(title, members, density, prepared, IMAGES_A_SIDE))
    return rows


def _class_name(dataset: Any, label: int) -> str:
    """Name a class as torchvision's datasets do in ``classes``, where that is a list."""
    names = getattr(dataset, "classes", None)
    if isinstance(names, (list, tuple)) and 0 <= label < len(names):
        return str(names[label])
    return f"class {label}"


def _gallery_row(title: str, members: Sequence[int], density: Tensor, prepared: Prepared, images: int) -> GalleryRow:
    order = sorted(members, key=lambda i: -float(density[i]))
    shown = min(images, max(1, len(order) // 2))
    highest, lowest = order[:shown], order[::-1][:shown]
    return GalleryRow(
        title=title,
        highest=prepared.samples.read(highest),
        lowest=prepared.samples.read(lowest),
        high_scores=density[highest],
        low_scores=density[lowest],
    )
