"""The policy track and its methods: identities of the cards, solved cases, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.errors import BadInput, TrialFailed
from harness.parts import rl
from harness.parts.environments import ANSWER, STOP, WAIT, WORK, make_environment
from harness.tracks import policy as track
from methods.policy import decs, grpo, ppo, reinforce, vl_dac

SPEC = {"env": "grid(size=3, horizon=6)", "updates": 3, "episodes": 8, "dev": 10, "test": 20}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem(**changes):
    return track.build({**SPEC, **changes}, seed=0)


def responses(*texts: list[int], right: list[list[bool]] | None = None) -> rl.Rollout:
    """Responses written out; the last answer is right where `right` says so, and the reward comes with the end."""
    steps = max(map(len, texts))
    tokens = torch.tensor([[*text, *[STOP] * (steps - len(text))] for text in texts])
    mask = torch.tensor([[at < len(text) for at in range(steps)] for text in texts])
    judged = torch.zeros(len(texts), steps, dtype=torch.bool) if right is None else torch.tensor(right)
    rewards = torch.zeros(len(texts), steps)
    for row, text in enumerate(texts):
        rewards[row, len(text) - 1] = float(judged[row, : len(text)].any())
    return rl.Rollout(
        torch.zeros(len(texts), steps, 1),
        tokens[..., None],
        torch.zeros(len(texts), steps, 1),
        rewards,
        mask,
        ~mask,
        judged,
    )


def test_advantages_with_lambda_one_are_returns_and_with_zero_td_errors():
    rewards, values = torch.rand(4, 6, generator=generator()), torch.rand(4, 6, generator=generator(1))
    mask = torch.arange(6) < torch.tensor([6, 3, 1, 5])[:, None]
    ahead, discounted = torch.zeros(4), torch.zeros(4, 6)
    for t in reversed(range(6)):
        ahead = (rewards[:, t] + 0.9 * ahead) * mask[:, t]
        discounted[:, t] = ahead
    assert torch.allclose(rl.gae(rewards, values, mask, 0.9, 1.0), (discounted - values) * mask, atol=1e-6)
    following = torch.cat([values[:, 1:] * mask[:, 1:], torch.zeros(4, 1)], 1)
    assert torch.allclose(
        rl.gae(rewards, values, mask, 0.9, 0.0), (rewards + 0.9 * following - values) * mask, atol=1e-6
    )


def test_group_advantages_are_standardised_by_position():
    rewards = torch.rand(5, 3, generator=generator())
    found = rl.grpo_advantage(rewards)
    assert torch.allclose(found.mean(0), torch.zeros(3), atol=1e-6)
    assert torch.allclose(found.std(0), torch.ones(3), atol=1e-4)
    assert torch.equal(rl.grpo_advantage(torch.tensor([[2.0]]), eps=0.0), torch.tensor([[2.0]]))


def test_the_first_updates_gradient_is_the_policy_gradient():
    model = rl.TokenPolicy(18, 8, width=8)
    allowed = make_environment("grid(size=3)").allowed
    prompts = torch.randint(18, (6, 4, 2), generator=generator())
    texts, logs = rl.sample(model, prompts.flatten(0, 1), allowed, generator())
    texts, logs = texts.view(6, 4, 3), logs.view(6, 4, 3)
    advantages, mask = torch.randn(6, 4, 3, generator=generator()), torch.rand(6, 4, 3, generator=generator()) < 0.8

    def gradient(loss) -> torch.Tensor:
        model.zero_grad()
        loss(rl.log_probabilities(model, prompts, texts, allowed)[0]).backward()
        return model.embed.weight.grad.clone()

    clipped = gradient(lambda new: rl.ppo_token_loss(new, logs, advantages, mask, 0.1))
    plain = gradient(lambda new: -(new * advantages * mask).sum() / mask.sum())
    assert torch.allclose(rl.log_probabilities(model, prompts, texts, allowed)[0], logs, atol=1e-5)
    assert torch.allclose(clipped, plain, atol=1e-6)
    assert float(rl.k3_kl(logs, logs, mask)) == 0
    assert float(rl.k3_kl(logs, logs + advantages, mask)) > 0


def test_a_ratio_that_is_not_trusted_leaves_the_clipped_term():
    old, new = torch.zeros(1, 1, 2), torch.tensor([[[3.0, 0.0]]])
    advantage, mask = -torch.ones(1, 1, 2), torch.ones(1, 1, 2, dtype=torch.bool)
    assert float(rl.ppo_token_loss(new, old, advantage, mask, 0.1)) == pytest.approx((20.0855 + 1) / 2, rel=1e-4)
    assert float(rl.ppo_token_loss(new, old, advantage, mask, 0.1, huge=10)) == pytest.approx((1.1 + 1) / 2)


def test_tokens_stand_only_where_they_may():
    environment = make_environment("grid(size=4, thoughts=2)")
    model = rl.TokenPolicy(environment.observations, environment.outputs, width=8)
    environment.reset(50, generator())
    texts, _ = rl.sample(model, environment.observe(), environment.allowed, generator())
    assert (texts[:, :2] < environment.words).all()
    assert (texts[:, 2] >= environment.words).all()


def test_walking_straight_to_the_goal_ends_the_episode():
    environment = make_environment("grid(size=5, thoughts=0)")
    environment.reset(100, generator())
    start = environment.position.clone()
    for _ in range(8):
        ahead = environment.goal - environment.position
        move = torch.where(ahead[:, 0] < 0, 0, torch.where(ahead[:, 0] > 0, 1, torch.where(ahead[:, 1] < 0, 2, 3)))
        reward, done = environment.step(move[:, None] + environment.words, generator())
    assert (start != environment.goal).any(1).all()
    distance = (environment.goal - environment.position).abs().sum(1)
    assert (distance <= 1).all()  # one who has arrived steps off it again
    assert ((reward > 0) == done).all()


def test_the_value_of_vl_dac_does_not_train_the_backbone_and_its_tokens_share_an_advantage():
    one = problem()
    rollout = one.rollout()
    values = vl_dac.step_values(one.model, rollout)
    values.square().sum().backward()
    assert one.model.embed.weight.grad is None
    assert one.model.gru.weight_ih_l0.grad is None
    assert one.model.critic[0].weight.grad.abs().sum() > 0
    assert values.shape == rollout.mask.shape


def test_with_one_token_a_step_token_advantages_are_step_advantages():
    one = problem(env="grid(size=3, thoughts=0, horizon=6)")
    rollout = one.rollout()
    values = torch.rand(rollout.mask.shape, generator=generator())
    steps = rl.gae(rollout.rewards, values, rollout.mask, 0.9, 0.95)
    assert torch.allclose(ppo.token_advantages(rollout, values[..., None], 0.9, 0.95)[..., 0], steps, atol=1e-6)


@pytest.mark.parametrize("method", [reinforce.reinforce, ppo.ppo, vl_dac.vl_dac])
def test_a_short_walk_is_learned(method):
    one = track.build({**SPEC, "env": "grid(size=2, thoughts=1, horizon=8)", "updates": 40, "episodes": 16}, seed=0)
    solution = track.solve(__import__("harness").registry.get(f"policy.{method.__name__}"), one, {"lr": 1e-2})
    assert sum(one.curve[-5:]) / 5 > sum(one.curve[:3]) / 3
    assert -track.develop(one, solution) > 0.8
    assert one.interactions.taken <= one.interactions.granted


RIGHT = [[False, False, True, True, True, True, True]]
TEXT = [WORK, WORK, ANSWER, WAIT, WORK, ANSWER, STOP]


def test_what_follows_the_first_right_chunk_is_redundant_but_for_the_end():
    rollout = responses(TEXT, right=RIGHT)
    assert decs.redundant_tokens(rollout).tolist() == [[False, False, False, True, True, True, False]]
    rewards = decs.token_rewards(rollout, 0.1, longest=14)
    assert torch.allclose(rewards, torch.tensor([[1.1, 1.1, 1.1, 1.05, 1.05, 1.05, 1.1]]))
    assert float(decs.necessary_ratio(rollout)) == 0.5


def test_without_redundancy_the_reward_is_the_same_for_every_token_and_without_beta_plain():
    direct = responses([WORK, WORK, ANSWER, STOP], right=[[False, False, True, True]])
    assert torch.allclose(decs.token_rewards(direct, 0.1, 24), torch.full((1, 4), 1.1))
    assert torch.equal(decs.token_rewards(responses(TEXT, right=RIGHT), 0.0, 24), torch.ones(1, 7))
    assert float(decs.necessary_ratio(direct)) == 1


def test_longer_redundancy_is_worth_less_and_a_wrong_response_nothing():
    longer = [*TEXT[:-1], WAIT, WORK, STOP]
    rollout = responses(TEXT, longer, right=[RIGHT[0] + [True] * 2, RIGHT[0] + [True] * 2])
    rewards = decs.token_rewards(rollout, 0.1, 24)
    assert rewards[1, 3] < rewards[0, 3] < rewards[0, 0]
    wrong = responses(TEXT)
    assert decs.token_rewards(wrong, 0.1, 24).sum() == 0


def test_the_part_of_easy_prompts_follows_the_ratio():
    assert decs.easy_part(0.2, 0.2, 0.7, 0.7) == 0.2
    assert decs.easy_part(0.2, 0.2, 0.9, 0.4) == pytest.approx(0.3)
    assert decs.easy_part(0.95, 1.0, 1.0, 0.0) == 0.99


def test_one_step_too_many_fails_with_the_count():
    one = problem(updates=1)
    one.rollout()
    one.interactions.taken = one.interactions.granted - 1
    with pytest.raises(TrialFailed, match=r"the method took \d+ environment steps; the problem grants 48"):
        one.rollout()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env": None}, "problem: env=None is not accepted; it takes an environment, as grid(size=5)"),
        ({"env": "gird"}, "unknown environment 'gird'; did you mean grid"),
        ({"env": "grid(size=0)"}, "grid: size=0 is not accepted"),
        ({"env": "grid(size=[3, 4])"}, "environment 'grid(size=[3, 4])' is a grid of 2; name one"),
        ({"updates": 0}, "problem: updates=0 is not accepted; it takes a number of at least 1"),
        ({"model": "mlp"}, "problem: unknown field model"),
    ],
)
def test_a_wrong_problem_is_refused_in_one_line(change, message):
    with pytest.raises(BadInput) as caught:
        track.describe({**SPEC, **change})
    assert str(caught.value).startswith(message)


def test_methods_refuse_an_environment_that_is_not_theirs():
    with pytest.raises(BadInput, match=r"grpo is for responses to a prompt; it takes the environment reasoning"):
        grpo.grpo(problem())
    with pytest.raises(BadInput, match=r"vl_dac needs a policy with a value head; it takes the environment grid"):
        vl_dac.vl_dac(problem(env="reasoning"))


def test_a_table_of_logits_starts_uniform():
    model = rl.TabularPolicy(8, 4)
    logs, _, entropy = rl.log_probabilities(
        model,
        torch.zeros(3, 1, dtype=torch.long),
        torch.zeros(3, 1, dtype=torch.long),
        torch.ones(1, 4, dtype=torch.bool),
    )
    assert torch.allclose(logs, torch.full((3, 1), -1.3863), atol=1e-4)
    assert torch.allclose(entropy, -logs)
    assert isinstance(model.head, nn.Identity)
