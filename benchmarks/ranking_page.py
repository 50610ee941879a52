"""Time the page of a large ranking in headless Chromium, and print its size.

    python benchmarks/ranking_page.py [--images 50000] [--keep FOLDER]

Needs the extra ``browser`` and Chromium. Scores and pictures are made up: random numbers, and thumbnails of noise,
which JPEG compresses worst.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from jepa_train.ranking.page import write_page

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
PATIENCE = 300_000  # milliseconds
NUMBERS = ("log_density", "jepa_score", "embedding_log_density", "log_volume", "mahalanobis", "knn_distance")
# runs a script and waits until what it changed is on the screen
PAINTED = """async () => {
    const start = performance.now();
    %s;
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    return performance.now() - start;
}"""
SCROLL = """async () => {
    const steps = 60, bottom = document.documentElement.scrollHeight, times = [];
    for (let step = 0; step < steps; step++) {
        const start = performance.now();
        scrollTo(0, (bottom * step) / steps);
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        times.push(performance.now() - start);
    }
    return times.sort((a, b) => a - b)[steps / 2];
}"""


def table(images: int) -> pa.Table:
    """Make up a ranking of a thousand classes, with every column."""
    random = np.random.default_rng(0)
    names = [f"n{row % 1000:08d}/ILSVRC2012_val_{row:08d}.JPEG" for row in range(images)]
    columns: dict[str, Any] = {"filename": names, "class": [name.split("/")[0] for name in names]}
    columns |= {name: random.normal(size=images) for name in NUMBERS}
    columns |= {
        "compressed_size": random.integers(10_000, 100_000, images),
        "percentile": random.uniform(0, 100, images),
    }
    columns |= {"class_percentile": random.uniform(0, 100, images)}
    columns |= {"nearest_filename": np.roll(names, 1), "nearest_distance": random.gamma(4.0, size=images)}
    return pa.table(columns)


def thumbnails(images: int) -> Iterator[bytes]:
    """Encode pictures of noise, a thousand different ones."""
    random = np.random.default_rng(0)
    encoded = []
    for _ in range(min(images, 1000)):
        picture = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (64, 64, 3), np.uint8)).save(picture, "JPEG")
        encoded.append(picture.getvalue())
    return (encoded[row % len(encoded)] for row in range(images))


def times_in_browser(folder: Path) -> dict[str, float]:
    """Measure the milliseconds until each thing that a person does is on the screen."""
    from playwright.sync_api import sync_playwright

    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("no Chromium was found: install Debian's package chromium.")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=FLAGS, timeout=PATIENCE)
        view = chromium.new_page(viewport={"width": 1400, "height": 900})
        view.set_default_timeout(PATIENCE)
        view.goto((folder / "index.html").as_uri())
        times = {
            "load, until it can be used": view.evaluate(
                "performance.timing.domComplete - performance.timing.fetchStart"
            )
        }
        times["scroll the gallery to a random place (median)"] = view.evaluate(SCROLL)
        fill = "byId('%s').value = '%s'; byId('%s').dispatchEvent(new Event('%s'))"
        actions = {
            "filter by a text": fill % ("text", "0042", "text", "input"),
            "clear the filters": "byId('clear').click()",
            "sort by another score": fill % ("score", "mahalanobis", "score", "change"),
            "least and most typical of each class": "byId('tab-extremes').click()",
            "near-duplicates": "byId('tab-pairs').click()",
            "table": "byId('tab-table').click()",
        }
        times |= {name: view.evaluate(PAINTED % action) for name, action in actions.items()}
        times["scroll the table to a random place (median)"] = view.evaluate(SCROLL)
        chromium.close()
    return times


def main() -> None:
    """Write a page, open it, print what it weighs and how long it takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--keep", type=Path, help="write the page there, and leave it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        rows, start = table(arguments.images), time.process_time()
        write_page(folder, rows, thumbnails=thumbnails(arguments.images), images=None, summary={})
        sheets = [path.stat().st_size for path in (folder / "page").glob("sprite_*.jpg")]
        print(f"{arguments.images} images, written in {time.process_time() - start:.1f} CPU seconds")
        print(f"data.js {(folder / 'page' / 'data.js').stat().st_size / 1e6:.1f} MB")
        print(f"{len(sheets)} sheets of thumbnails, {sum(sheets) / 1e6:.1f} MB, {max(sheets) / 1e3:.0f} kB at most")
        for name, milliseconds in times_in_browser(folder).items():
            print(f"{milliseconds:7.0f} ms  {name}")


if __name__ == "__main__":
    main()
