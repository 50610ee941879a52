"""The verdict on embeddings in one sentence: collapsed or not, and how far from N(0, I)."""

from __future__ import annotations

import math
from collections.abc import Mapping

COLLAPSED_EP = 0.38  # of N: sliced_ep_ratio of a point
GAUSSIAN = (0.5, 2.0)  # holds 95 % of sliced_ep_ratio under N(0, I), for K from 8 on
# of the sliced_ep_ratio of a point: embeddings are near N(0, I) below the first, of another scale above the second
NEARLY, OFF_SCALE = 0.15, 0.6
HARDLY = 0.1  # variance_share below which embeddings are hardly spread out; docs/curves.md has what runs show
FAILED = "monitor/failed"
ALARMS = ("monitor/alarm_collapse", "monitor/alarm_nonfinite_jacobian", "monitor/alarm_turned_over", FAILED)


def name_of_alarm(tag: str) -> str:
    """Name an alarm in words: ``turned over`` for ``monitor/alarm_turned_over``."""
    return tag.split("/")[1].removeprefix("alarm_").replace("_", " ")


def verdict(values: Mapping[str, float], *, num_samples: int) -> str:
    """Say in at most 60 letters which alarms are on; where none is, how far the embeddings are from N(0, I).

    Args:
        values: values of the last measurement, by tag.
        num_samples: N, probe samples with an embedding.

    Returns:
        A sentence; empty where the values say nothing.
    """
    if values.get(FAILED, 0.0) > 0.0:
        return "The last measurement failed."
    ringing = [name_of_alarm(tag) for tag in ALARMS if values.get(tag, 0.0) > 0.0]
    if ringing:
        return f"Alarm: {', '.join(ringing)}."
    variance = values.get("gaussianity/variance_share", math.nan)
    if variance < HARDLY:
        return "No alarm, but embeddings are hardly spread out."
    ratio, of_point = values.get("gaussianity/sliced_ep_ratio", math.nan), COLLAPSED_EP * num_samples
    from_gaussian = _from_gaussian(ratio, of_point)
    if not (variance >= HARDLY and from_gaussian):
        return ""
    if NEARLY * of_point < GAUSSIAN[1]:
        return "No alarm. Too few samples to judge Gaussianity."
    return f"No alarm. Embeddings are spread out, {from_gaussian}."


def _from_gaussian(ratio: float, of_point: float) -> str:
    """Say how far from N(0, I) embeddings of this ``sliced_ep_ratio`` are; nothing where it is NaN."""
    if ratio <= GAUSSIAN[1]:
        return "close to Gaussian"
    if ratio <= NEARLY * of_point:
        return "roughly Gaussian"
    if ratio <= OFF_SCALE * of_point:
        return "but not Gaussian"
    return "" if math.isnan(ratio) else "but not at scale 1"
