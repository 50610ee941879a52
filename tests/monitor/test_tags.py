"""The page that explains the tags, and the layout's patterns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jepa_monitor import tags
from tests.monitor.projects import Autoencoder, images, loader, true_log_density
from tests.monitor.test_monitor import monitor, trainer

pytestmark = pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")

LOGGED = [
    "density/spearman",
    "density/spearman_jepa_score",
    "density/spearman_ambient",
    "density/log_density_median(nats)",
    "density/ood_auroc/mnist",
    "gaussianity/sliced_ep_ratio",
    "gaussianity/sliced_ep_ratio_max",
]


def test_each_pattern_is_one_logged_tag() -> None:
    (charts,) = tags.layout(LOGGED).values()
    patterns = [pattern for kind, wanted in charts.values() for pattern in wanted]
    assert patterns
    for pattern in patterns:
        assert "(" not in str(pattern)  # TensorBoard draws no line for such a tag
        assert len([tag for tag in [*LOGGED, *tags.NULLS] if re.search(str(pattern), tag)]) == 1, pattern


def test_only_what_is_logged_is_explained() -> None:
    page = tags.explanation(LOGGED)
    assert "`density/ood_auroc/*`" in page
    assert "`density/log_density_*`" in page
    assert "kendall" not in page


def test_every_tag_of_a_measurement_is_explained(tmp_path: Path) -> None:
    truths = {"truth": true_log_density, "other": lambda x: x.flatten(1).sum(1)}
    callback = monitor(
        log_density=truths, ood={"noise": 3.0 * images(20, seed=5)}, probe=images(64, seed=1), estimator="sketch"
    )
    trainer(tmp_path, callback).fit(Autoencoder(), loader(), loader(seed=1))
    logged = [*callback.history.values, *tags.NULLS]
    page = tags.explanation(logged)
    rows = re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)
    assert "density/spearman_*" in rows
    for tag in logged:
        assert any(tag == row or (row.endswith("*") and tag.startswith(row[:-1])) for row in rows), tag
    for row in rows:
        assert any(tag == row or (row.endswith("*") and tag.startswith(row[:-1])) for tag in logged), row


def test_a_row_of_many_tags_is_there_for_those_without_one_of_their_own() -> None:
    assert "density/spearman_*" not in tags.explanation(["density/spearman", "density/spearman_jepa_score"])
    assert "density/spearman_*" in tags.explanation(["density/spearman_ambient"])


def test_monitors_share_charts() -> None:
    (charts,) = tags.layout(["student/density/spearman", "teacher/density/spearman"]).values()
    kind, patterns = charts["rank correlation with the true log density"]
    assert kind == "Multiline"
    assert patterns == [r"^student/density/spearman$", r"^teacher/density/spearman$", r"^null/correlation$"]
