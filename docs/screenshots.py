"""Takes the pictures of TensorBoard that README.md and docs/ show: its tabs, and the run's own ``density/story``.

    python docs/screenshots.py RUN_FOLDER [--output docs/images] [--pages NAME ...] [--dark]

Tabs need headless Chromium (Debian's package ``chromium``) and a finished run of the default config.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

STORY = "story"  # a picture of the run itself
PAGES = {
    "timeseries": ("#timeseries", (1400, 1600)),
    "custom_scalars": ("#custom_scalars&_smoothingWeight=0&_ignoreYOutliers=false", (1400, 1080)),
    "scalars": ("#scalars", (1400, 1600)),
    "images": ("#images", (1400, 1800)),
    "histograms": ("#histograms", (1400, 900)),
    "text": ("#text", (1400, 1800)),
    "hparams": ("#hparams", (1400, 700)),
}
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
QUIET += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(url: str, *, seconds: float = 60.0) -> None:
    """Return once the page answers."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=2).close()
            return
        time.sleep(0.5)
    raise SystemExit(f"TensorBoard did not answer at {url} within {seconds:.0f} seconds.")


def shoot(url: str, output: Path, size: tuple[int, int], *, dark: bool) -> None:
    """One page as a PNG; the virtual time gives its scripts the time to load and draw."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("no Chromium was found: install Debian's package chromium.")
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *QUIET, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"]
        command += ["--virtual-time-budget=30000", f"--screenshot={output}"]
        command += ["--force-dark-mode", "--enable-features=WebContentsForceDark:false"] if dark else []
        subprocess.run([*command, url], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def write_story(run: Path, output: Path) -> None:
    """Write the last ``density/story`` of a run as it was logged."""
    events = EventAccumulator(str(run), size_guidance={"images": 0}).Reload()
    if "density/story" not in events.Tags()["images"]:
        raise SystemExit(f"{run} has no density/story: give the folder of one run, such as runs/mixture/version_0.")
    output.write_bytes(events.Images("density/story")[-1].encoded_image_string)


def main() -> None:
    """Write the story, start TensorBoard on the run, take the pictures, stop it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "images")
    parser.add_argument("--pages", nargs="*", default=[STORY, *PAGES], choices=[STORY, *PAGES])
    parser.add_argument("--dark", action="store_true", help="in the dark theme")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if STORY in arguments.pages:
        write_story(arguments.run, arguments.output / f"{STORY}.png")
        print(arguments.output / f"{STORY}.png")
    tabs = [name for name in arguments.pages if name in PAGES]
    if not tabs:
        return
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={arguments.run}", f"--port={port}"]
    board = subprocess.Popen(
        [*command, "--samples_per_plugin=images=1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/data/plugins_listing")
        time.sleep(5.0)  # until the event files are read
        for name in tabs:
            page, size = PAGES[name]
            shoot(f"http://127.0.0.1:{port}/{page}", arguments.output / f"{name}.png", size, dark=arguments.dark)
            print(arguments.output / f"{name}.png")
    finally:
        board.terminate()
        board.wait()


if __name__ == "__main__":
    main()
