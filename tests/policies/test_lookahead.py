"""The clairvoyant bound: its rollouts equal the future, and it uses the best candidate that it tried."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import policies
from envs.choices import Choices
from envs.cluster import (
    Cluster,
    ClusterConfig,
    Disturbance,
    Placement,
    Request,
    RequestRecord,
    RequestView,
    RouterView,
    simulate,
    view_of,
)
from envs.generators import generate
from envs.objective import Objective
from envs.workload import Row, Workload
from hardware_profiles import InputError
from policies import PolicySpec, registry
from policies.lookahead import Lookahead
from policies.rollout import SETTLE_S, rollout_cost
from tests.policies.states import HandMade, asks
from tests.toy import toy_profile

TOY = ClusterConfig(toy_profile(), step_budget="fixed")


def burst(requests: int, seed: int, rate_rps: float = 14.0) -> Workload:
    return generate("burst", rate_rps=rate_rps, requests=requests, seed=seed)


def feasible(request: RequestView, view: RouterView) -> list[Placement]:
    """The placements of the feasible choices."""
    choices = Choices.of(request, view, "deflection")
    return [choices.placement(row) for row in choices.feasible_rows()]


class Recorded:
    """A clairvoyant policy that records its placements."""

    clairvoyant = True

    def __init__(self, policy: Lookahead) -> None:
        self.name = policy.name
        self.policy = policy
        self.placements: list[Placement] = []

    def attend(self, cluster: Cluster, requests: list[Row]) -> None:
        self.policy.attend(cluster, requests)

    def place(self, request: RequestView, view: RouterView) -> Placement:
        self.placements.append(self.policy.place(request, view))
        return self.placements[-1]


def placements(workload: Workload, config: ClusterConfig = TOY, **knobs: object) -> list[Placement]:
    recorded = Recorded(Lookahead(**knobs))  # type: ignore[arg-type]
    simulate(workload, recorded, config)
    return recorded.placements


def total_cost(workload: Workload, name: str) -> float:
    """The environment's cost of a whole run, in units of SLOs."""
    policy = policies.make(name)
    cluster = Cluster(TOY, lambda _: None)
    requests = workload.rows()
    if isinstance(policy, Lookahead):
        policy.attend(cluster, requests)
    for number, request in enumerate(requests):
        cluster.clock.advance_to(request[0])
        placed = policy.place(view_of(number, request), cluster.view())
        assert placed is not None
        cluster.submit(Request(number, *request), placed)
    cluster.clock.advance_to(requests[-1][0] + SETTLE_S)
    assert not cluster.lifecycle.first_token_wait.requests
    return cluster.waiting_cost() + cluster.tbt_cost()


# ---- a known answer -------------------------------------------------------------------------------------------------

# 1P1D. A prompt of 6000 tokens keeps the prefill node busy for 0.38 s when one of 1000 (0.06 s alone, SLO 2 s) arrives:
# kairos deflects it. If one of 500 tokens with an SLO of 0.1 s follows at once, the decode node is occupied (cap 1),
# and it waits 0.4 s, four SLOs, behind the long one. Leaving the decode node to it would cost the other only 0.2 SLOs.
LONG, SHORT, URGENT = (0.0, 6000, 5, 2.0), (0.01, 1000, 5, 2.0), (0.012, 500, 5, 0.1)


def arrivals(*requests: tuple[float, int, int, float]) -> Workload:
    arrival_s, prompts, outputs, slos_s = zip(*requests, strict=True)
    return Workload.of(arrival_s, prompts, outputs, label="by hand", ttft_slo_s=slos_s)


@pytest.mark.parametrize("base", ["kairos", "kairos+shortest-ttft"])
def test_the_next_arrival_makes_a_deflection_right_or_wrong(base: str) -> None:
    here, on_prefill = Placement(1, 1, (1000,)), Placement(0, 1)
    for follows, right in (([], here), ([URGENT], on_prefill), ([(5.0, *URGENT[1:])], here)):
        requests = arrivals(LONG, SHORT, *follows).rows()
        cluster = Cluster(ClusterConfig(toy_profile(), shape="1P1D", step_budget="fixed"), lambda _: None)
        cluster.submit(Request(0, *requests[0]), on_prefill)
        cluster.clock.advance_to(SHORT[0])
        asked = view_of(1, requests[1])
        lookahead = Lookahead(horizon=1, base=base)
        lookahead.attend(cluster, requests)
        assert policies.make("kairos").place(asked, cluster.view()) == here
        assert lookahead.place(asked, cluster.view()) == right


def test_the_bases_choice_wins_ties() -> None:
    # Idle prefill nodes cost the same, and the slow decode node costs more.
    workload = arrivals(*[(20.0 * number, 1000, 5, 2.0) for number in range(4)])
    config = ClusterConfig(toy_profile(), shape="3P1D", node_speeds=(1, 1, 1, 0.1))
    assert placements(workload, config, base="static") == [Placement(0, 3)] * 4
    assert [placed.prefill_node for placed in placements(workload, config, base="round-robin")] == [0, 1, 2, 0]
    random = policies.make("random", seed=9)
    drawn = [random.place(asks(1000), HandMade("3P1D")) for _ in workload.rows()]
    assert placements(workload, config, base="random", seed=9) == drawn


# ---- rollouts -------------------------------------------------------------------------------------------------------


class Rolling:
    """A base policy that also rolls out every placement and records the costs of its placements."""

    def __init__(self, base: str, requests: list[Row], horizon: int) -> None:
        self.base = policies.make(base, seed=3)
        self.requests = requests
        self.horizon = horizon
        self.costs: list[float] = []

    def run(self, roll: bool) -> tuple[list[RequestRecord], float]:
        records: list[RequestRecord] = []
        cluster = Cluster(TOY, records.append)
        for number, request in enumerate(self.requests):
            cluster.clock.advance_to(request[0])
            asked = view_of(number, request)
            own = self.base.place(asked, cluster.view())
            assert own is not None
            if roll:
                for placement in feasible(asked, cluster.view()):
                    self.cost(cluster, placement, number)
                self.costs.append(self.cost(cluster, own, number))
            cluster.submit(Request(number, *request), own)
        cluster.clock.advance_to(self.requests[-1][0] + SETTLE_S)
        return records, cluster.waiting_cost() + cluster.tbt_cost() + 2.0 * cluster.tail_cost()

    def cost(self, cluster: Cluster, placement: Placement, number: int) -> float:
        return rollout_cost(
            cluster,
            placement,
            number,
            self.requests,
            self.base,
            horizon_requests=self.horizon,
            objective=Objective(tail_weight=2.0),
        )


@settings(max_examples=5)
@given(base=st.sampled_from(["kairos", "round-robin", "random", "shortest-ttft"]), seed=st.integers(0, 1000))
def test_a_rollout_equals_the_future_and_leaves_no_trace(base: str, seed: int) -> None:
    """The copy is therefore complete, and neither the cluster nor the base policy changes."""
    requests = burst(16, seed).rows()
    undisturbed = Rolling(base, requests, 16).run(roll=False)
    rolling = Rolling(base, requests, 16)
    records, cost = rolling.run(roll=True)
    assert records == undisturbed[0]
    assert cost == pytest.approx(undisturbed[1], rel=1e-12)
    assert rolling.costs == pytest.approx([cost] * 16, rel=1e-9)


@pytest.mark.parametrize("horizon", [1, 4])
def test_arrivals_beyond_the_horizon_have_no_effect(horizon: int) -> None:
    requests = burst(12, seed=1).rows()
    cluster = Cluster(TOY, lambda _: None)
    cluster.clock.advance_to(requests[0][0])
    base = policies.make("static")
    costs = [
        rollout_cost(cluster, Placement(0, 2), 0, known, base, horizon_requests=horizon)
        for known in (requests, requests[: horizon + 1], requests[:horizon])
    ]
    assert costs[0] == costs[1] > costs[2] + 0.01


def test_placements_are_charged_to_the_same_end() -> None:
    """Decodes that break their TBT SLO cost the same, even if one rollout has all first tokens sooner."""
    workload = Workload.of([0.0, 0.0, 1.0], [10, 10, 4000], [5000, 5000, 1], label="slow", tbt_slo_s=0.004)
    requests = workload.rows()
    cluster = Cluster(TOY, lambda _: None)
    for number in (0, 1):
        cluster.submit(Request(number, *requests[number]), Placement(number, 2))
    cluster.clock.advance_to(1.0)
    assert cluster.tbt_cost() > 10.0
    assert len(cluster.lifecycle.first_token_wait.requests) == 2
    cluster.waiting_cost()  # the first tokens of both are out, so no request waits
    assert not cluster.lifecycle.first_token_wait.requests
    # Node 3 is idle and its one token has no gap, so the two costs differ only by the wait for it.
    costs, ttfts_s = [], []
    for placement in (Placement(0, 3), Placement(3, 3, (500,) * 8)):
        costs.append(rollout_cost(cluster, placement, 2, requests, policies.make("static"), horizon_requests=40))
        records: list[RequestRecord] = []
        twin = cluster.copy(records.append)
        twin.submit(Request(2, *requests[2]), placement)
        twin.clock.advance_to(3.0)
        ttfts_s.append(records[0].first_token_s - 1.0)
    assert ttfts_s[1] - ttfts_s[0] > 0.02
    assert costs[1] - costs[0] == pytest.approx((ttfts_s[1] - ttfts_s[0]) / 2.0, abs=1e-9)


# ---- what it promises -----------------------------------------------------------------------------------------------


@settings(max_examples=3)
@given(seed=st.integers(0, 1000))
@pytest.mark.parametrize("base", ["kairos", "static", "round-robin"])
def test_with_the_whole_future_it_is_never_worse_than_its_base(base: str, seed: int) -> None:
    """This is the improvement property of rollout: the base's continuation is always a candidate."""
    workload = burst(22, seed, rate_rps=18.0)
    assert total_cost(workload, f"lookahead:base={base}") <= total_cost(workload, base) * (1 + 1e-9)


def test_it_improves_on_a_short_sighted_base() -> None:
    costs = np.array(
        [[total_cost(burst(50, s), f"{w}kairos") for w in ("lookahead:horizon=15,base=", "")] for s in range(2)]
    )
    assert costs[:, 0].sum() < 0.95 * costs[:, 1].sum()


def test_the_chosen_placement_is_the_cheapest_candidate() -> None:
    workload = burst(30, seed=5)
    requests = workload.rows()
    bases = ["kairos", "shortest-ttft"]

    class Checked(Recorded):
        def __init__(self) -> None:
            super().__init__(Lookahead(base="+".join(bases), horizon=10, tail_weight=4.0))
            self.bases = [policies.make(base) for base in bases]
            self.improved = 0

        def attend(self, cluster: Cluster, requests: list[Row]) -> None:
            super().attend(cluster, requests)
            self.cluster = cluster

        def cost(self, placement: Placement, number: int) -> float:
            return min(
                rollout_cost(
                    self.cluster,
                    placement,
                    number,
                    requests,
                    base,
                    horizon_requests=10,
                    objective=Objective(tail_weight=4.0),
                )
                for base in self.bases
            )

        def place(self, request: RequestView, view: RouterView) -> Placement:
            chosen = super().place(request, view)
            own = [base.place(request, view) for base in self.bases]
            tried = [*own, *feasible(request, view)]
            costs = [self.cost(placement, request.number) for placement in tried if placement is not None]
            assert self.cost(chosen, request.number) == pytest.approx(min(costs), abs=1e-8)
            self.improved += min(costs) < costs[0] - 1e-6
            return chosen

    checked = Checked()
    simulate(workload, checked, TOY)
    assert checked.improved > 3


def test_two_runs_are_equal() -> None:
    workload = burst(25, seed=2)
    knobs = {"base": "kairos+random", "horizon": 10, "seed": 1}
    assert placements(workload, **knobs) == placements(workload, **knobs)


def test_a_request_whose_node_is_lost_is_placed_again() -> None:
    config = ClusterConfig(toy_profile(), disturbances=(Disturbance(1.0, "loss", 3),))
    result = simulate(burst(40, seed=3), Lookahead(horizon=5), config)
    assert result.counters.displaced > 0
    assert not np.isnan([record.last_token_s for record in result.records]).any()


# ---- names and mistakes ---------------------------------------------------------------------------------------------


def test_it_is_always_marked_as_clairvoyant() -> None:
    assert PolicySpec.parse("lookahead").label == "lookahead (clairvoyant)"
    assert (
        PolicySpec.parse("lookahead:horizon=9,base=kairos:cap=2").label
        == "lookahead:horizon=9,base=kairos:cap=2 (clairvoyant)"
    )
    assert PolicySpec.parse("bound=lookahead:horizon=9").label == "bound (clairvoyant)"
    assert PolicySpec.parse(f"{__name__}:Recorded").label == f"{__name__}:Recorded (clairvoyant)"
    assert not any("clairvoyant" in PolicySpec.parse(name).label for name in policies.names())
    assert "lookahead" in policies.bounds()
    assert "lookahead" not in policies.names()


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("lookahead", {}),
        ("lookahead:horizon=7,tail_weight=8", {"horizon": 7, "tail_weight": 8.0}),
        ("lookahead:base=kairos:beta=0.9,cap=2", {"base": "kairos:beta=0.9,cap=2"}),
        ("lookahead:horizon=7,base=static+kairos:cap=2", {"horizon": 7, "base": "static+kairos:cap=2"}),
    ],
)
def test_the_knob_base_takes_the_rest_of_the_name(name: str, same: dict[str, object]) -> None:
    made, meant = policies.make(name), Lookahead(**same)  # type: ignore[arg-type]
    assert isinstance(made, Lookahead)
    for one, other in ((made, meant), (meant, made)):
        assert [vars(base) for base in one._bases] == [vars(base) for base in other._bases]
    left_out = {"_bases"}
    assert {k: v for k, v in vars(made).items() if k not in left_out} == {
        k: v for k, v in vars(meant).items() if k not in left_out
    }


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lookahead:horizon=0", "horizon must be at least 1 request, not 0"),
        ("lookahead:tail_weight=-1", "tail_weight must be a number from 0 on"),
        ("lookahead:tail_weight=nan", "tail_weight must be a number from 0 on"),
        ("lookahead:base=lookahead", "base 'lookahead' is not a registered policy"),
        ("lookahead:base=runs/policy.npz", "base 'runs/policy.npz' is not a registered policy"),
        ("lookahead:base=", "base '' is not a registered policy"),
        ("lookahead:base=kairos+", "base '' is not a registered policy"),
        ("lookahead:base=kairos:cap=0", "cap must be at least 1"),
        ("lookahead:seed=1", "no knob 'seed'; its knobs: horizon, tail_weight, choices, base"),
    ],
)
def test_the_error_for_an_invalid_knob_is_one_line_that_names_it(
    name: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.LOADERS, ".npz", "no_module:that_is_imported")
    with pytest.raises(InputError) as caught:
        policies.make(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_placing_without_the_cluster_is_an_error() -> None:
    with pytest.raises(InputError, match="clairvoyant"):
        Lookahead().place(asks(1000), HandMade("2P2D"))


def test_a_base_that_rejects_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    lookahead = Lookahead(base="static")

    def reject(request: RequestView, view: RouterView) -> None:
        del request, view

    monkeypatch.setattr(lookahead._bases[0], "place", reject)
    with pytest.raises(InputError, match="static rejects request 0"):
        simulate(burst(3, seed=1), lookahead, TOY)
