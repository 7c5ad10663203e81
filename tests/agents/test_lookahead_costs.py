"""Look-ahead as a teacher: errors of its base policy."""

import pytest

from agents.lookahead_costs import LookaheadArguments, play_episode
from envs.cluster import ClusterConfig
from envs.workload import Workload
from hardware_profiles import InputError
from tests.toy import toy_profile

LATE = Workload.of([0.0, 0.01], [1000, 1000], [2, 2], label="nobody is in time", ttft_slo_s=[5.0, 0.001])


@pytest.mark.parametrize("horizon_requests", [0, 3], ids=["placing", "looking ahead"])
def test_a_base_policy_that_rejects_is_an_error(horizon_requests: int) -> None:
    arguments = LookaheadArguments(
        base="mooncake:reject=true", horizon_requests=horizon_requests, best_share=0.0, random_share=0.0
    )
    with pytest.raises(InputError, match="mooncake rejects request 1"):
        play_episode(LATE, ClusterConfig(toy_profile()), arguments, 0)
