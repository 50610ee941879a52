"""The checks of this repository: the report of skipped tests, and the same tools wherever they are called."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = '<testcase classname="{module}" name="{name}"><skipped type="pytest.skip" message="{why}"/></testcase>'
PASSED = '<testcase classname="{module}" name="{name}"/>'


def report(path: Path, *cases: str) -> Path:
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return path


def skipped(*reports: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ROOT / ".ci/skipped", *reports], capture_output=True, text=True)


def test_a_test_that_no_section_runs_is_an_error(tmp_path: Path) -> None:
    first = report(
        tmp_path / "first.xml",
        PASSED.format(module="tests.test_a", name="test_one"),
        SKIPPED.format(module="tests.test_a", name="test_two", why="needs the package"),
        SKIPPED.format(module="", name="tests.test_peers", why="needs the package"),
        SKIPPED.format(module="tests.test_a", name="test_fast", why="needs a GPU"),
    )
    ended = skipped(first)
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[1:] == [
        "  tests.test_a.test_two: needs the package",
        "  tests.test_peers: needs the package",
    ]
    second = report(
        tmp_path / "second.xml",
        PASSED.format(module="tests.test_a", name="test_two"),
        PASSED.format(module="tests.test_peers", name="test_three"),
    )
    assert skipped(first, second).returncode == 0


def test_a_report_of_pytest_is_read(tmp_path: Path) -> None:
    test = "import pytest\ndef test_that():\n    pytest.skip('no time')\ndef test_other(): pass\n"
    (tmp_path / "test_here.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--junitxml=report.xml", "test_here.py"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    ended = skipped(tmp_path / "report.xml")
    assert (ended.returncode, ended.stdout.splitlines()[1:]) == (1, ["  test_here.test_that: no time"])


def test_the_same_tools_before_a_commit_and_in_ci() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [source["repo"] for source in hooks] == ["local"]  # nothing of its own version
    commands = {hook["entry"] for source in hooks for hook in source["hooks"]}
    assert {hook["language"] for source in hooks for hook in source["hooks"]} == {"system"}
    in_ci = re.findall(r'^"\$work/test/bin/((?:ruff|mypy)".*)$', (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert commands == {command.replace('"', "") for command in in_ci}
    documented = (ROOT / "CONTRIBUTING.md").read_text()
    assert all(command in documented for command in commands)


@pytest.mark.parametrize("name", ["ruff", "mypy", "build", "pre-commit"])
def test_tools_have_one_list_of_versions(name: str) -> None:
    """That is the extra dev, which CI installs."""
    assert f'"{name}>=' in (ROOT / "pyproject.toml").read_text()
    assert 'install --quiet -e ".[dev]"' in (ROOT / ".ci/run").read_text()


def test_the_workflow_only_calls_ci() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
