"""Laws of the network: invariance to order and number of choices, and masking."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import ConstantSchedule

from agents.discounting import symexp
from agents.layout import MASKED_SCORE
from agents.placement_network import CentredLinear, PlacementNetwork
from agents.sb3_policy import PlacementActorCritic
from tests.agents.observations import SIZES, as_tensors, choice_counts, make_network, make_observation, seeds
from tests.agents.standin_env import ShortestQueueEnv, observation_space

few = settings(max_examples=40)


@few
@given(seeds, choice_counts)
def test_permuting_the_choices_permutes_the_scores_and_keeps_the_value(seed: int, choices: int) -> None:
    network, observation = make_network(seed), make_observation(seed, choices, batch=3)
    order = np.random.default_rng(seed).permutation(choices)
    permuted = observation | {key: observation[key][:, order] for key in ("choices", "action_mask")}
    with torch.no_grad():
        scores, values = network(as_tensors(observation))
        permuted_scores, permuted_values = network(as_tensors(permuted))
    torch.testing.assert_close(scores[:, order], permuted_scores, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(values, permuted_values, atol=1e-5, rtol=1e-5)


@few
@given(seeds, choice_counts)
def test_padding_with_absent_choices_changes_nothing(seed: int, choices: int) -> None:
    network, observation = make_network(seed), make_observation(seed, choices, batch=3)
    padded = observation | {
        "choices": np.pad(observation["choices"], ((0, 0), (0, 2), (0, 0))),
        "action_mask": np.pad(observation["action_mask"], ((0, 0), (0, 2))),
    }
    with torch.no_grad():
        scores, values = network(as_tensors(observation))
        padded_scores, padded_values = network(as_tensors(padded))
    torch.testing.assert_close(scores, padded_scores[:, :choices], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(values, padded_values, atol=1e-5, rtol=1e-5)


@few
@given(seeds, choice_counts)
def test_a_masked_choice_has_probability_0_but_is_in_the_summary(seed: int, choices: int) -> None:
    network, observation = make_network(seed), make_observation(seed, choices)
    scores, values = network(as_tensors(observation))
    masked = torch.as_tensor(observation["action_mask"]) == 0
    assert (scores[masked] == MASKED_SCORE).all()
    assert torch.softmax(scores, dim=1)[masked].sum() == 0
    if masked.any():
        observation["choices"][0, int(masked[0].nonzero()[0, 0])] = 1.0
        assert network(as_tensors(observation))[1] != values


@few
@given(seeds, st.booleans())
def test_a_centred_layer_equals_a_layer_over_shifted_inputs(seed: int, bias: bool) -> None:
    torch.manual_seed(seed)
    layer, values = CentredLinear(5, 3, bias=bias), torch.rand(7, 5)
    torch.testing.assert_close(layer(values), torch.nn.functional.linear(2.0 * values - 1.0, layer.weight, layer.bias))


def test_the_policy_never_samples_a_masked_choice_and_has_a_finite_entropy() -> None:
    policy = PlacementActorCritic(observation_space(6), ShortestQueueEnv(6).action_space, ConstantSchedule(1e-3))
    observation = make_observation(seed=1, choices=6, batch=500)
    tensors = as_tensors(observation)
    actions, values, log_probabilities = policy(tensors)
    assert observation["action_mask"][np.arange(500), actions].all()
    again, log_probabilities_again, entropy = policy.evaluate_actions(tensors, actions)
    torch.testing.assert_close((values, log_probabilities), (symexp(again), log_probabilities_again))
    assert torch.isfinite(entropy).all()
    entropy.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in policy.parameters())


@few
@given(seeds, choice_counts)
def test_the_policys_fast_methods_equal_those_of_the_base_class(seed: int, choices: int) -> None:
    policy = PlacementActorCritic(
        observation_space(choices), ShortestQueueEnv(choices).action_space, ConstantSchedule(1e-3)
    )
    policy.network.load_state_dict(make_network(seed, hidden=32).state_dict())
    tensors = as_tensors(make_observation(seed, choices, batch=5))
    actions, values, log_probabilities = policy(tensors)
    expected_values, expected, entropies = ActorCriticPolicy.evaluate_actions(policy, tensors, actions)
    torch.testing.assert_close((values, log_probabilities), (symexp(expected_values), expected))
    torch.testing.assert_close(values, policy.predict_values(tensors))
    evaluated = policy.evaluate_actions(tensors, actions)
    torch.testing.assert_close(evaluated, (expected_values, log_probabilities, entropies))
    likeliest, *_ = policy(tensors, deterministic=True)
    torch.testing.assert_close(likeliest, policy.get_distribution(tensors).mode())


@few
@given(seeds, choice_counts, st.floats(0, 1), st.floats(0, 1))
def test_the_bonus_is_the_entropy_minus_the_divergence_from_the_anchor(
    seed: int, choices: int, entropy_weight: float, kl_weight: float
) -> None:
    policy = PlacementActorCritic(
        observation_space(choices), ShortestQueueEnv(choices).action_space, ConstantSchedule(1e-3)
    )
    policy.network.load_state_dict(make_network(seed, hidden=32).state_dict())
    anchor = make_network(seed + 1, hidden=32)
    tensors = as_tensors(make_observation(seed, choices, batch=5))
    actions, *_ = policy(tensors)
    *_, entropies = policy.evaluate_actions(tensors, actions)
    policy.set_bonus(entropy_weight, kl_weight, anchor.actor)
    *_, bonus = policy.evaluate_actions(tensors, actions)
    there = torch.distributions.Categorical(logits=anchor.forward_actor(tensors))
    here = torch.distributions.Categorical(logits=policy.network.forward_actor(tensors))
    expected = entropy_weight * entropies - kl_weight * torch.distributions.kl_divergence(here, there)
    torch.testing.assert_close(bonus, expected, atol=1e-3, rtol=1e-3)
    assert {id(p) for p in policy.parameters()} == {id(p) for p in policy.network.parameters()}


def test_actions_are_sampled_with_their_probabilities() -> None:
    torch.manual_seed(0)
    policy = PlacementActorCritic(observation_space(6), ShortestQueueEnv(6).action_space, ConstantSchedule(1e-3))
    policy.network.load_state_dict(make_network(3, hidden=32).state_dict())
    tensors = {
        name: tensor.expand(20_000, *tensor.shape[1:]) for name, tensor in as_tensors(make_observation(3, 6)).items()
    }
    with torch.no_grad():
        actions, *_ = policy(tensors)
        probabilities = policy.get_distribution({name: one[:1] for name, one in tensors.items()}).distribution.probs[0]
    shares = torch.bincount(actions, minlength=6) / len(actions)
    torch.testing.assert_close(shares, probabilities, atol=0.02, rtol=0.0)  # 0.02 is more than five standard deviations


def test_the_optimizer_has_exactly_the_networks_parameters() -> None:
    policy = PlacementActorCritic(observation_space(4), ShortestQueueEnv(4).action_space, ConstantSchedule(1e-3))
    held = {id(p) for group in policy.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in policy.network.parameters()} == {id(p) for p in policy.parameters()}


def test_weights_for_4_nodes_work_for_8() -> None:
    def policy(choices: int) -> PlacementActorCritic:
        return PlacementActorCritic(
            observation_space(choices), ShortestQueueEnv(choices).action_space, ConstantSchedule(1e-3)
        )

    four, eight = policy(4), policy(8)
    eight.load_state_dict(four.state_dict())
    observation = make_observation(seed=2, choices=4, batch=5)
    twice = observation | {key: np.tile(observation[key], (1, 2) + (1,) * (observation[key].ndim - 2)) for key in
                           ("choices", "action_mask")}  # fmt: skip
    # Every choice occurs twice, so that means, maxima and scores are unchanged.
    scores, values = four.network(as_tensors(observation))
    scores_of_8, values_of_8 = eight.network(as_tensors(twice))
    torch.testing.assert_close(torch.cat([scores, scores], dim=1), scores_of_8, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(values, values_of_8, atol=1e-5, rtol=1e-5)


def test_a_skip_on_one_feature_starts_as_least_of_that_feature() -> None:
    observation = make_observation(seed=3, choices=5, batch=200)
    network = PlacementNetwork(SIZES, skip_start={2: -40.0})
    waits = np.where(observation["action_mask"] > 0, observation["choices"][:, :, 2], np.inf)
    with torch.no_grad():
        chosen = network(as_tensors(observation))[0].argmax(dim=1).numpy()
    assert (chosen == waits.argmin(axis=1)).mean() > 0.99


def test_without_a_skip_the_policy_starts_close_to_uniform() -> None:
    observation = make_observation(seed=4, choices=5, batch=200)
    with torch.no_grad():
        probabilities = torch.softmax(PlacementNetwork(SIZES)(as_tensors(observation))[0], dim=1).numpy()
    allowed = observation["action_mask"] / observation["action_mask"].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, allowed, atol=0.02)
