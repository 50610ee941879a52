"""Scalars of readings made by hand, reasons for NaN, and alarms: when they ring, and what is logged of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from jepa_monitor.density import IntrinsicDimension
from jepa_monitor.evaluation import recovery
from jepa_monitor.gaussianity import gaussianity_statistics
from jepa_monitor.probe.facts import ProbeFacts
from jepa_monitor.probe.pixels import principal_components
from jepa_monitor.readings import Readings, Scores
from jepa_monitor.scalars import MESSAGES, alarms, changes, problems, scalars, variance_share


def cloud(k: int) -> torch.Tensor:
    return torch.randn(256, k, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def readings(n: int = 40, scored: int = 30) -> Readings:
    """Readings of n samples; ``scored`` of them have a Jacobian with singular values 2 and 0, which is clipped."""
    log_singular = torch.tensor([math.log(2.0), math.log(1e-6)], dtype=torch.float64).expand(scored, 2)
    scores = Scores(cloud(4)[:scored, 0], cloud(4)[:scored, 1], {"embedding": cloud(4)[:n, 2]})
    return Readings(
        z=cloud(4)[:n],
        z_white=None,
        log_singular=log_singular,
        rank=2,
        dimension=IntrinsicDimension(1.8, 1.5, 2.2),
        scores=scores,
        gaussian=cloud(4)[:scored, 1] + cloud(4)[:scored, 0],
        knn=cloud(4)[:n, 2].exp(),
        ood={"far": Scores(scores.jepa_score - 1.0, scores.log_density - 3.0, {"embedding": cloud(4)[:9, 2] - 2.0})},
    )


FACTS = ProbeFacts(
    truths={"factors": cloud(4)[:40, 1] + cloud(4)[:40, 3], "with_noise": cloud(4)[:40, 3]},
    gaussian=cloud(4)[:40, 3],
    complexity=cloud(4)[:40, 0],
    reference=None,
    headline="factors",
)


def test_scalars_are_scipys_and_scikit_learns_on_the_scored_samples() -> None:
    made = readings()
    values, density = scalars(made, FACTS), made.scores.log_density
    for suffix, truth in {"": FACTS.truths["factors"], "_with_noise": FACTS.truths["with_noise"]}.items():
        for name, score in {
            "": density,
            "_gaussian_embedding": made.gaussian,
            "_jepa_score": made.scores.jepa_score,
            "_gaussian": cloud(4)[:30, 3],
        }.items():
            expected = stats.spearmanr(score, truth[:30]).statistic
            assert values[f"density/spearman{name}{suffix}"] == pytest.approx(expected), name + suffix
    kendall = stats.kendalltau(density, FACTS.truths["factors"][:30]).statistic
    assert values["scores/kendall"] == pytest.approx(kendall)
    assert "scores/kendall_with_noise" not in values
    nearest = stats.spearmanr(density, -cloud(4)[:30, 2].exp()).statistic
    assert values["scores/knn_spearman"] == pytest.approx(nearest)
    both = torch.cat([density, made.ood["far"].log_density])
    assert values["density/ood_auroc/far"] == pytest.approx(roc_auc_score([1] * 30 + [0] * 30, both))
    two_sided = -abs(both.numpy() - np.median(density))
    assert values["density/ood_auroc_typicality/far"] == pytest.approx(roc_auc_score([1] * 30 + [0] * 30, two_sided))
    rejected = roc_curve([0] * 30 + [1] * 30, -both)
    assert values["density/ood_fpr95_ood_positive/far"] == rejected[0][rejected[1] >= 0.95][0]
    by_embedding = torch.cat([cloud(4)[:40, 2], cloud(4)[:9, 2] - 2.0])  # of all samples
    assert values["density/ood_auroc_embedding/far"] == pytest.approx(roc_auc_score([1] * 40 + [0] * 9, by_embedding))
    assert values["scores/log_density_q90"] == pytest.approx(np.quantile(density, 0.9))
    of_all_samples = gaussianity_statistics(made.z)
    assert values["gaussianity/mean_error_ratio"] == of_all_samples["mean_error_ratio"]
    assert values["jacobian/clipped_fraction"] == 0.5
    assert values["jacobian/condition_log10"] == pytest.approx(math.log10(2e6))
    assert (values["jacobian/rank"], values["jacobian/nonfinite_fraction"]) == (2.0, 0.0)
    ends = (values[f"jacobian/intrinsic_dimension{end}"] for end in ("", "_low", "_high"))
    assert tuple(ends) == (1.8, 1.5, 2.2)


def test_tags_of_what_is_not_there_are_absent() -> None:
    bare = replace(readings(), knn=None, ood={})
    values = scalars(bare, replace(FACTS, truths={}, gaussian=None))
    assert not [tag for tag in values if tag.startswith(("density/spearman", "density/knn", "density/ood"))]
    assert "scores/subspace_spearman" not in values
    assert scalars(replace(bare, subspace_spearman=0.9), FACTS)["scores/subspace_spearman"] == 0.9


def test_a_checkpoint_is_kept_by_what_the_features_know_of_the_inputs() -> None:
    inputs = cloud(12)[:40]
    whole, known = replace(readings(), features=readings().z), replace(FACTS, components=principal_components(inputs))
    assert "monitor/keep" not in scalars(whole, FACTS)  # inputs of no images
    assert "monitor/keep" not in scalars(readings(), known)  # features that failed
    of_embeddings = scalars(whole, known)["monitor/keep"]
    assert of_embeddings == pytest.approx(recovery(readings().z, inputs))
    features = replace(readings(), features=inputs[:, :6])
    values = scalars(features, known)
    assert values["monitor/keep"] == pytest.approx(recovery(inputs[:, :6], inputs))
    assert values["monitor/keep"] > of_embeddings
    for broken, why in (
        (replace(readings(), features=torch.ones(40, 6)), "collapsed to a point"),
        (
            replace(readings(), features=inputs / 0.0),
            "0 of 40 samples have finite features and inputs",
        ),
    ):
        assert math.isnan(scalars(broken, known)["monitor/keep"])
        (reason,) = [text for text in problems(broken, known, advice="") if "keep" in text]
        assert why in reason
    some = torch.cat([inputs[:30], inputs[30:] / 0.0])
    values = scalars(whole, replace(FACTS, components=principal_components(some)))
    assert values["monitor/keep"] == pytest.approx(recovery(readings().z[:30], inputs[:30]))
    constant = replace(FACTS, components=principal_components(torch.ones(40, 12)))
    assert "monitor/keep is NaN: the inputs do not vary, or few of them are finite." in problems(
        whole, constant, advice=""
    )


def test_each_nan_has_a_reason() -> None:
    made = replace(readings(), rank=1)
    assert [name for name in problems(made, FACTS, advice="") if "imprecise" not in name] == []
    (reason,) = [reason for reason in problems(readings(), FACTS, advice="") if "rank" in reason]
    assert "fewer than rank = 2 directions in torch.float32: give a smaller rank" in reason
    constant = replace(made, scores=replace(made.scores, log_density=torch.zeros(30)))
    assert math.isnan(scalars(constant, FACTS)["density/spearman"])
    assert "log density cannot be ranked: all values are equal" in problems(constant, FACTS, advice="")
    far = made.ood["far"]
    broken = replace(made, ood={"far": Scores(far.jepa_score * torch.nan, far.log_density * torch.nan)})
    assert math.isnan(scalars(broken, FACTS)["density/ood_auroc/far"])
    (reason,) = [reason for reason in problems(broken, FACTS, advice="") if "far" in reason]
    assert reason.endswith("cannot be ranked: 30 of 30 scores are not finite.")
    broken = replace(made, ood={"far": replace(far, of_embeddings={"embedding": torch.full((9,), torch.nan)})})
    (reason,) = [reason for reason in problems(broken, FACTS, advice="") if "far" in reason]
    assert reason.endswith("cannot be ranked: 9 of 9 embeddings are not finite.")
    unmeasured = replace(made, ood={"far": replace(far, jepa_score=torch.empty(0), log_density=torch.empty(0))})
    assert math.isnan(scalars(unmeasured, FACTS)["density/ood_auroc/far"])
    (reason,) = [reason for reason in problems(unmeasured, FACTS, advice="") if "far" in reason]
    assert reason.startswith(
        "the budget has no time for Jacobians of the ood sets 'far', which are ranked by their emb"
    )
    few = replace(readings(n=4, scored=4), problem="4 samples of 4 dimensions.", rank=0, dimension=None)
    for tag in ("jacobian/intrinsic_dimension", "jacobian/rank", "jacobian/condition_log10"):
        assert math.isnan(scalars(few, FACTS)[tag])
    assert problems(few, FACTS, advice="raise num_samples")[0] == (
        "there is no log density: 4 samples of 4 dimensions; to measure more than 4 samples, raise num_samples."
    )


def of_cloud(z: torch.Tensor) -> dict[str, str]:
    values = {f"gaussianity/{name}": value for name, value in gaussianity_statistics(z).items()}
    return alarms(values | {"gaussianity/variance_share": variance_share(z)}, embedding_size=z.shape[1])


@pytest.mark.parametrize("k", [1, 2, 32])
def test_a_gaussian_does_not_ring(k: int) -> None:
    assert of_cloud(cloud(k)) == {}
    assert of_cloud(1e-3 * cloud(k) + 0.1) == {}


@pytest.mark.parametrize("k", [2, 32])
def test_a_line_rings(k: int) -> None:
    line = cloud(k)[:, :1] * torch.ones(1, k, dtype=torch.float64)
    assert list(of_cloud(line + 1e-4 * cloud(k))) == ["monitor/alarm_collapse"]


@pytest.mark.parametrize(
    ("first", "now", "rings"),
    [
        (0.5, 1e-3, True),
        (0.015, 1e-3, True),
        (0.005, 1e-3, False),  # hardly less than in the beginning
        (0.5, 3e-3, False),  # varies
        (math.nan, 1e-3, False),  # the first measurement
        (math.nan, 1e-7, True),
    ],
)
def test_a_variance_that_vanishes_while_training_rings(first: float, now: float, rings: bool) -> None:
    values = {"gaussianity/effective_rank_ratio": 0.9, "gaussianity/variance_share": now}
    assert ("monitor/alarm_collapse" in alarms(values, embedding_size=8, first_variance_share=first)) == rings


@pytest.mark.parametrize("z", [torch.zeros(64, 4), torch.ones(64, 4), 1.0 + 1e-5 * cloud(4)])
def test_a_point_rings(z: torch.Tensor) -> None:
    assert "variance" in of_cloud(z.double())["monitor/alarm_collapse"]


def test_jacobians_and_rankings() -> None:
    assert alarms({"jacobian/nonfinite_fraction": 0.0, "density/stability": math.nan}, embedding_size=4) == {}
    ringing = alarms({"jacobian/nonfinite_fraction": 0.25, "density/stability": -0.5}, embedding_size=4)
    assert ringing == {
        "monitor/alarm_nonfinite_jacobian": "25.0 % of the samples",
        "monitor/alarm_turned_over": "rank correlation -0.50",
    }
    assert ringing.keys() <= MESSAGES.keys()


def test_each_alarm_is_warned_of_when_it_begins_and_when_it_ends() -> None:
    ringing = {"monitor/alarm_collapse": "why"}
    assert changes({}, ringing) == ["the embeddings have collapsed: why."]
    assert changes(ringing, {"monitor/alarm_collapse": "another reason"}) == []
    assert changes(ringing, {}) == ["the embeddings are no longer collapsed."]


def test_variance_share() -> None:
    z = cloud(3) + 2.0
    assert variance_share(z) == pytest.approx(float(z.var(0, correction=0).sum() / z.square().sum(1).mean()))
    assert math.isnan(variance_share(z[:1]))
