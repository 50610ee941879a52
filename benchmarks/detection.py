"""Detection of images of other distributions: which score finds them, on one encoder or on many.

    python benchmarks/detection.py fashion_mnist                      # print the tables of the kept rows, and draw
    python benchmarks/detection.py fashion_mnist --runs FOLDER        # measure the runs of benchmarks/trainings.py
    python benchmarks/detection.py objectives --runs FOLDER           # the same of runs of all objectives, in brief
    python benchmarks/detection.py cifar10 --root FOLDER --encoder NAME [random:NAME ...]
    python benchmarks/detection.py imagenet --root FOLDER --encoder NAME --preparation openood --device cuda

NAME is an encoder of ``jepa_train.ranking.load_encoder``. Every method is fitted to the same training images and scores
the same test images and sets. What is read of an encoder is kept in the folder ``--readings``, its rows in
docs/detection: a second call goes on with the first encoder that has none. Tables are written into the page of the
benchmark in that folder, if there is one, and an excerpt of those of Fashion-MNIST into docs/detection.md. No table is
printed where a method tells test images from other test images (the null check): the exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import trainings
from detect import comparison, inversion, objectives_page, page
from detect.methods import FLOWS, METHODS, OF_OBJECTIVES, Method, scores
from detect.readings import Reader, Reading, Settings, prepared
from detect.sets import BENCHMARKS, Counts, Drawn, draw
from studies import with_tables
from study import drawing
from study.readings import finished, folder_of
from study.rows import plain
from torch import Tensor

from jepa_train.errors import ConfigurationError
from jepa_train.ranking import load_encoder

DOCS = Path(__file__).resolve().parents[1] / "docs"
RANDOM = "random:"
OUTPUTS_OF_RUN = {"z": "auto", "tokens": "mean"}  # with the pooling of each
OUTPUTS = {"embedding": "auto"}
OBJECTIVES = "objectives"
BRIEF = ("set", "method", "count", "auroc", "auroc_low", "auroc_high")  # columns that are kept of many encoders


@dataclass(frozen=True)
class Scope:
    """Amount of what is measured of an encoder where the command line does not say it.

    Attributes:
        counts: numbers of pictures.
        measured: pictures of each set that get a Jacobian; ``None`` is all.
        views: views of an image, for Eq. 4.
        methods: names of methods; empty is all.
        columns: columns of a row that are kept; empty is all.
    """

    counts: Counts = field(default_factory=Counts)
    measured: int | None = None
    views: int = Settings.views
    methods: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


SCOPES = {OBJECTIVES: Scope(Counts(2_000, 32, 200, 200), 64, 0, OF_OBJECTIVES, BRIEF)}


@dataclass(frozen=True)
class Encoder:
    """One output of one encoder.

    Attributes:
        source: name for ``load_encoder``.
        name: name in file names, without the output.
        label: what is one line in tables: encoders that differ in the seed alone have one.
        output: ``z``, ``tokens``, or ``embedding`` of an encoder that is none of ours.
        pooling: pooling for ``load_encoder``.
        control: label of the encoder of which this is a control with random weights; empty where it is none.
    """

    source: str
    name: str
    label: str
    output: str
    pooling: str
    control: str = ""

    def file(self, benchmark: str, folder: Path, suffix: str) -> Path:
        """Path of what is kept of it."""
        return folder / f"{benchmark}.{self.name}.{self.output}{suffix}"


def of_runs(runs: Path, seeds: int, words: Sequence[str], benchmark: str = "fashion_mnist") -> Iterator[Encoder]:
    """Yield the finished runs on Fashion-MNIST whose name contains a word, and one of them with random weights.

    Those of ``objectives`` are short runs of all objectives and of settings that go wrong, and one long run.
    """
    names = [name for name in trainings.TRAININGS if name.startswith("fashion_mnist")]
    if benchmark == OBJECTIVES:
        names = ["fashion_mnist", *trainings.OBJECTIVES, *trainings.SPOILED]
    for name in (name for name in names if any(word in name for word in words)):
        for seed in finished(name, seeds, runs):
            checkpoint, own = folder_of(name, seed, runs) / "last.ckpt", trainings.folder_name(name, seed)
            for output, pooling in OUTPUTS_OF_RUN.items():
                yield Encoder(str(checkpoint), own, name, output, pooling)
            if name == "fashion_mnist" and seed == 0:  # one control: random weights know no objective
                for output, pooling in OUTPUTS_OF_RUN.items():
                    yield Encoder(f"{RANDOM}{checkpoint}", f"random_{own}", f"random {name}", output, pooling, name)


def of_names(names: Sequence[str]) -> Iterator[Encoder]:
    """Yield encoders by their names; ``random:NAME`` is a control where NAME is one of them."""
    for name in names:
        control = name.removeprefix(RANDOM) if name.startswith(RANDOM) and name.removeprefix(RANDOM) in names else ""
        for output, pooling in (OUTPUTS_OF_RUN if name.endswith(".ckpt") else OUTPUTS).items():
            yield Encoder(name, re.sub(r"[^\w.=-]+", "_", name), name, output, pooling, control)


def read(encoder: Encoder, drawn: Drawn, settings: Settings, path: Path, device: torch.device) -> Reading:
    """Read an encoder, or what was kept of it."""
    if not path.is_file():
        loaded = load_encoder(encoder.source, pooling=encoder.pooling)
        reader = Reader(loaded.module.to(device), prepared(loaded, settings.preparation), device, settings)
        reader.read(drawn, lambda name: print(f"{path.stem}: {name}", flush=True)).save(path, settings)
    return Reading.load(path, settings, drawn.sets)


def score(encoder: Encoder, reading: Reading, methods: tuple[Method, ...]) -> dict[str, dict[str, Tensor]]:
    """Score a reading by every method."""
    scored = {}
    for name, found in scores(reading, methods):
        print(f"{encoder.name}, {encoder.output}: {name}", flush=True)
        scored[name] = found
    return scored


def measure(encoder: Encoder, drawn: Drawn, settings: Settings, scope: Scope, arguments: argparse.Namespace) -> None:
    """Read and score an encoder that has no rows yet, and keep its rows; one that cannot be scored is left out."""
    kept = encoder.file(arguments.benchmark, arguments.docs / "detection", ".json")
    path = encoder.file(arguments.benchmark, arguments.readings, ".pt")
    try:
        reading = read(encoder, drawn, settings, path, torch.device(arguments.device))
        without = () if arguments.flow and not encoder.control else FLOWS
        methods = tuple(method for method in METHODS if method not in without)
        chosen = tuple(method for method in methods if not scope.methods or method.name in scope.methods)
        rows, more = rows_of(reading, score(encoder, reading, chosen), scope)
    except ConfigurationError:
        raise
    except ValueError as error:  # a collapsed encoder has no densities
        print(f"{encoder.name}, {encoder.output} is left out: {str(error).rstrip('.')}.", file=sys.stderr)
        return
    write(encoder, reading, rows, kept, **more)


def rows_of(
    reading: Reading, scored: dict[str, dict[str, Tensor]], scope: Scope
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Compare the sets; of many encoders keep few columns, and what inversion is forecast by."""
    rows = comparison.rows_of(scored, {name: samples.size for name, samples in reading.sets.items()})
    if not scope.columns:
        return rows, {}
    kept = [{column: row[column] for column in scope.columns} for row in rows if not page.is_difference(row)]
    features = inversion.features(reading, scored)
    return kept, {"features": {name: {key: plain(value) for key, value in of.items()} for name, of in features.items()}}


def write(encoder: Encoder, reading: Reading, rows: Sequence[dict[str, Any]], path: Path, **more: Any) -> None:
    """Write rows, one a line, below the facts of their encoder and more of them."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    facts: dict[str, Any] = {
        "encoder": encoder.name,
        "label": encoder.label,
        "output": encoder.output,
        "control": encoder.control,
    }
    facts |= {"size": reading.reference.shape[1], "rank": reading.rank, "reference": len(reading.reference)} | more
    lines = [json.dumps([plain(row.get(column)) for column in columns], ensure_ascii=False) for row in rows]
    head = json.dumps({"facts": facts, "columns": columns}, ensure_ascii=False).removesuffix("}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{head}, "rows": [\n' + ",\n".join(lines) + "\n]}\n")


def kept_rows(benchmark: str, folder: Path) -> list[dict[str, Any]]:
    """All rows that are kept of a benchmark, controls last; null becomes NaN."""
    found = []
    for path in sorted(folder.glob(f"{benchmark}.*.json")):
        kept = json.loads(path.read_text())
        for values in kept["rows"]:
            row = dict(zip(kept["columns"], values, strict=True))
            found.append(kept["facts"] | {name: torch.nan if value is None else value for name, value in row.items()})
    return sorted(found, key=lambda row: bool(row["control"]))


def show(benchmark: str, docs: Path) -> int:
    """Print tables and draw figures of the kept rows, unless the null check fails; return the exit status."""
    rows = kept_rows(benchmark, docs / "detection")
    if not rows:
        print(f"nothing of {benchmark} was measured so far: pass --runs or --encoder.", file=sys.stderr)
        return 1
    if failed := comparison.null_failures(rows):
        more = f", and {len(failed) - 1} more fail" if len(failed) > 1 else ""
        print(f"no table, because the null check fails: {failed[0]}{more}.", file=sys.stderr)
        return 1
    tables = objectives_page.tables(rows) if benchmark == OBJECTIVES else page.tables(rows)
    print(tables)
    excerpt = "" if benchmark == OBJECTIVES else page.excerpt(rows)
    for text, written in ((docs / "detection.md", excerpt), (docs / "detection" / f"{benchmark}.md", tables)):
        if text.is_file():
            text.write_text(with_tables(text.read_text(), benchmark, written))
    for name, figure in {} if benchmark == OBJECTIVES else page.figures(rows).items():
        drawing.save(figure, docs / "images" / "detection" / f"{benchmark}_{name}.png")
    return 0


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=list(BENCHMARKS))
    parser.add_argument("--runs", type=Path, help="folder of the runs, as benchmarks/trainings.py makes it")
    parser.add_argument("--only", nargs="*", default=[""], help="runs whose name contains one of these")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--encoder", nargs="*", default=[], help="names of further encoders")
    parser.add_argument("--root", type=Path, help="folder of the images")
    parser.add_argument("--download", action="store_true", help="let torchvision fetch what is missing")
    parser.add_argument("--sets", nargs="*", help="sets to compare with; all by default")
    parser.add_argument("--reference", type=int, help="training images")
    parser.add_argument("--calibration", type=int, help="further training images")
    parser.add_argument("--scored", type=int, help="images of a set")
    parser.add_argument("--severe", type=int, help="images of a corruption and severity")
    parser.add_argument("--measured", type=int, help="images of a set that get a Jacobian; all by default")
    parser.add_argument("--volumes", choices=["exact", "subspace"], default="exact")
    parser.add_argument("--views", type=int, help="views of an image, for Eq. 4; 0 is none")
    parser.add_argument("--viewed", type=int, default=Settings.viewed, help="images of a set of which there are views")
    parser.add_argument("--preparation", choices=["timm", "openood"], default="timm")
    parser.add_argument(
        "--flow", action="store_true", help="fit a normalising flow, too: 1 to 5 CPU minutes an encoder"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--readings", type=Path, default=Path("runs/detection"), help="folder of what is read")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of page, rows and figures")
    return parser.parse_args(words)


def settings_of(arguments: argparse.Namespace, scope: Scope) -> Settings:
    """Return the settings of the command line; what it does not say is as in the scope."""
    given = {name: getattr(arguments, name) for name in ("reference", "calibration", "scored", "severe")}
    counts = replace(scope.counts, **{name: count for name, count in given.items() if count is not None})
    views = scope.views if arguments.views is None else arguments.views
    measured = scope.measured if arguments.measured is None else arguments.measured
    return Settings(counts, arguments.volumes, views, arguments.viewed, arguments.preparation, measured)


def main(words: Sequence[str] | None = None) -> int:
    """Measure what is missing, then print and draw; return the exit status."""
    arguments = parsed(words)
    encoders = list(of_names(arguments.encoder))
    if arguments.runs:
        found = of_runs(arguments.runs.resolve(), arguments.seeds, arguments.only, arguments.benchmark)
        encoders = [*found, *encoders]
    scope = SCOPES.get(arguments.benchmark, Scope())
    settings = settings_of(arguments, scope)

    @cache
    def drawn() -> Drawn:
        return draw(
            BENCHMARKS[arguments.benchmark](arguments.root, download=arguments.download),
            settings.counts,
            arguments.sets,
        )

    try:
        for encoder in encoders:
            if not encoder.file(arguments.benchmark, arguments.docs / "detection", ".json").is_file():
                measure(encoder, drawn(), settings, scope, arguments)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    return show(arguments.benchmark, arguments.docs)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", ".*scores may be off by more than")
    sys.exit(main())
