"""The page that explains the tags, and the layout's patterns."""

from __future__ import annotations

import re

from jepa_monitor import tags

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
