"""The page that explains tags, and the layout that shows their charts on one page of TensorBoard."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import groupby

from .measured import ADVICE, MEASURED, UNKNOWN, Measured
from .tags import NULL_OF_CHART, TAGS, Tag, meaning_of

KINDS = ("healthy", "off scale", "collapsing")
COLUMNS = ("better", "Gaussian embedding", "collapsed", *KINDS, "what to do")
HEAD = f"| tag | what it is | {' | '.join(COLUMNS)} |\n{'|---' * (2 + len(COLUMNS))}|\n"


def explanation(logged: Iterable[str]) -> str:
    """A Markdown page on those of the tags that were logged."""
    logged = list(logged)
    text = (
        "N probe samples, K embedding dimensions; natural logarithms. A ratio is divided by its value under N(0, I) "
        "for the same N and K. A value without meaning is NaN, with one warning that says why. Where higher is better, "
        '`ModelCheckpoint` and `EarlyStopping` need `mode="max"`. In parentheses stands what short runs on '
        "Fashion-MNIST showed at their end, K = 32, N = 256: healthy ones, healthy ones off scale (not pushed towards "
        "N(0, I)), and collapsing ones. Other data and sizes show other values. The points of a run are few: set "
        "*Smoothing* to 0 and untick *Ignore outliers in chart scaling*, or curves show what nobody measured.\n\n"
    )
    if any(tag.startswith("density/") for tag in logged):
        text = f"Begin with the picture `density/story`, in the Images tab.\n\n{text}"
    groups = groupby(explained_tags(logged), key=lambda tag: tag.name.partition("/")[0])
    return text + "\n\n".join("\n".join([f"### {name}\n", *map(_item, tags)]) for name, tags in groups)


def _item(tag: Tag) -> str:
    """The item of a tag in a list: of a table as wide as that of the docs TensorBoard breaks each word into letters."""
    name, meaning, *values = _cells(tag, MEASURED)
    named = {column: value for column, value in zip(COLUMNS, values, strict=True) if value != "-"}
    advice = named.pop(COLUMNS[-1], "")
    showed = [f"{kind} {named.pop(kind)}" for kind in KINDS if kind in named]
    said = [f"{'; '.join([meaning, *(f'*{column}* {value}' for column, value in named.items())])}."]
    said += [f"{advice[0].upper()}{advice[1:]}."] if advice else []
    said += [f"(Fashion-MNIST showed: {', '.join(showed)}.)"] if showed else []
    return f"- **{name}**: {' '.join(said)}"


def row(tag: Tag, values: Mapping[str, Measured]) -> str:
    """The row of a tag, in Markdown, with what runs showed."""
    return f"| {' | '.join(_cells(tag, values))} |"


def _cells(tag: Tag, values: Mapping[str, Measured]) -> list[str]:
    """The tag, its meaning, and what stands in the other columns."""
    name = f"{tag.name}*" if tag.is_beginning else tag.name
    found, advice = values.get(tag.name, UNKNOWN), ADVICE.get(tag.name, "-")
    meaning = f"{tag.meaning}; none for {tag.none_for}" if tag.none_for else tag.meaning
    of_kinds = [found.healthy, found.off_scale, found.collapsing]
    return [f"`{name}`", meaning, tag.better, tag.gaussian, tag.collapsed, *of_kinds, advice]


def explained_tags(logged: Iterable[str]) -> list[Tag]:
    """Records of those tags that were logged, in the order of the page."""
    present = {meaning_of(name) for name in logged}
    return [tag for tag in TAGS if tag in present]


def layout(logged: Iterable[str]) -> dict[str, dict[str, list[object]]]:
    """TensorBoard's custom-scalars layout: density ranking, Gaussianity, Jacobian and alarms on one page.

    Args:
        logged: tags as logged; those of a named monitor begin with its name, and share the chart.
    """
    present = sorted(set(logged))
    charts: dict[str, list[str]] = {}
    for tag in TAGS:
        if tag.chart and (lines := tag.lines(present)):
            charts.setdefault(tag.chart, []).extend(lines)
    for title, (null, _) in NULL_OF_CHART.items():
        if title in charts:
            charts[title].append(null)
    # TensorBoard takes each entry as a regular expression that may match anywhere in a tag; sets, truths and monitors
    # have names that the user gave
    patterns = {title: [f"^{re.escape(tag)}$" for tag in tags] for title, tags in charts.items()}
    return {"JEPA-SCORE": {title: ["Multiline", wanted] for title, wanted in patterns.items()}}
