"""Steps of CartPole, alone and in training, by number of environments.

    pip install -e '.[bench,rl]'
    python benchmarks/rollout.py acting-64       # a network of 4-64-64-2 acts in 64 environments; or 1, 1024
    python benchmarks/rollout.py drawing-1024    # actions are drawn blindly
    python benchmarks/rollout.py ppo-64          # whole updates of PPO; or 1024

All cases act by equal networks and keep observations, actions, rewards and ends. The scan by hand is written as in
purejaxrl: keys are split, gymnax's step is mapped, and it steps gymnax's own CartPole; `renga, gymnax's CartPole` does
the same through `training.rollout`. `RolloutWrapper` is gymnax's, which begins with new episodes each time. Of
gymnasium, single environments act by NumPy; `vector` is its CartPole written for whole batches, `sync` the wrapper of
single ones. Ratios are of time a step: below 1 is faster. Each round is long enough to last about a tenth of a second.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnax.experimental import RolloutWrapper
from jax import lax
from runner import Promise, Round, comparison, main

from renga import nets, optim, training
from renga.training import rl

NET = nets.mlp(64, 64, 2, activation=jnp.tanh)
GYMNAX, GYMNAX_PARAMS = gymnax.make("CartPole-v1")
STEPS = {1: 20_000, 64: 4_000, 1024: 500}
NUM_EPOCHS, NUM_MINIBATCHES, NUM_STEPS, CLIP = 4, 4, 128, 0.2


def act(params: Any, obs: jax.Array, key: jax.Array) -> jax.Array:
    """Draws an action of a network."""
    return jax.random.categorical(key, NET.apply(params, obs))


def draw(params: Any, obs: jax.Array, key: jax.Array) -> jax.Array:
    """Draws an action of a coin."""
    return jax.random.randint(key, obs.shape[:-1], 0, 2)


def ours(env: Any, policy: Callable[..., jax.Array], num_envs: int, num_steps: int) -> Round:
    """Rounds of `training.rollout`, each from where the last one stopped."""
    params = NET.init(jax.random.key(0), jnp.zeros(4))
    collect = training.rollout(env if num_envs == 1 else rl.vectorize(env, num_envs), policy, num_steps)

    @jax.jit
    def run(state: Any) -> Any:
        state, seen = collect(params, state)
        return state, (seen.obs, seen.action, seen.reward, seen.ended)

    return rounds(run, collect.init(jax.random.key(1), params), num_envs * num_steps)


def by_hand(policy: Callable[..., jax.Array], num_envs: int, num_steps: int) -> Round:
    """Rounds of a scan as purejaxrl writes it."""
    params = NET.init(jax.random.key(0), jnp.zeros(4))

    def one(carry: Any, _: None) -> Any:
        obs, state, key = carry
        key, act_key, step_key = jax.random.split(key, 3)
        action = policy(params, obs, act_key)
        keys = jax.random.split(step_key, num_envs)
        after, state, reward, terminated, truncated, _ = step_gymnax(keys, state, action, GYMNAX_PARAMS)
        return (after, state, key), (obs, action, reward, terminated | truncated)

    return rounds(jax.jit(lambda carry: lax.scan(one, carry, length=num_steps)), begun(num_envs), num_envs * num_steps)


def step_gymnax(keys: jax.Array, state: Any, action: jax.Array, params: Any) -> Any:
    """A step of many of gymnax's environments."""
    return jax.vmap(GYMNAX.step, (0, 0, 0, None))(keys, state, action, params)


def begun(num_envs: int) -> Any:
    """Observations, states and a key."""
    keys = jax.random.split(jax.random.key(1), num_envs)
    obs, state = jax.vmap(GYMNAX.reset, (0, None))(keys, GYMNAX_PARAMS)
    return obs, jax.tree.map(lambda leaf: jnp.broadcast_to(jnp.asarray(leaf), num_envs), state), jax.random.key(2)


def rounds(run: Callable[[Any], tuple[Any, Any]], carry: Any, units: int) -> Round:
    """A round of `carry -> (carry, seen)`."""

    def one() -> int:
        nonlocal carry
        carry, _ = jax.block_until_ready(run(carry))
        return units

    return one


def wrapper(policy: Callable[..., jax.Array], num_envs: int, num_steps: int) -> Round:
    """Rounds of gymnax's own rollout."""
    params = NET.init(jax.random.key(0), jnp.zeros(4))
    rollouts = RolloutWrapper(policy, "CartPole-v1", num_env_steps=num_steps)
    keys = jax.random.split(jax.random.key(1), num_envs)

    def one() -> int:
        jax.block_until_ready(rollouts.batch_rollout(keys, params))
        return num_envs * num_steps

    return one


def gymnasium_rounds(kind: str, blind: bool, num_envs: int, num_steps: int) -> Round:
    """Rounds of gymnasium's environments, which act by NumPy."""
    draws = np.random.default_rng(0)
    params = jax.tree.map(np.asarray, NET.init(jax.random.key(0), jnp.zeros(4)))

    def chosen(obs: np.ndarray) -> Any:
        if blind:
            return draws.integers(2, size=obs.shape[:-1])
        for layer in params["layers"][:-1]:
            obs = np.tanh(obs @ layer["w"] + layer["b"])
        logits = obs @ params["layers"][-1]["w"] + params["layers"][-1]["b"]
        return np.argmax(logits + draws.gumbel(size=logits.shape), -1)

    makes: dict[str, Callable[[], Any]] = {
        "single": lambda: gymnasium.make("CartPole-v1"),
        "sync": lambda: gymnasium.make_vec("CartPole-v1", num_envs, vectorization_mode="sync"),
        "vector": lambda: CartPoleVectorEnv(num_envs),
    }
    env = makes[kind]()
    obs, _ = env.reset(seed=0)

    def one() -> int:
        nonlocal obs
        for _ in range(num_steps):
            obs, _, terminated, truncated, _ = env.step(chosen(obs))
            if kind == "single" and (terminated or truncated):
                obs, _ = env.reset()
        return num_envs * num_steps

    return one


def acting(num_envs: int, blind: bool) -> Mapping[str, Round]:
    """Cases of environments alone."""
    num_steps, policy = STEPS.get(num_envs, 256_000 // num_envs), draw if blind else act
    few = max(num_steps // 40, 20)  # on the host a step takes so much longer
    cases = {
        "by hand, gymnax's CartPole": by_hand(policy, num_envs, num_steps),
        "renga, gymnax's CartPole": ours(GYMNAX, policy, num_envs, num_steps),
        "renga, its own CartPole": ours(rl.cart_pole(), policy, num_envs, num_steps),
        "gymnax's RolloutWrapper": wrapper(policy, num_envs, num_steps),
    }
    kinds = ("single",) if num_envs == 1 else ("sync", "vector")
    return cases | {f"gymnasium, {kind}": gymnasium_rounds(kind, blind, num_envs, few) for kind in kinds}


def agent(params: Any, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logarithms of probabilities, and values, of two networks."""
    value = VALUE.apply(params["critic"], obs)[..., 0]
    return jax.nn.log_softmax(NET.apply(params["actor"], obs)), value


VALUE = nets.mlp(64, 64, 1, activation=jnp.tanh)


def start() -> Any:
    """Parameters of both."""
    keys = jax.random.split(jax.random.key(0))
    return {"actor": NET.init(keys[0], jnp.zeros(4)), "critic": VALUE.init(keys[1], jnp.zeros(4))}


def chosen(log_probs: jax.Array, action: jax.Array) -> jax.Array:
    """The logarithm of the probability of an action."""
    return jnp.take_along_axis(log_probs, action[..., None], -1)[..., 0]


def surrogate(params: Any, batch: Any) -> jax.Array:
    """PPO's loss."""
    log_probs, value = agent(params, batch["obs"])
    ratio = jnp.exp(chosen(log_probs, batch["action"]) - batch["log_prob"])
    advantage = jax.nn.standardize(batch["advantage"], epsilon=1e-8)
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage)
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, -1)
    return jnp.mean(-gain + 0.25 * (value - batch["target"]) ** 2 - 0.01 * entropy)


def training_ours(num_envs: int) -> Round:
    """Rounds of one update of PPO, over renga's parts."""
    tx = optim.chain(optim.clip_by_global_norm(0.5), optim.adam(2.5e-4, eps=1e-5))
    step = training.step(lambda params, batch, key: surrogate(params, batch), tx)

    def policy(params: Any, obs: jax.Array, key: jax.Array) -> Any:
        log_probs, value = agent(params, obs)
        action = jax.random.categorical(key, log_probs)
        return action, {"log_prob": chosen(log_probs, action), "value": value}

    collect = training.rollout(rl.vectorize(GYMNAX, num_envs), policy, NUM_STEPS, has_aux=True)

    @jax.jit
    def update(carry: Any) -> Any:
        train_state, rollout_state, key = carry
        key, order_key = jax.random.split(key)
        rollout_state, seen = collect(train_state.params, rollout_state)
        _, next_value = agent(train_state.params, seen.next_obs)
        found = rl.gae(seen.reward, seen.aux["value"], next_value, **seen.ends, discount=0.99, decay=0.95)
        data = {"obs": seen.obs, "action": seen.action, "advantage": found.advantages, "target": found.targets}

        def epoch(train_state: Any, key: jax.Array) -> Any:
            return lax.scan(step, train_state, rl.minibatches(key, data | seen.aux, NUM_MINIBATCHES))

        train_state, _ = lax.scan(epoch, train_state, jax.random.split(order_key, NUM_EPOCHS))
        return (train_state, rollout_state, key), training.episode_metrics(seen)

    params = start()
    carry = (training.init(params, tx), collect.init(jax.random.key(1), params), jax.random.key(2))
    return rounds(update, carry, num_envs * NUM_STEPS)


def training_by_hand(num_envs: int) -> Round:
    """The same update, written out as purejaxrl does, with the same bootstrap after truncation."""
    tx = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(2.5e-4, eps=1e-5))

    def act_once(carry: Any, _: None) -> Any:
        params, obs, state, key, total = carry
        key, act_key, step_key = jax.random.split(key, 3)
        log_probs, value = agent(params, obs)
        action = jax.random.categorical(act_key, log_probs)
        keys = jax.random.split(step_key, num_envs)
        after, state, reward, terminated, truncated, info = step_gymnax(keys, state, action, GYMNAX_PARAMS)
        total, ended = total + reward, terminated | truncated
        log_prob = chosen(log_probs, action)
        seen = (obs, action, log_prob, value, reward, terminated, ended, info["final_observation"], total)
        return (params, after, state, key, jnp.where(ended, 0, total)), seen

    def back(carry: Any, at: Any) -> Any:
        reward, value, next_value, terminated, ended = at
        error = reward + 0.99 * next_value * (1 - terminated) - value
        advantage = error + 0.99 * 0.95 * (1 - ended) * carry
        return advantage, advantage

    def learn(carry: Any, batch: Any) -> Any:
        params, opt_state = carry
        loss, grads = jax.value_and_grad(surrogate)(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    @jax.jit
    def update(carry: Any) -> Any:
        (params, opt_state), obs, state, key, total = carry
        played, seen = lax.scan(act_once, (params, obs, state, key, total), length=NUM_STEPS)
        _, obs, state, key, total = played
        seen_obs, action, log_prob, value, reward, terminated, ended, final, totals = seen
        rows = (reward, value, agent(params, final)[1], terminated, ended)
        _, advantage = lax.scan(back, jnp.zeros(num_envs), rows, reverse=True)
        data = {"obs": seen_obs, "action": action, "log_prob": log_prob, "advantage": advantage}
        data["target"] = advantage + value
        data = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), data)

        def epoch(carry: Any, key: jax.Array) -> Any:
            order = jax.random.permutation(key, num_envs * NUM_STEPS).reshape(NUM_MINIBATCHES, -1)
            return lax.scan(learn, carry, jax.tree.map(lambda leaf: leaf[order], data))

        key, order_key = jax.random.split(key)
        learnt, _ = lax.scan(epoch, (params, opt_state), jax.random.split(order_key, NUM_EPOCHS))
        mean = jnp.sum(jnp.where(ended, totals, 0)) / jnp.sum(ended)
        return (learnt, obs, state, key, total), mean

    params = start()
    return rounds(update, ((params, tx.init(params)), *begun(num_envs), jnp.zeros(num_envs)), num_envs * NUM_STEPS)


def learning(num_envs: int) -> Mapping[str, Round]:
    """Cases of whole updates."""
    return {"by hand": training_by_hand(num_envs), "renga": training_ours(num_envs)}


for _what, _envs in itertools.product(("acting", "drawing"), STEPS):
    comparison(
        f"{_what}-{_envs}",
        f"{_what} in {_envs} environment{'s' * (_envs > 1)}, a step of one of them",
        "by hand, gymnax's CartPole",
        num_rounds=25,
        promises=[Promise("renga, gymnax's CartPole", "by hand, gymnax's CartPole", 1.05)],
    )(functools.partial(acting, _envs, _what == "drawing"))

for _envs in (64, 1024):
    comparison(
        f"ppo-{_envs}",
        f"updates of PPO in {_envs} environments, a step of one of them",
        "by hand",
        num_rounds=25,
        promises=[Promise("renga", "by hand", 1.05)],
    )(functools.partial(learning, _envs))

if __name__ == "__main__":
    main()
