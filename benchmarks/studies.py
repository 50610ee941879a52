"""Answers the open questions of arXiv 2510.05949 with encoders trained here: one study, its numbers and its figure.

    python benchmarks/studies.py NAME                  # print the table of the kept rows, and draw the figure again
    python benchmarks/studies.py NAME --runs FOLDER    # train what is missing there, measure, and keep the rows
    python benchmarks/studies.py NAME --runs FOLDER --finished    # measure the finished runs alone

NAME is ``convergence``, ``size``, ``objectives``, ``jacobian`` or ``volume``. Rows are kept in docs/studies/NAME.json,
the figure in docs/images/studies/NAME.png, and tables between the marks of docs/studies/NAME.md. Each run is trained
once, and serves every study that reads it.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch
import trainings
from study import convergence, drawing, jacobian, objectives, rows, size, volume
from study.readings import finished

DOCS = Path(__file__).resolve().parents[1] / "docs"
STUDIES = {
    "convergence": convergence.STUDY,
    "size": size.STUDY,
    "objectives": objectives.STUDY,
    "jacobian": jacobian.STUDY,
    "volume": volume.STUDY,
}


def train(study: rows.Study, seeds: int, runs: Path) -> None:
    """Train what a study lacks, seed by seed."""
    for seed in range(seeds):
        for name in dict.fromkeys(encoder.run for encoder in study.encoders):
            trainings.run(name, seed, runs)


def measure(study: rows.Study, seeds: int, runs: Path) -> list[rows.Row]:
    """Measure every encoder that is there."""
    return [
        row
        for encoder in study.encoders
        for seed in finished(encoder.run, seeds, runs)
        for row in study.measure(encoder, seed, runs)
    ]


def with_tables(page: str, name: str, tables: str) -> str:
    """Return the page with these tables in place of those between the marks of a study."""
    marked = re.compile(f"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", re.DOTALL)
    return marked.sub(lambda _: f"{tables}\n", page, count=1)


def main() -> None:
    """Train and measure if asked to, then print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(STUDIES))
    parser.add_argument("--runs", type=Path, help="folder of the runs, as benchmarks/trainings.py makes it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--finished", action="store_true", help="train nothing")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of page, rows and figure")
    arguments = parser.parse_args()
    study = STUDIES[arguments.name]
    kept = arguments.docs / "studies" / f"{arguments.name}.json"
    if arguments.runs:
        runs = arguments.runs.resolve()
        if not arguments.finished:
            train(study, arguments.seeds, runs)
        torch.set_num_threads(1)
        rows.write(measure(study, arguments.seeds, runs), kept)
    found = rows.read(kept)
    tables = study.tables(found)
    print(tables)
    page = arguments.docs / "studies" / f"{arguments.name}.md"
    page.write_text(with_tables(page.read_text(), arguments.name, tables))
    drawing.save(study.draw(found), arguments.docs / "images" / "studies" / f"{arguments.name}.png")


if __name__ == "__main__":
    main()
