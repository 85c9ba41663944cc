"""Runs of reinforcement learning: what they print and leave, how they learn, and what is refused."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import optim, training
from renga.training import cli, rl
from renga.training.cli._agent import Feedforward, Recurrent
from renga.training.cli._config import load, override
from renga.training.cli._learner import Seen, nothing_seen, seen_after
from renga.training.cli._ppo import Kept, Ppo
from renga.training.cli._rl import RlExperiment
from renga.training.cli._rl_run import ANIMATION, REPORT, TEST, key_for, said_of

from .test_run import arrays, names, rows, setting

CONFIGS = ["dqn_cart_pole", "ppo_cart_pole", "ppo_pendulum", "ppo_recall"]
FILES = ["config.toml", "curves.png", "episode.gif", "metrics.csv", "metrics.jsonl", "params.npz"]
PPO = ["learner.num_envs=2", "learner.num_steps=4", "learner.num_epochs=1", "learner.num_minibatches=2"]
DQN = ["learner.num_envs=2", "learner.capacity=20", "learner.batch_size=4", "learner.learning_starts=4"]
SMALL = ["train.num_updates=4", "train.report_every=2", "test.num_episodes=3", "test.num_reported=2"]


def small(name: str) -> list[str]:
    """The settings of a small run."""
    return [*SMALL, *(DQN if name.startswith("dqn") else PPO)]


def read(name: str, *assignments: str) -> RlExperiment:
    """A small experiment."""
    found = cli.read_experiment(override(load(cli.configs()[name]), [*small(name), *assignments]))
    assert isinstance(found, RlExperiment)
    return found


@pytest.fixture(scope="module", params=CONFIGS)
def finished(request, tmp_path_factory) -> tuple[str, Path, str]:
    """A config, the directory and the output of a small run of it."""
    directory = tmp_path_factory.mktemp("runs") / "small"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.main(["train", request.param, "--out", str(directory), *setting(*small(request.param))]) == 0
    return request.param, directory, out.getvalue()


def test_a_run_prints_agent_chain_reports_and_how_good_it_is(finished):
    name, directory, out = finished
    number = r"-?[\d.e+-]+"
    report = rf"  .*length {number}  loss {number}  return {number}  test_return {number}  [\d,]+ steps/s  ETA \d:\d\d"
    patterns = [
        r"agent     (mlp\(\d+, \d+\)|gru\(64\))",
        r"chain     chain\(.*",
        rf"env       {read(name).env.name}",
        r"learner   (dqn, 8 frames, 2 an update|ppo, 32 frames, 8 an update)",
        f"run       {re.escape(str(directory))}",
        f"step 2/4{report}",
        f"step 4/4{report}",
        rf"mean return {number} \(standard deviation {number}\) of 3 episodes, after \d+ frames in \d+ s, one of them "
        "in episode.gif",
    ]
    for pattern, line in zip(patterns, out.splitlines(), strict=True):
        assert re.fullmatch(pattern, line), line


def test_a_run_leaves_its_metrics_parameters_and_pictures(finished):
    _, directory, _ = finished
    assert names(directory) == FILES
    assert [row["step"] for row in rows(directory)] == [2, 4]
    assert all(np.isfinite(array).all() for array in arrays(directory).values())
    assert (directory / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (directory / "episode.gif").read_bytes().startswith(b"GIF89a")


def test_what_it_learned_is_judged_again_with_the_same_result(finished, renga):
    _, directory, out = finished
    (directory / "episode.gif").unlink()
    answer = renga("evaluate", str(directory))
    assert (answer.code, answer.err) == (0, "")
    said, _, _ = out.splitlines()[-1].partition(", after")
    assert answer.out == f"{said}, one of them in episode.gif\n"
    assert names(directory) == FILES


def test_the_resolved_config_runs_again_with_the_same_numbers(finished, renga):
    assert renga("train", str(finished[1] / "config.toml"), "--out", "again").code == 0
    for name in ("metrics.csv", "params.npz"):
        assert (Path("again") / name).read_bytes() == (finished[1] / name).read_bytes()


@pytest.mark.parametrize("name", CONFIGS)
def test_summary_shows_the_networks(name, renga):
    answer = renga("summary", name)
    assert (answer.code, answer.err) == (0, "")
    wanted = {"dqn_cart_pole": {"values"}, "ppo_recall": {"encoder", "body", "actor", "critic"}}
    assert wanted.get(name, {"actor", "critic"}) <= set(answer.out.splitlines())


def test_an_environment_of_gymnax_is_played(renga):
    words = setting(*small("ppo"), 'env={name="gymnax", id="Catch-bsuite", max_steps=10}')
    answer = renga("train", "ppo_cart_pole", "--out", "run", *words)
    assert (answer.code, answer.err) == (0, "")
    assert arrays(Path("run"))["actor/linear/w"].shape == (50, 64)
    assert answer.out.splitlines()[-1].endswith(" s")


def test_actions_in_a_box_of_gymnax_go_from_minus_1_to_1_and_are_clipped():
    env = read("ppo_cart_pole", 'env={name="gymnax", id="Reacher-misc"}').env.build()
    low, high = np.array(env.action_space().low), np.array(env.action_space().high)
    assert (low.tolist(), high.tolist()) == ([-1.0, -1.0], [1.0, 1.0])
    _, state = env.reset(jax.random.key(0))
    most, beyond = (env.step(jax.random.key(1), state, jnp.full(2, size))[0] for size in (1.0, 5.0))
    np.testing.assert_array_equal(most, beyond)


def test_no_episode_of_a_test_begins_as_one_of_training():
    experiment = read("ppo_cart_pole", "learner.num_envs=4")
    env, learner = experiment.build()
    seen = [learner.begin(jax.random.key(experiment.seed)).state["rollout"].obs]
    for use in (REPORT, TEST, ANIMATION):
        collect = training.rollout(rl.vectorize(env, 20), lambda params, obs, key: jnp.zeros(20, int), 1)
        seen.append(collect.init(key_for(experiment, use), None).obs)
    begun = np.concatenate(seen)
    assert len(np.unique(begun, axis=0)) == len(begun) == 64


def test_advantages_are_standardized_far_from_zero():
    ppo, agent = Ppo(clip_values=False), Feedforward(sizes=(4,)).agent(rl.cart_pole())
    obs, action = jax.random.normal(jax.random.key(0), (64, 4)), jnp.arange(64) % 2
    params = agent.init(jax.random.key(1), obs[0])
    policy, value = agent.unroll(params, (), obs, None)
    spread = jax.random.normal(jax.random.key(2), (64,))

    kept = {"obs": obs, "first": jnp.zeros(64, bool), "action": action, "value": value, "target": value}
    kept |= {"log_prob": policy.log_prob(action)}

    def gradient(advantage: jax.Array) -> jax.Array:
        grads = jax.grad(lambda params: ppo.loss(agent, params, (kept | {"advantage": advantage}, ()))[0])(params)
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grads)])

    np.testing.assert_allclose(gradient(1024 + spread / 8), gradient(spread), rtol=2e-2, atol=2e-6)


def test_an_episode_that_a_test_cuts_short_is_said_to_be():
    found = rl.Episodes(jnp.array([1.0, 3.0]), jnp.array([4, 5]), jnp.array([True, False]))
    assert said_of(found) == "mean return 2 (standard deviation 1) of 2 episodes, 1 of them cut short"
    whole = found._replace(ended=jnp.array([True, True]))
    assert said_of(whole) == "mean return 2 (standard deviation 1) of 2 episodes"


def test_advantages_with_memory_are_judged_by_the_memory_of_that_moment():
    env, ppo = rl.recall(3, 2), Ppo(num_envs=2, num_steps=6)
    agent = Recurrent(size=5).agent(env)

    def act(params: Any, carry: Any, obs: Any, key: jax.Array) -> Any:
        carry, (policy, value) = agent.step(params, carry, obs)
        action = policy.sample(key)
        return carry, (action, Kept(policy.log_prob(action), value, carry))

    params = agent.init(jax.random.key(0), jnp.zeros((2, 4)))
    collect = training.rollout(rl.vectorize(env, 2), act, 6, initial_carry=agent.initial_carry, has_aux=True)
    start = collect.init(jax.random.key(1), params)
    _, trajectory = collect(params, start)
    data = ppo.data(agent, params, trajectory)
    rows = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), data)
    policy, value = agent.unroll(params, start.carry, rows["obs"], rows["first"])
    np.testing.assert_allclose(value, rows["value"], atol=1e-5)
    np.testing.assert_allclose(policy.log_prob(rows["action"]), rows["log_prob"], atol=1e-5)
    # The first episodes end after four steps by termination: what they were worth is what they brought.
    advantage, discount = np.zeros(2), ppo.discount * ppo.decay
    for step in (3, 2, 1, 0):
        after = 0 if step == 3 else ppo.discount * data["value"][step + 1]
        advantage = trajectory.reward[step] + after - data["value"][step] + discount * advantage
        np.testing.assert_allclose(data["advantage"][step], advantage, atol=1e-5)


def test_returns_are_moving_means_over_updates_in_which_an_episode_ended():
    def trajectory(ended: list[bool], returns: list[float]) -> Any:
        no, lengths = jnp.zeros(2, bool), jnp.full(2, 7)
        filled = dict.fromkeys(training.Trajectory._fields)
        filled |= {"terminated": jnp.array(ended), "truncated": no, "episode_length": lengths}
        return training.Trajectory(**filled | {"episode_return": jnp.array(returns)})  # pyright: ignore

    seen = seen_after(nothing_seen(), trajectory([False, False], [5.0, 5.0]))
    assert seen == nothing_seen()
    seen = seen_after(seen, trajectory([True, False], [4.0, 100.0]))
    assert seen == Seen(jnp.array(4.0), jnp.array(7.0))
    seen = seen_after(seen, trajectory([True, True], [10.0, 20.0]))
    assert seen.returns.item() == pytest.approx(0.9 * 4 + 0.1 * 15)


def test_the_target_network_is_a_copy_now_and_then_and_nothing_is_learnt_before_the_buffer_is_filled():
    experiment = read("dqn_cart_pole", "learner.target_every=3", "learner.learning_starts=4")
    _, learner = experiment.build()
    step, train_state = jax.jit(learner.step), learner.begin(jax.random.key(0))
    params = [train_state.params]
    targets = []
    for _ in range(5):
        train_state, metrics = step(train_state, None)
        params.append(train_state.params)
        targets.append(train_state.state["target"])
        assert np.isfinite(metrics["loss"])

    def same(one: Any, other: Any) -> bool:
        return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), one, other)))

    assert [same(params[0], each) for each in params[1:]] == [True, True, False, False, False]
    assert [same(targets[0], each) for each in targets] == [True, True, True, False, False]
    assert same(targets[3], params[4])


@pytest.mark.parametrize("name", ["dqn_cart_pole", "ppo_cart_pole"])
def test_schedules_last_for_all_moves_of_a_run(name: str):
    rate = '{ name = "linear_schedule", init_value = 1.0, end_value = 0.0 }'
    experiment = read(name, f'optim={{name="chain", links=[{{name="sgd", learning_rate={rate}}}]}}')
    _, learner = experiment.build()
    step, train_state = jax.jit(learner.step), learner.begin(jax.random.key(0))
    for _ in range(experiment.train.num_updates):
        train_state, _ = step(train_state, None)
    assert experiment.chain == optim.chain(optim.sgd(optim.linear_schedule(1.0, 0.0, _count(train_state))))


def _count(train_state: training.TrainState) -> int:
    """How many steps the optimizer has made."""
    (count,) = jax.tree.leaves(train_state.opt_state)
    return int(count)


@pytest.mark.parametrize("net", [Feedforward(sizes=(4,)), Recurrent(size=4)])
@pytest.mark.parametrize("env", [rl.cart_pole(), rl.scale_actions(rl.pendulum())])
def test_an_agent_says_the_same_in_steps_and_all_at_once(net: Any, env: Any):
    agent, size = net.agent(env), env.observation_space().shape[0]
    obs = jax.random.normal(jax.random.key(0), (2, 3, size))
    params = agent.init(jax.random.key(1), obs[:, 0])
    carry = agent.initial_carry(params, obs[:, 0]) if agent.initial_carry else ()
    _, values = agent.unroll(params, carry, obs, jnp.zeros((2, 3), bool))
    for step in range(3):
        carry, (_, value) = agent.step(params, carry, obs[:, step])
        np.testing.assert_allclose(value, values[:, step], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("ppo_cart_pole", ['env.name="cartpole"'], "env.name: expected one of cart_pole, pendulum, recall, gymnax"),
        (
            "ppo_cart_pole",
            ["learner.num_minibatches=3"],
            "learner.num_minibatches: expected a divisor of 512, which is",
        ),
        (
            "ppo_recall",
            ["learner.num_minibatches=5"],
            "learner.num_minibatches: expected a divisor of 16, which is num_",
        ),
        ("ppo_cart_pole", ["learner.discount=1.5"], "learner.discount: expected a number in [0, 1), got 1.5"),
        ("ppo_cart_pole", ["learner.horizon=3"], "learner.horizon: "),
        ("dqn_cart_pole", ['net={name="gru"}'], 'net.name: expected "mlp" where learner.name is "dqn", got "gru"'),
        (
            "dqn_cart_pole",
            ["env.name=pendulum"],
            "env.name: expected an environment of counted actions where learner.na",
        ),
        ("dqn_cart_pole", ["learner.capacity=3"], "learner.capacity: expected at least num_envs, 10, got 3"),
        (
            "ppo_cart_pole",
            ['env={name="gymnax", id="Acrobat-v1"}'],
            'env.id: expected an environment of gymnax, got "Acrobat-v1". Did you mean Acrobot-v1?',
        ),
        ("ppo_cart_pole", ['optim.links=[{name="adamm"}]'], "optim.links[0].name: "),
    ],
)
def test_what_cannot_be_run_is_refused(name, words, message, renga):
    answer = renga("train", name, "--out", "run", *setting(*words))
    assert answer.code == 2
    assert answer.err.startswith(f"renga: {message}"), answer.err
    assert not Path("run").exists()


def test_what_cannot_be_judged_is_refused(finished, renga, tmp_path):
    _, directory, _ = finished
    other = tmp_path / "other"
    other.mkdir()
    answer = renga("evaluate", str(other))
    assert (answer.code, answer.err) == (
        2,
        f"renga: {other}: expected the directory of a run, got one without config.toml\n",
    )
    (other / "config.toml").write_bytes((directory / "config.toml").read_bytes())
    answer = renga("evaluate", str(other))
    assert answer.code == 2
    assert answer.err.startswith(f"renga: {other / 'params.npz'}: expected the parameters of a run, got '[Errno 2]")
    np.savez(other / "params.npz", allow_pickle=False, **{"strange/w": np.zeros(3)})
    answer = renga("evaluate", str(other))
    assert answer.code == 2
    assert ", got nothing\n" in answer.err
