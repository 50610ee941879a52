"""The charts of the story of a run, from the values that were measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..scalars import LOW_VARIANCE_SHARE, lowest_rank_ratio
from ..verdict import ALARMS, COLLAPSED_EP, GAUSSIAN, name_of_alarm
from .figure import BLUE, GREEN, GREY, INK, ORANGE, OTHERS, PURPLE, plain
from .story import Chart, Line

MOST_SETS = 2
RANKED = "monitor/samples"
OF_SETS, OF_SETS_Z = "density/ood_auroc/", "density/ood_auroc_embedding/"  # with the volume, and without
ACCURACIES = {"kNN": "knn/accuracy", "linear probe": "linear_probe/accuracy"}
EVALUATED = tuple(f"{tag}{end}" for tag in ACCURACIES.values() for end in ("", "_pixels"))


@dataclass(frozen=True)
class Course:
    """Values over steps.

    Attributes:
        steps: (S) optimizer steps.
        values: tag to (S) values.
    """

    steps: Sequence[int]
    values: Mapping[str, Sequence[float]]

    def __contains__(self, tag: str) -> bool:
        return tag in self.values

    def line(self, tag: str, label: str, colour: str = BLUE, *, dashed: bool = False) -> Line:
        """Make a line of a tag."""
        return Line(label, self.steps, self.values[tag], colour, dashed)

    def ranking(self, tag: str, label: str) -> Line:
        """Make a line of a rank correlation, with the interval that its number of samples gives."""
        found = [interval_of(value, n) for value, n in zip(self.values[tag], self._ranked(), strict=True)]
        return Line(
            label, self.steps, self.values[tag], interval=([low for low, _ in found], [high for _, high in found])
        )

    def _ranked(self) -> Sequence[float]:
        return self.values.get(RANKED, [math.nan] * len(self.steps))

    @property
    def of_samples(self) -> str:
        """Number of samples that the last measurement ranked, as the end of a title."""
        known = [n for n in self._ranked() if math.isfinite(n)]
        return f"{known[-1]:.0f} samples" if known else "the samples"


def interval_of(correlation: float, n: float) -> tuple[float, float]:
    """Interval of 95 % of a rank correlation of n samples, by Fisher's transform as of Bonett and Wright (2000)."""
    if not (n > 3 and abs(correlation) <= 1.0):
        return math.nan, math.nan
    inside = min(max(correlation, -1.0 + 1e-9), 1.0 - 1e-9)
    half = 1.96 * math.sqrt((1.0 + inside**2 / 2.0) / (n - 3.0))
    return math.tanh(math.atanh(inside) - half), math.tanh(math.atanh(inside) + half)


def charts_of(
    course: Course, beside: Mapping[str, Mapping[int, float]], *, num_samples: int, embedding_size: int
) -> list[Chart]:
    """Choose the charts that the values give.

    Args:
        course: values of the monitor.
        beside: tag of an evaluation to its values by step.
        num_samples: N, probe samples with an embedding.
        embedding_size: K.
    """
    found = [_ranking(course), _gaussianity(course, num_samples, embedding_size), _dimension(course, embedding_size)]
    return [chart for chart in [*found, _features(course, beside)] if chart is not None and chart.lines]


def alarms_of(course: Course) -> dict[str, tuple[Sequence[int], Sequence[float]]]:
    """Steps and values of each alarm, by its name."""
    return {name_of_alarm(tag): (course.steps, course.values[tag]) for tag in ALARMS if tag in course}


def _ranking(course: Course) -> Chart:
    if "density/spearman" in course:
        lines = [
            course.ranking("density/spearman", "log density"),
            course.line("density/spearman_jepa_score", "JEPA-SCORE", ORANGE),
        ]
        if "density/spearman_gaussian" in course:
            lines.append(course.line("density/spearman_gaussian", "on pixels", INK, dashed=True))
        return Chart(f"rank correlation with the truth, {course.of_samples}", lines, tall=190)
    sets = [tag.removeprefix(OF_SETS) for tag in course.values if tag.startswith(OF_SETS)][:MOST_SETS]
    lines = []
    for name, colour in zip(sets, OTHERS, strict=False):
        # neither is right in every run: a detector that fails is seen beside the one that does not
        lines.append(course.line(f"{OF_SETS}{name}", plain(name, 11), colour))
        if f"{OF_SETS_Z}{name}" in course:
            lines.append(course.line(f"{OF_SETS_Z}{name}", f"{plain(name, 9)} z", colour, dashed=True))
    if "density/stability" in course:
        lines.append(course.ranking("density/stability", "stability"))
    title = "other sets, AUROC (z: no volume)" if sets else "ranking against the one before"
    chance = [(0.5, "0.5 chance", GREY)] if sets else []
    return Chart(f"{title}, {course.of_samples}", lines, tall=190, bounds=chance)


def _gaussianity(course: Course, num_samples: int, embedding_size: int) -> Chart:
    """Draw the statistic that sees shape and scale beside those without scale, which tell a collapse from a scale."""
    tags = {
        "gaussianity/sliced_ep_ratio": ("sliced EP", BLUE),
        "gaussianity/effective_rank_ratio": ("rank", GREEN),
        "gaussianity/variance_share": ("variance", ORANGE),
    }
    lines = [course.line(tag, label, colour) for tag, (label, colour) in tags.items() if tag in course]
    bounds = [
        (COLLAPSED_EP * num_samples, "if collapsed,", BLUE),
        (COLLAPSED_EP * num_samples, "or off scale", BLUE),
        (lowest_rank_ratio(embedding_size), "", GREEN),
        (LOW_VARIANCE_SHARE, "", ORANGE),
    ]
    title = "embeddings: 1 is Gaussian, dotted is collapsed"
    return Chart(title, lines, tall=200, logarithmic=True, band=(*GAUSSIAN, "band: Gaussian"), bounds=bounds)


def _dimension(course: Course, embedding_size: int) -> Chart | None:
    tag = "jacobian/intrinsic_dimension"
    if tag not in course:
        return None
    ends = [course.values.get(f"{tag}_{end}") for end in ("low", "high")]
    interval = None if ends[0] is None or ends[1] is None else (ends[0], ends[1])
    line = Line("dimensions", course.steps, course.values[tag], PURPLE, interval=interval)
    return Chart(f"directions in use, of {embedding_size}", [line], tall=110, floor=0.0)


def _features(course: Course, beside: Mapping[str, Mapping[int, float]]) -> Chart | None:
    kind = next((name for name, tag in ACCURACIES.items() if tag in beside), None)
    lines = []
    if kind is not None:
        for tag, label, colour, dashed in (
            (ACCURACIES[kind], "features", BLUE, False),
            (f"{ACCURACIES[kind]}_pixels", "pixels", INK, True),
        ):
            if values := beside.get(tag):
                lines.append(Line(label, list(values), list(values.values()), colour, dashed))
    elif "density/spearman" in course:  # a truth says more
        return None
    if "monitor/keep" in course:
        lines.append(course.line("monitor/keep", "keep", ORANGE))
    return Chart(f"{kind} accuracy, and monitor/keep" if kind else "monitor/keep", lines, tall=130)
