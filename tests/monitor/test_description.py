"""The page that explains the tags, TensorBoard's layout of them, and the tables of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import lightning.pytorch as pl
import pytest

from jepa_monitor import JEPAScoreMonitor, tags
from jepa_monitor.description import explanation, layout
from jepa_monitor.gaussianity.dashboard import STATISTICS
from jepa_monitor.measured import ADVICE, MEASURED
from tests.monitor.helpers import Autoencoder, images, loader, true_log_density

DOCS = Path(__file__).resolve().parents[2] / "docs"

LOGGED = [
    "density/spearman",
    "density/spearman_jepa_score",
    "density/spearman_with_noise",
    "scores/log_density_median",
    "density/ood_auroc/mnist",
    "gaussianity/sliced_ep_ratio",
    "gaussianity/sliced_ep_ratio_max",
]


def test_each_pattern_is_one_logged_tag() -> None:
    (charts,) = layout(LOGGED).values()
    patterns = [pattern for kind, wanted in charts.values() for pattern in wanted]
    assert patterns
    for pattern in patterns:
        assert len([tag for tag in [*LOGGED, *tags.NULLS] if re.search(str(pattern), tag)]) == 1, pattern


def test_the_page_of_a_monitor_begins_with_the_picture_to_look_at() -> None:
    assert explanation(iter(LOGGED)).startswith("Begin with the picture `density/story`")
    assert "density/story" not in explanation(["train/loss", "knn/accuracy"])


def test_only_what_is_logged_is_explained() -> None:
    page = explanation(LOGGED)
    assert "`density/ood_auroc/*`" in page
    assert "`scores/log_density_*`" in page
    assert "kendall" not in page


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:Found 1 module.s. in eval mode",
    "ignore:The number of training batches",
    "ignore:The '.*_dataloader' does",
    "ignore:JEPAScoreMonitor. JEPA-SCORE is not computed for the ood sets",
)
def test_every_tag_of_a_measurement_is_explained(tmp_path: Path) -> None:
    truths = {"truth": true_log_density, "other": lambda x: x.flatten(1).sum(1)}
    callback = JEPAScoreMonitor(
        encoder="encoder",
        log_density=truths,
        ood={"noise": 3.0 * images(20, seed=5)},
        probe=images(64, seed=1),
        estimator="subspace",
        budget=None,
        on_error="raise",
    )
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Autoencoder(), loader(), loader(seed=1))
    logged = [*callback.history.values, *tags.NULLS]
    page = explanation(logged)
    rows = re.findall(r"^- \*\*`([^`]+)`", page, re.MULTILINE)
    assert "density/spearman_*" in rows
    for tag in logged:
        assert any(tag == row or (row.endswith("*") and tag.startswith(row[:-1])) for row in rows), tag
    for row in rows:
        assert any(tag == row or (row.endswith("*") and tag.startswith(row[:-1])) for tag in logged), row


def test_a_row_of_many_tags_is_there_for_those_without_one_of_their_own() -> None:
    assert "density/spearman_*" not in explanation(["density/spearman", "density/spearman_jepa_score"])
    assert "density/spearman_*" in explanation(["density/spearman_with_noise"])


def test_charts_of_gaussianity_have_their_lines_and_null() -> None:
    (charts,) = layout(f"gaussianity/{statistic.name}" for statistic in STATISTICS).values()
    drawn = {title: re.findall(r"/(\w+)", " ".join(map(str, lines))) for title, (_, lines) in charts.items()}
    assert drawn == {
        "Gaussianity ratios (1 = Gaussian)": [
            "sliced_ep_ratio",
            "sliced_ep_ratio_max",
            "covariance_error_ratio",
            "norm_variance_ratio",
            "effective_rank_ratio",
            "gaussian_ratio",
        ],
        "skewness and kurtosis, in deviations (0 = Gaussian)": ["skewness_z", "kurtosis_z", "gaussian_deviation"],
    }


def test_monitors_share_charts() -> None:
    (charts,) = layout(["student/density/spearman", "teacher/density/spearman"]).values()
    kind, patterns = charts["rank correlation with the true log density"]
    assert kind == "Multiline"
    assert patterns == [r"^student/density/spearman$", r"^teacher/density/spearman$", r"^reference/uncorrelated$"]


def test_each_tag_has_one_record_and_each_chart_its_lines() -> None:
    names = [tag.name for tag in tags.TAGS]
    assert len(set(names)) == len(names)
    logged = {tag: f"{tag.name}some" if tag.is_beginning else tag.name for tag in tags.TAGS}
    (charts,) = layout(logged.values()).values()
    for tag, name in logged.items():
        drawn_in = [title for title, (_, patterns) in charts.items() if f"^{re.escape(name)}$" in patterns]
        assert drawn_in == ([tag.chart] if tag.chart else []), name
    assert tags.NULL_OF_CHART.keys() <= charts.keys()


def test_the_page_says_what_runs_showed_and_what_to_do() -> None:
    (item,) = [line for line in explanation(["gaussianity/sliced_ep_ratio"]).splitlines() if line.startswith("- ")]
    assert all(re.search(rf"{kind} \d", item) for kind in ("healthy", "off scale", "collapsing"))
    assert "`gaussianity/variance_share`" in item


def test_the_page_has_no_table_which_tensorboard_breaks_into_letters() -> None:
    assert "|" not in explanation(tag.name for tag in tags.TAGS)


def test_what_was_measured_and_what_is_advised_are_tags() -> None:
    names = {tag.name for tag in tags.TAGS}
    assert set(ADVICE) <= names
    assert all(tags.meaning_of(name) for name in MEASURED if not name.startswith("train/"))
    assert {f"gaussianity/{statistic.name}" for statistic in STATISTICS} <= set(MEASURED)
