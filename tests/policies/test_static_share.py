"""Deflection of a fixed share of the prompts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_profiles import InputError
from policies.always_local import AlwaysLocal
from policies.fixed import Static
from policies.static_share import StaticShare
from tests.policies.states import HandMade, asks, requests, views


@given(view=views(), request=requests)
def test_share_0_is_static_and_share_1_is_always_local(view: HandMade, request: object) -> None:
    assert StaticShare(share=0.0).place(request, view) == Static().place(request, view)
    assert StaticShare(share=1.0).place(request, view) == AlwaysLocal().place(request, view)


@given(share=st.floats(0.05, 0.95), seed=st.integers(0, 1000))
def test_the_given_share_is_deflected(share: float, seed: int) -> None:
    policy, view, count = StaticShare(share, seed=seed), HandMade("1P1D"), 2000
    deflected = sum(policy.place(asks(100), view).prefill_node == 1 for _ in range(count))
    assert abs(deflected / count - share) < 6 * (share * (1 - share) / count) ** 0.5


def test_the_seed_determines_the_deflected_prompts() -> None:
    view = HandMade("1P1D")
    chosen = [[policy.place(asks(100), view) for _ in range(100)] for policy in map(made, (1, 1, 2))]
    assert chosen[0] == chosen[1] != chosen[2]


def made(seed: int) -> StaticShare:
    return StaticShare(0.5, seed=seed)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_to_1_is_an_error(share: float) -> None:
    with pytest.raises(InputError, match="share must be from 0 to 1"):
        StaticShare(share)
