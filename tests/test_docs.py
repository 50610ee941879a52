"""Every Python example of README and docs runs, and every command names things that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.monitor.helpers import Autoencoder, images, loader

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

LONG = {"monitor", "ranking"}  # pages whose examples take more than a second


def blocks(language: str) -> list[Any]:
    found = []
    for page in PAGES:
        for number, code in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)):
            found.append(pytest.param(code, id=f"{page.stem}-{number}"))
    return found


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.stem, marks=pytest.mark.slow if page.stem in LONG else ()) for page in PAGES]
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
