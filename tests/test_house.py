"""The packages keep to the rules that ``python tests/house.py`` prints: words, names, sizes, and a test a module."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import (
    Package,
    Source,
    argument_texts,
    docstrings_of_tests_without_subject,
    forbidden_imports,
    packages,
)

PACKAGES = packages()
every_package = pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)


@every_package
def test_docstrings_begin_with_a_verb_or_a_thing(package: Package) -> None:
    assert not package.docstrings_without_subject()
    assert not package.arguments_without_subject()


@every_package
def test_no_two_files_have_one_name_and_none_is_too_long(package: Package) -> None:
    assert not package.duplicate_names()
    assert len(package.large_files()) <= 1


@every_package
def test_each_module_has_a_test_of_its_name(package: Package) -> None:
    assert not package.modules_without_test()


def test_docstrings_of_tests_begin_so_too() -> None:
    assert not docstrings_of_tests_without_subject()


def test_tests_import_neither_each_other_nor_private_names() -> None:
    assert not forbidden_imports()


def of_files(**texts: str) -> Package:
    sources = tuple(Source(Path("package") / f"{name.replace('__', '/')}.py", text) for name, text in texts.items())
    return Package(Path("package"), (Path("tests"),), sources)


def test_beginnings_without_a_subject_are_found() -> None:
    good = '"""In-memory data."""\ndef f():\n    """Return it."""\n'
    bad = '"""Of all data."""\nclass A:\n    """Is it whole?"""\ndef f():\n    """``What`` it is."""\n'
    found = of_files(good=good, bad=bad).docstrings_without_subject()
    assert sorted(line.split()[0] for line in found) == ["package/bad.py:1", "package/bad.py:3", "package/bad.py:5"]


def test_arguments_are_read_from_their_sections_alone() -> None:
    text = "Do it.\n\nArgs:\n    a, b: of it.\n        of more.\n    *c (int): in nats.\n\nReturns:\n    d: of all.\n"
    assert list(argument_texts(text)) == [("a, b", "of it."), ("*c", "in nats.")]


def test_names_are_compared_with_folders_too() -> None:
    assert of_files(one__same="", two__same="", other="").duplicate_names() == ["same"]
    assert of_files(one="", one__thing="").duplicate_names() == ["one"]


def test_lengths_leave_docstrings_out() -> None:
    body = "    x = 1\n" * 39
    documented = 'def f():\n    """Do.\n\n    More.\n    """\n' + body
    assert not of_files(one=documented).long_functions()
    assert of_files(one=documented + body).long_functions() == ["package/one.py:1 f 79"]
