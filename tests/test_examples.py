"""Every example runs, and shows what it says."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from renga import training
from renga.training import rl

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str):
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_every_example_says_how_to_run_it_and_what_it_prints(name):
    doc = load(name).__doc__ or ""
    assert f"python examples/{name}.py" in doc
    assert "rints" in doc


def test_optimistic_gradient_solves_the_bilinear_game_at_its_known_rate():
    rates = load("bilinear_game").main()
    assert rates["gradient descent"] == pytest.approx(1.004988, abs=1e-6)
    assert rates["optimistic gradient descent"] == pytest.approx(0.994936, abs=1e-6)


def test_eight_methods_play_the_bilinear_game_at_their_known_rates(tmp_path):
    example = load("bilinear_trajectories")
    rates = example.main(picture=tmp_path / "trajectories.png")
    assert len(rates) == 8
    for name, known in example.KNOWN.items():
        assert rates[name] == pytest.approx(known, abs=1e-5 if name == "in turns" else 1e-6)
    assert (tmp_path / "trajectories.png").read_bytes().startswith(b"\x89PNG")


def test_those_who_count_on_the_other_learning_cooperate_in_the_dilemma(tmp_path):
    years = load("prisoners_dilemma").main(picture=tmp_path / "policies.png")
    assert years["naive"] == pytest.approx(2.0, abs=0.02)
    assert max(years["LOLA"], years["SOS"]) < 1.15
    assert (tmp_path / "policies.png").read_bytes().startswith(b"\x89PNG")


def test_the_label_noise_example_trains_both_chains(capsys):
    load("label_noise").main(num_steps=20)
    assert "difference" in capsys.readouterr().out


def test_a_short_run_of_maml_prints_its_table(capsys):
    scores = load("maml_sinusoid").main(num_steps=20)
    assert scores.mean["loss"].shape == (6,)
    assert capsys.readouterr().out.splitlines()[0].startswith("before")


def test_a_short_snapshot_ensemble_is_compared_with_one_run():
    found = load("snapshot_ensemble").main(num_steps=10)
    assert set(found) == {"one run, one cycle", "last snapshot", "five snapshots"}


def test_a_short_batch_ensemble_is_compared_with_one_network():
    alone, together = load("batch_ensemble").main(num_steps=2)["one network"]
    assert alone == together


def test_a_laplace_approximation_is_better_calibrated_than_the_weights():
    found = load("laplace").main(num_steps=200)
    assert found["Laplace"][1] < found["weights found"][1]


SHORT = {
    "reweighting": {"trusted alone", "all alike", "reweighted"},
    "learned_loss": {"squared error", "absolute error", "huber", "learnt"},
    "distillation": {"ten real images", "ten learnt images"},
    "learned_schedule": {"constant", "cosine", "learnt"},
    "few_shot_digits": {"pixels", "prototypes", "ridge", "maml"},
}
LONGER = ("learned_schedule", "few_shot_digits")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name in LONGER else []) for name in SHORT]
)
def test_a_short_run_of_a_bilevel_or_few_shot_example_compares_what_it_names(name, capsys):
    found = load(name).main(num_steps=2)
    assert set(found) == SHORT[name]
    printed = capsys.readouterr().out
    assert all(label in printed for label in found)


def test_a_short_private_run_states_accuracy_and_epsilon(capsys):
    found = load("private_digits").main(num_steps=5)
    assert found["epsilon"] == pytest.approx(3.0, abs=1e-2)
    assert 10 < found["private"] < 100
    printed = capsys.readouterr().out
    assert "epsilon           3.00 at delta 0.0001" in printed
    assert f"private           {found['private']:.1f} %" in printed


def test_the_lagrangian_player_meets_the_conditions_of_a_solution():
    example = load("constrained")
    found, batch = example.main(num_steps=4000)["a price each"], example.digits()
    losses, prices = example.losses(found["net"], batch), found["prices"]
    slope = jax.grad(example.lagrangian)(found, batch, None)["net"]["w"]
    assert float(losses.max()) < 1.05 * example.BOUND
    assert float(prices.min()) >= 0
    assert float(abs(prices * (losses - example.BOUND)).max()) < 0.1 * float(prices.max()) * example.BOUND
    assert float(abs(slope).max()) < 0.02


def test_a_short_run_of_ppo_learns_to_hold_the_pole_for_longer():
    example = load("ppo")
    _, metrics = jax.jit(example.train, static_argnums=1)(jax.random.key(0), 40)
    assert float(metrics["return"][-10:].mean()) > 2 * float(metrics["return"][:5].mean())
    assert all(0 < each <= 500 for each in example.main(num_seeds=2, num_updates=2))


def test_a_short_run_of_reinforce_balances_the_pole_for_longer_than_chance():
    assert min(load("reinforce").main(num_seeds=2, num_updates=25)) > 40


@pytest.mark.long
def test_only_a_policy_with_memory_recalls_the_cue(capsys):
    found = load("recurrent_ppo").main(num_seeds=1, num_updates=40)
    assert found["with memory"][0] > 0.95
    assert found["without"][0] == pytest.approx(0.25, abs=0.06)
    assert capsys.readouterr().out.startswith("with memory")


def test_double_dqn_soon_values_an_upright_pole_above_a_falling_one():
    example = load("dqn")
    params, _ = jax.jit(lambda key: example.train(key, num_updates=500))(jax.random.key(0))
    upright, falling = example.NET.apply(params, jnp.array([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.2, 2.0]])).max(-1)
    assert upright > falling + 1


def test_soft_actor_critic_lowers_the_temperature_of_a_policy_with_entropy_to_spare():
    example = load("sac")
    players, _ = jax.jit(lambda key: example.train(key, num_updates=100))(jax.random.key(0))
    assert -0.2 < players["temperature"] < -0.02
    assert example.critics.apply(players["critics"], jnp.array([-1.0, 0.0, 0.0, 0.0])).max() < -1


def test_a_few_updates_of_evolution_strategies_balance_the_pole():
    assert max(load("evolution").main(num_seeds=2, num_updates=15)) > 200


def test_a_clone_of_thirty_demonstrations_comes_nearer_to_the_controller_than_one_of_one(capsys):
    found = load("behaviour_cloning").main(counts=(1, 30), num_steps=1500)
    assert found["nothing done"] < found["1 shown"] < found["30 shown"] - 100
    assert found["30 shown"] == pytest.approx(found["controller"], abs=100)
    assert "30 shown" in capsys.readouterr().out


def test_plans_improved_by_their_derivatives_swing_the_pendulum_up():
    found = load("model_predictive").main(num_episodes=4, num_steps=10)
    assert found["planned"] > -400
    assert found["chance"] < -800


def episodes_of(example, params, task, key):
    """What navigation learns from at some parameters: observations, actions, advantages."""
    _, seen = example.collect(params, example.collect.init(key, params, task))
    returns = rl.discounted_returns(seen.reward, terminated=seen.terminated, truncated=seen.truncated, discount=0.99)
    surprise = returns - returns.mean(1, keepdims=True)
    return seen, surprise / jnp.sqrt(surprise.var() + 1)


def test_the_loss_of_navigation_has_the_gradient_of_log_probabilities_weighted_by_advantages():
    example = load("maml_navigation")
    params, key = example.policy.init(jax.random.key(0), jnp.zeros(2)), jax.random.key(1)
    task = rl.NavigationParams(goal=jnp.array([0.3, -0.2]))
    seen, advantage = episodes_of(example, params, task, key)

    def weighted(params):
        return -jnp.mean(example.policy.apply(params, seen.obs).log_prob(seen.action) * advantage)

    (loss, metrics), grads = jax.value_and_grad(example.loss_fn, has_aux=True)(params, task, key)
    assert float(loss) == pytest.approx(0, abs=1e-6)
    assert float(metrics["return"]) == pytest.approx(float(seen.reward.sum()) / example.NUM_EPISODES, rel=1e-5)
    for found, known in zip(jax.tree.leaves(grads), jax.tree.leaves(jax.grad(weighted)(params)), strict=True):
        assert jnp.allclose(found, known, atol=1e-5)


def test_the_gradient_through_a_step_of_navigation_is_that_through_constant_episodes():
    example = load("maml_navigation")
    params, key = example.policy.init(jax.random.key(0), jnp.zeros(2)), jax.random.key(1)
    task, own = rl.NavigationParams(goal=jnp.array([0.3, -0.2])), jax.random.split(key, 1)[0]

    def on(data, params, anchor):
        seen, advantage = data
        log_prob, known = (example.policy.apply(each, seen.obs).log_prob(seen.action) for each in (params, anchor))
        return -jnp.mean(jnp.exp(log_prob - known) * advantage)

    support = episodes_of(example, params, task, jax.random.fold_in(own, 0))
    slope, curved = jax.vjp(lambda at: jax.grad(lambda now: on(support, now, params))(at), params)
    after = jax.tree.map(lambda old, change: old - 0.1 * change, params, slope)
    query = episodes_of(example, after, task, jax.random.fold_in(own, 1))
    outer = jax.grad(lambda now: on(query, now, after))(after)
    known = jax.tree.map(lambda direct, back: direct - 0.1 * back, outer, curved(outer)[0])

    tasks = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], {"support": task, "query": task})
    loss = training.maml(example.loss_fn, example.inner, 1, has_aux=True)
    found, _ = jax.jit(jax.grad(loss, has_aux=True))(params, tasks, key)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(known), strict=True):
        assert jnp.allclose(one, other, atol=1e-4)


@pytest.mark.long
def test_a_short_run_of_navigation_prints_returns_after_each_step(capsys):
    found = load("maml_navigation").main(num_updates=1)
    assert {name: len(each) for name, each in found.items()} == {"meta-trained": 4, "pretrained": 4}
    assert "after 3" in capsys.readouterr().out.splitlines()[0]


@pytest.mark.long
@pytest.mark.usefixtures("full_compiler")
@pytest.mark.parametrize(("name", "solved"), [("reinforce", 450), ("dqn", 475), ("sac", -190), ("evolution", 475)])
def test_a_learner_reaches_what_it_says_on_most_seeds(name, solved):
    returns = load(name).main()
    assert sum(each >= solved for each in returns) >= 0.8 * len(returns)


@pytest.mark.long
@pytest.mark.usefixtures("full_compiler")
def test_one_step_of_meta_trained_parameters_finds_the_goal():
    found = load("maml_navigation").main()
    assert found["meta-trained"][1] > -5
    assert found["meta-trained"][3] > -3
    assert found["pretrained"][3] < -12
