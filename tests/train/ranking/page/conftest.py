"""One small page for all tests that only read it."""

from __future__ import annotations

import pytest

from tests.train.ranking.page.helpers import Page, small_page


@pytest.fixture(scope="session")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A page of 60 images."""
    return small_page(tmp_path_factory.mktemp("small"))
