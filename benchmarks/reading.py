"""Values of tags in runs that are healthy, off scale, or collapsing: columns of the page of tags.

    python benchmarks/reading.py             # print the values of the kept curves
    python benchmarks/reading.py --write     # put them into jepa_monitor/measured.py, docs/tags.md and docs/curves.md

The curves are those of docs/selection, short runs on Fashion-MNIST (K = 32, N = 256); their last measurement counts,
and a cell is the range of the medians of three seeds over the trainings of a kind.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from keep import curves
from keep.curves import ALARM, Curve
from studies import with_tables

from jepa_monitor.description import HEAD, row
from jepa_monitor.measured import UNKNOWN, Measured
from jepa_monitor.tags import TAGS
from jepa_train.pictures import MEANINGS

ROOT = Path(__file__).resolve().parents[1]
MODULE = ROOT / "callbacks" / "jepa_monitor" / "measured.py"
# by what a training does to its embeddings; what lies between, such as plain I-JEPA and high rates, is left out
KINDS: Mapping[str, tuple[str, ...]] = {
    "healthy": ("objective sigreg", "spoiled no views", "spoiled few images"),  # pushed towards N(0, I)
    "off scale": ("objective vicreg", "objective barlow", "objective whitening_mse", "objective uniformity"),
    "collapsing": ("objective none", "objective spectral_norm", "objective weight_decay", "spoiled no average"),
}
FEWEST = 2  # trainings of each kind that have a tag
CURVES = {  # which tell the kinds apart, in words that need no other page
    "gaussianity/variance_share": "how much embeddings differ, beside their size",
    "gaussianity/effective_rank_ratio": "how evenly directions are used, 1 as by a Gaussian",
    "gaussianity/sliced_ep_ratio": "distance from N(0, I), shape and scale: 1 is none",
    "jacobian/intrinsic_dimension": "directions in which embeddings vary",
    "features/std_l2_normalised_ratio": "spread of the features' directions, 1 as of a Gaussian",
    "density/stability": "rank correlation with the measurement before",
    "monitor/keep": "how much of the images the features still know",
}


def measured(found: Sequence[Curve]) -> dict[str, Measured]:
    """Range of each tag's last value, by kind of run."""
    tags = sorted({tag for curve in found for tag in curve.tags} | {ALARM})
    rows = {tag: [_range(found, names, tag) for names in KINDS.values()] for tag in tags}
    return {tag: Measured(*cells) for tag, cells in rows.items() if all(cells)}


def _range(found: Sequence[Curve], names: Sequence[str], tag: str) -> str:
    medians = []
    for name in names:
        values = [_last(curve, tag) for curve in found if curve.name == name]
        if finite := [value for value in values if np.isfinite(value)]:
            medians.append(float(np.median(finite)))
    if len(medians) < FEWEST:
        return ""
    low, high = (_short(end) for end in (min(medians), max(medians)))
    return low if low == high else f"{low} to {high}"


def _last(curve: Curve, tag: str) -> float:
    values = curve.alarm if tag == ALARM else curve.tags.get(tag)
    return float("nan") if values is None else float(values[-1])


def _short(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 99.5 else f"{value:.0f}"


def source(values: Mapping[str, Measured]) -> str:
    """Write the lines of the table in ``measured.py``."""
    return "".join(
        f'    "{tag}": Measured("{found.healthy}", "{found.off_scale}", "{found.collapsing}"),\n'
        for tag, found in values.items()
    )


def tables(values: Mapping[str, Measured]) -> str:
    """Write the page of all tags: a table for each group, of training's at the end."""
    groups: dict[str, list[str]] = {}
    for tag in TAGS:
        groups.setdefault(tag.name.partition("/")[0], []).append(row(tag, values))
    groups["train"] = [
        f"| `{tag}` | {meaning} | - | - | - | {values.get(tag, UNKNOWN).cells} | - |"
        for tag, meaning in MEANINGS.items()
    ]
    return "\n\n".join(f"## `{group}/`\n\n{HEAD}" + "\n".join(rows) for group, rows in groups.items())


def excerpt(values: Mapping[str, Measured]) -> str:
    """Write the few tags that tell a healthy run from others."""
    head = "| tag | what it is | healthy | off scale | collapsing |\n|---|---|---|---|---|\n"
    return head + "\n".join(f"| `{tag}` | {meaning} | {values[tag].cells} |" for tag, meaning in CURVES.items())


def main() -> None:
    """Print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    values = measured(curves.kept(ROOT / "docs" / "selection"))
    print(lines := source(values))
    if parser.parse_args().write:
        before, _, behind = MODULE.read_text().partition("MEASURED = {\n")
        MODULE.write_text(f"{before}MEASURED = {{\n{lines}}}\n{behind.partition('}' + chr(10))[2]}")
        for name, written in {"tags": tables(values), "curves": excerpt(values)}.items():
            page = ROOT / "docs" / f"{name}.md"
            page.write_text(with_tables(page.read_text(), "reading", written))


if __name__ == "__main__":
    main()
