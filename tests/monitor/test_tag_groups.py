"""Tags that are lost together are those that are logged together."""

from __future__ import annotations

from jepa_monitor.tag_groups import HEADLINE_TAGS, REFERENCE_TAGS, USUAL_TAGS, reference_tags, set_tags, truth_tags
from jepa_monitor.tags import meaning_of


def test_every_tag_of_a_group_has_a_record() -> None:
    names = [*USUAL_TAGS, *reference_tags(["far"]), *set_tags("far"), *HEADLINE_TAGS]
    assert len(set(names)) == len(names) - len(set(reference_tags(["far"])) & set(set_tags("far")))
    assert all(meaning_of(name) for name in names)
    assert not any(name.endswith(("/", "_")) for name in names)


def test_a_set_has_tags_of_its_own_and_more_with_a_reference() -> None:
    alone = set_tags("far", has_reference=False)
    assert {"density/ood_auroc/far", "density/ood_auroc_embedding/far"} <= set(alone)
    assert set(set_tags("far")) - set(alone) == set(reference_tags(["far"])) - set(REFERENCE_TAGS)
    assert set(set_tags("far")).isdisjoint(set_tags("near"))


def test_the_headline_has_more_tags_than_a_further_truth() -> None:
    assert "scores/kendall" in truth_tags("factors", headline=True)
    assert truth_tags("with_noise", headline=False)[0] == "density/spearman_with_noise"
