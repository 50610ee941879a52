"""Selection of a checkpoint: which label-free tag, or which two, say which one to keep while the loss rises.

    python benchmarks/selection.py                   # print the tables of the kept curves, and draw
    python benchmarks/selection.py --runs FOLDER     # read the finished runs of benchmarks/trainings.py first

The runs are those that were measured on their way: ``python benchmarks/trainings.py FOLDER --only "objective "
"spoiled "``. Their curves are kept in docs/selection, the first table in docs/selection.md, the others in
docs/selection/tables.md, figures in docs/images/selection. Each further run that has finished adds a curve.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from keep import curves, page
from studies import with_tables
from study import drawing

DOCS = Path(__file__).resolve().parents[1] / "docs"
FEWEST_OBJECTIVES = 2  # one to choose on, and one to report


def show(docs: Path) -> int:
    """Print tables and draw figures of the kept curves; return the exit status."""
    found = curves.kept(docs / "selection")
    if len({curve.objective for curve in found}) < FEWEST_OBJECTIVES:
        print("fewer than two objectives were measured so far: pass --runs with finished runs.", file=sys.stderr)
        return 1
    rules, others = page.tables(found)
    print(f"{rules}\n\n{others}")
    for text, tables in ((docs / "selection.md", rules), (docs / "selection" / "tables.md", others)):
        if text.is_file():
            text.write_text(with_tables(text.read_text(), "selection", tables))
    for name, figure in page.figures(found).items():
        drawing.save(figure, docs / "images" / "selection" / f"{name}.png")
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """Read runs if asked to, then print and draw; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="folder of the runs, as benchmarks/trainings.py makes it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of page, curves and figures")
    arguments = parser.parse_args(words)
    if arguments.runs:
        for curve in curves.recorded(arguments.runs.resolve(), arguments.seeds):
            curves.save(curve, arguments.docs / "selection")
    return show(arguments.docs)


if __name__ == "__main__":
    sys.exit(main())
