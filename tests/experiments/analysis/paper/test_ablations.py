"""The variants of kairos."""

from collections import Counter

from experiments.analysis.paper.ablations import ablated, variants
from experiments.analysis.paper.paper_evidence import Place
from policies import PolicySpec
from tests.experiments.analysis.paper.made_up_evidence import RDMA, made_up_evidence, made_up_group, made_up_runs


def test_every_variant_is_a_policy_and_each_knob_has_one_default() -> None:
    for variant in variants():
        assert PolicySpec.parse(variant.policy).make()
    defaults = Counter(variant.knob for variant in variants() if variant.text.endswith("(default)"))
    knobs = {variant.knob for variant in variants()} - {"share deflected at random"}
    assert defaults == dict.fromkeys(knobs, 1)


def test_only_variants_of_the_age_of_reports_run_on_another_cluster() -> None:
    place = Place(RDMA, "burst", 0.95)
    others = [variant for variant in variants() if variant.at(place) != place]
    assert {variant.knob for variant in others} == {"report age (ms)"}
    assert [variant.at(place).setting.report_age_s for variant in others] == [0.0, 0.05, 0.3, 1.0]


def test_a_place_is_ablated_if_every_variant_was_run() -> None:
    place, half = Place(RDMA, "burst", 0.95), Place(RDMA, "burst", 0.7)
    groups = {where: made_up_group([1.0], [1.0]) for where in (place, half)}
    for variant in variants():
        runs = made_up_runs(variant.policy, {"ttft_p95_s": [1.0]})
        groups.setdefault(variant.at(place), {})[variant.policy] = runs
    evidence = made_up_evidence(groups)
    assert ablated(evidence) == [place]
    assert variants()[0].runs(evidence, place) is groups[place][variants()[0].policy]
