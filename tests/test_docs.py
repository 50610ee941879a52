"""Every Python example of README and docs runs, and every command names things that exist."""

from __future__ import annotations

import logging
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jepa_train.cli import main
from tests.monitor.helpers import Autoencoder, images, loader
from tests.train.helpers import TINY_MODEL

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]

STARTED = ROOT / "docs/getting_started.md"  # runs as a whole, commands included
# pages whose examples take more than a second
LONG = {"checkpoints", "files", "monitor", "monitor_inputs", "ranking", "your_project"}

# a run of the page in seconds: options that are added to its commands
SMALLEST = [
    *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"),
    *("--data.image_size=32", "--data.batch_size=112", "--data.num_workers=0", "--model.embedding_size=8"),
    *TINY_MODEL,
]
ADDED = {
    "fit -c": [*SMALLEST, "--trainer.max_steps=2"],
    "fit --ckpt_path": ["--trainer.max_steps=4"],
    "rank photos": ["--trainer.accelerator=cpu"],
}


def blocks(language: str) -> list[Any]:
    found = []
    for page in PAGES:
        for number, code in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)):
            found.append(pytest.param(code, id=f"{page.stem}-{number}"))
    return found


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=pytest.mark.slow if page.stem in LONG else ())
        for page in PAGES
        if page != STARTED
    ],
)
@pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode", "ignore:The number of training batches")
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page's examples, one after the other: the later may use what the earlier defined.

    Those of README run as they stand; those of the other pages have a project of the reader's.
    """
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = (
        {}
        if page.stem == "README"
        else {
            "project": Autoencoder(),
            "train_loader": loader(),
            "val_loader": loader(seed=1),
            "noise_images": 3.0 * images(20, seed=2),
        }
    )
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(code, page.name, "exec"), names)  # the examples are this repository's own


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:The reference leaves out",
    "ignore:Checkpoint directory .* is not empty",
    "ignore:The dirpath has changed",
    "ignore:Settings that do nothing. predictor_",
)
def test_getting_started_goes_from_a_folder_of_images_to_their_ranking(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its commands and examples run in their order, print what it shows, and log the tags that it names."""
    caplog.set_level(logging.INFO)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    names: dict[str, Any] = {}
    printed = ""
    for language, code in re.findall(r"```(\w+)\n(.*?)```", STARTED.read_text(), re.DOTALL):
        if language == "python":
            exec(compile(code, STARTED.name, "exec"), names)
        elif language == "text":
            for line in code.splitlines():
                assert re.search(re.sub(r"\d+", r"\\d+", re.escape(line)), printed), line
        elif (words := shlex.split(code))[:2] == ["python", "train.py"]:
            caplog.clear()
            main([*words[2:], *ADDED.get(" ".join(words[2:4]), [])])
            printed = caplog.text + "".join(capsys.readouterr())
        else:
            assert words[0] == "pip" or words[-1] == "runs"
    assert names["features"].shape == (1, 32)
    assert len(names["table"]) == 300
    named = set(re.findall(r"`(\w+/\w+)`", STARTED.read_text().partition("## Watch")[2].partition("## Resume")[0]))
    assert named <= _tags(tmp_path / "runs/image_folder/version_0")


def _tags(run: Path) -> set[str]:
    logged = EventAccumulator(str(run)).Reload().Tags()
    return {*logged["scalars"], *logged["images"]}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode", "ignore:The number of training batches")
def test_the_documented_checkpoint_is_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "jepa_monitor.runtime.budget.GRACE_SECONDS", 1e9
    )  # on a busy machine so short a run skips measurements
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs/monitor.md").read_text(), re.DOTALL)
    (example,) = [code for code in examples if "ModelCheckpoint" in code]
    names: dict[str, Any] = {"project": Autoencoder(), "train_loader": loader(), "val_loader": loader(seed=1)}
    exec("import lightning.pytorch as pl\nfrom jepa_monitor import JEPAScoreMonitor\n" + example, names)
    steps, values = names["monitor"].history.steps[1:], names["monitor"].history.values["density/spearman"][1:]
    assert max(values) > min(values)
    best = torch.load(names["best"].best_model_path, weights_only=True)
    assert best["global_step"] == steps[values.index(max(values))]


@pytest.mark.parametrize("code", blocks("bash"))
def test_commands_name_what_exists(code: str) -> None:
    for word in shlex.split(code, comments=True):
        if re.fullmatch(r"[\w./]+\.(py|yaml)", word):
            assert (ROOT / word).is_file(), word


def test_readme_begins_with_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    first = readme.index("pip install -e . && python train.py fit\n")
    assert first < readme.index('pip install -e ".[test]" && pytest\n') < 1000


def test_the_index_names_every_page_once() -> None:
    docs = ROOT / "docs"
    named = re.findall(r"^\| \[.*?\]\(([\w/]+\.md)\) \|", (docs / "README.md").read_text(), re.MULTILINE)
    assert sorted([*named, "README.md"]) == sorted(page.relative_to(docs).as_posix() for page in docs.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", page.read_text()):
        linked = page.parent / target if target else page
        assert linked.exists(), target
        assert not anchor or anchor in _anchors(linked), f"{target}#{anchor}"


def _anchors(page: Path) -> set[str]:
    """Names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_page_of_benchmarks_names_each_command() -> None:
    scripts = (ROOT / "benchmarks").glob("*.py")
    commands = {path.name for path in scripts if '__name__ == "__main__"' in path.read_text()}
    assert set(re.findall(r"`(\w+\.py)`", (ROOT / "benchmarks/README.md").read_text())) == commands
