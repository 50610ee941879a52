"""Print how the two packages read: sizes, words, names, and tests. Run ``python tests/house.py``.

The packages are parsed, not imported. Functions are measured without their docstrings.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
SMALL_FILE, LARGE_FILE, LONG_FUNCTION = 60, 350, 40  # lines
# what a docstring does not begin with: it is a sentence with a verb, or names the thing
NO_BEGINNING = re.compile(
    """
    about|above|across|after|against|along|among|around|as|at|because|before|behind|below|beneath|beside|between|beyond|
    by|down|during|except|for|from|if|in|inside|into|like|near|of|off|on|onto|out|outside|over|past|per|since|than|
    through|throughout|to|towards?|under|until|up|upon|via|while|with|within|without|
    are|can|could|did|does|has|how|is|should|was|were|what|when|where|whether|which|who|whom|whose|why|will|would
    """,
    re.VERBOSE,
)
NO_BEGINNING_OF_AN_ARGUMENT = re.compile("at|by|for|from|in|of|on|to|with")
SECTIONS = ("Args:", "Arguments:", "Attributes:")

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file.

    Attributes:
        path: place, relative to the root of the repository.
        text: the whole file.
    """

    path: Path
    text: str

    @classmethod
    def read(cls, path: Path) -> Source:
        """Read a file of the repository."""
        return cls(path.relative_to(ROOT), path.read_text())

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text)

    @property
    def lines(self) -> int:
        """Number of lines."""
        return self.text.count("\n")

    def docstrings(self) -> Iterator[tuple[int, str]]:
        """Yield line number and text of every docstring."""
        for node in ast.walk(self.tree):
            if isinstance(node, Documented) and (text := ast.get_docstring(node)):
                yield node.body[0].lineno, text

    def functions(self) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
        """Yield every function with its number of lines, from ``def`` to its end without the docstring."""
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = node.body[0]
                documentation = first.end_lineno - first.lineno + 1 if ast.get_docstring(node, clean=False) else 0
                yield node, node.end_lineno - node.lineno + 1 - documentation

    def imports(self) -> Iterator[tuple[int, str, str]]:
        """Yield line number, module and name of everything imported; the name is empty in ``import module``."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name, "") for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                yield from ((node.lineno, module, alias.name) for alias in node.names)


@dataclass(frozen=True)
class Package:
    """One import package and the folder of its tests.

    Attributes:
        folder: the package, relative to the root.
        tests: folders in which the tree of tests is looked for.
        sources: files of the package.
    """

    folder: Path
    tests: tuple[Path, ...]
    sources: tuple[Source, ...]

    @classmethod
    def read(cls, folder: str, *tests: str) -> Package:
        """Read all files of a package."""
        return cls(
            Path(folder), tuple(map(Path, tests)), tuple(map(Source.read, sorted((ROOT / folder).rglob("*.py"))))
        )

    def small_files(self) -> list[str]:
        """Files below 60 lines."""
        return [f"{source.path} {source.lines}" for source in self.sources if source.lines < SMALL_FILE]

    def large_files(self) -> list[str]:
        """Files above 350 lines."""
        return [f"{source.path} {source.lines}" for source in self.sources if source.lines > LARGE_FILE]

    def long_functions(self) -> list[str]:
        """Functions above 40 lines."""
        return [
            f"{source.path}:{node.lineno} {node.name} {lines}"
            for source in self.sources
            for node, lines in source.functions()
            if lines > LONG_FUNCTION
        ]

    def docstrings_without_subject(self) -> list[str]:
        """Docstrings that begin with a preposition or a question word, or whose first sentence is a question."""
        return [
            f"{source.path}:{line} {text.splitlines()[0]}"
            for source in self.sources
            for line, text in source.docstrings()
            if NO_BEGINNING.fullmatch(first_word(text)) or text.splitlines()[0].endswith("?")
        ]

    def arguments_without_subject(self) -> list[str]:
        """Argument texts that begin with a preposition."""
        return [
            f"{source.path}:{line} {name}: {text}"
            for source in self.sources
            for line, documentation in source.docstrings()
            for name, text in argument_texts(documentation)
            if NO_BEGINNING_OF_AN_ARGUMENT.fullmatch(first_word(text))
        ]

    def duplicate_names(self) -> list[str]:
        """Names that two files, or a file and a folder, have in common."""
        files = [source.path.stem for source in self.sources if source.path.stem != "__init__"]
        folders = [path.name for path in {source.path.parent for source in self.sources}]
        return sorted(name for name, count in Counter(files + folders).items() if count > 1)

    def modules_without_test(self) -> list[str]:
        """Modules without ``test_<module>.py`` in the mirrored folder."""
        modules = [source.path for source in self.sources if source.path.stem not in ("__init__", "__main__")]
        return [str(path) for path in modules if not any((ROOT / test).is_file() for test in self._mirrored(path))]

    def _mirrored(self, module: Path) -> list[Path]:
        inside = module.relative_to(self.folder)
        return [folder / inside.with_name(f"test_{inside.name}") for folder in self.tests]


def packages() -> dict[str, Package]:
    """Read both packages; a test of a module at the top of jepa_train may stand at the top of the tests."""
    return {
        "jepa_monitor": Package.read("callbacks/jepa_monitor", "tests/monitor"),
        "jepa_train": Package.read("jepa_train", "tests/train", "tests"),
    }


def docstrings_of_tests_without_subject() -> list[str]:
    """Docstrings of tests and benchmarks that begin with a preposition or a question word."""
    return [
        f"{source.path}:{line} {text.splitlines()[0]}"
        for folder in ("tests", "benchmarks")
        for source in map(Source.read, sorted((ROOT / folder).rglob("*.py")))
        for line, text in source.docstrings()
        if NO_BEGINNING.fullmatch(first_word(text))
    ]


def forbidden_imports() -> list[str]:
    """Imports of tests from another file of tests, or of a private name of this repository."""
    found = []
    for source in map(Source.read, sorted((ROOT / "tests").rglob("*.py"))):
        for line, module, name in source.imports():
            parts = [*module.split("."), *name.split(".")]
            ours = parts[0] in ("", "jepa_monitor", "jepa_train", "tests", "benchmarks")
            if ours and any(re.match("test_|_[^_]", part) for part in parts):
                found.append(f"{source.path}:{line} {module} {name}")
    return found


def first_word(text: str) -> str:
    """First word of a text in lower case, with its hyphens and without quotes and marks around it."""
    return re.match(r"\W*([\w-]*)", text)[1].lower()


def argument_texts(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of what stands in the sections of a docstring that describe arguments or attributes."""
    inside = False
    for line in docstring.splitlines():
        if line and not line.startswith(" "):
            inside = line in SECTIONS
        elif inside and (entry := re.match(r" {4}([\w*`., ]+?)(?: \([^)]*\))?: (.*)", line)):
            yield entry[1], entry[2]


def report(title: str, found: list[str]) -> None:
    """Print a number and what it counts."""
    print(f"  {title}: {len(found)}")
    for line in found:
        print(f"    {line}")


def main() -> None:
    """Print all of it."""
    for name, package in packages().items():
        lines = [source.lines for source in package.sources]
        print(f"{name}: {len(lines)} files, {sum(lines)} lines, median {median(lines):g}")
        small = len(package.small_files())
        print(f"  files below {SMALL_FILE} lines: {small} ({small / len(lines):.0%})")
        report(f"files above {LARGE_FILE} lines", package.large_files())
        report(f"functions above {LONG_FUNCTION} lines", package.long_functions())
        docstrings = sum(1 for source in package.sources for _ in source.docstrings())
        report(f"of {docstrings} docstrings begin with a preposition or ask", package.docstrings_without_subject())
        report("argument texts that begin with a preposition", package.arguments_without_subject())
        report("names that are used twice", package.duplicate_names())
        report("modules without a test of their name", package.modules_without_test())
    report("docstrings of tests that begin with a preposition", docstrings_of_tests_without_subject())
    report("tests that import from another test, or a private name", forbidden_imports())


if __name__ == "__main__":
    main()
