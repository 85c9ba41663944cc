"""Soft actor-critic as a game of three players: actor, critics and temperature each descend a loss of their own.

    python examples/sac.py        20 seconds

Prints, of four seeds, the mean return of 1,000 episodes on Pendulum-v1 after 10,000 steps, acted without chance; the
controller of `behaviour_cloning.py` has about -150:

    -147.5 -152.4 -149.3 -150.1

The targets' critics are the average that `optim.ema_params` keeps in the chain.

Source: Haarnoja et al. 2018, https://arxiv.org/abs/1812.05905, equations 5, 7 and 18, and algorithm 1.
"""

import jax
import jax.numpy as jnp
from jax import lax

from renga import nets, optim, training
from renga.training import rl

NUM_UPDATES, WARM_UP, CAPACITY, BATCH_SIZE = 10_000, 500, 10_000, 128
DISCOUNT, TARGET_ENTROPY = 0.99, -1.0
KEPT = ("obs", "action", "reward", "terminated", "next_obs")
ENV = rl.scale_actions(rl.pendulum())
TX = optim.chain(optim.adam(1e-3), optim.ema_params(0.995, debias=False))

actor, critics = nets.mlp(64, 64, 2), nets.ensemble(nets.mlp(64, 64, 1), 2)


def policy(players, obs):
    """What the actor does."""
    mean, log_scale = jnp.split(actor.apply(players["actor"], obs), 2, -1)
    return rl.tanh_normal(mean, jnp.exp(jnp.clip(log_scale, -5, 2)))


def worth(players, obs, action):
    """What the more doubtful critic thinks of it."""
    return jnp.min(judged(players, obs, action), 0)


def judged(players, obs, action):
    """What both critics think of it, `[2, ...]`."""
    return critics.apply(players["critics"], jnp.concatenate((obs, action), -1))[..., 0]


def act(players, obs, key):
    """An action by chance."""
    return policy(players, obs).sample(key)


def best(players, obs, key):
    """An action without."""
    return policy(players, obs).mode()


def critics_loss(players, batch, key):
    """The error against a step, what the targets think of the next, and its entropy."""
    seen = batch["seen"]
    action, log_prob = policy(players, seen["next_obs"]).sample_and_log_prob(key)
    ahead = worth(batch["target"], seen["next_obs"], action) - jnp.exp(players["temperature"]) * log_prob
    target = lax.stop_gradient(seen["reward"] + DISCOUNT * jnp.where(seen["terminated"], 0, ahead))
    return jnp.mean((judged(players, seen["obs"], seen["action"]) - target) ** 2)


def actor_loss(players, batch, key):
    """Worth and entropy of what it would do."""
    obs = batch["seen"]["obs"]
    action, log_prob = policy(players, obs).sample_and_log_prob(key)
    return jnp.mean(jnp.exp(players["temperature"]) * log_prob - worth(players, obs, action))


def temperature_loss(players, batch, key):
    """Up where there is too little entropy."""
    _, log_prob = policy(players, batch["seen"]["obs"]).sample_and_log_prob(key)
    return -jnp.exp(players["temperature"]) * jnp.mean(log_prob + TARGET_ENTROPY)


def train(key, num_updates=NUM_UPDATES):
    """A whole run, from a key to the players and the returns of episodes on the way."""
    init_key, env_key, sample_key, loss_key = jax.random.split(key, 4)
    actor_key, critics_key = jax.random.split(init_key)
    losses = {"actor": actor_loss, "critics": critics_loss, "temperature": temperature_loss}
    step, buffer = training.step(training.game(losses), TX), rl.replay(CAPACITY)
    collect, warm_up = (training.rollout(ENV, act, num_steps) for num_steps in (1, WARM_UP))

    def kept(seen):
        return {name: getattr(seen, name) for name in KEPT}

    def update(carry, key):
        train_state, rollout_state, replay_state = carry
        rollout_state, seen = collect(train_state.params, rollout_state)
        replay_state = buffer.add(replay_state, kept(seen))
        target = optim.eval_params(train_state.opt_state, train_state.params)
        batch = {"seen": buffer.sample(replay_state, key, BATCH_SIZE), "target": target}
        train_state, _ = step(train_state, batch)
        return (train_state, rollout_state, replay_state), training.episode_metrics(seen)

    players = {"actor": actor.init(actor_key, jnp.zeros(3)), "critics": critics.init(critics_key, jnp.zeros(4))}
    players["temperature"] = jnp.zeros(())
    rollout_state, seen = warm_up(players, collect.init(env_key, players))
    seen = kept(seen)
    replay_state = buffer.add(buffer.init(jax.tree.map(lambda leaf: leaf[0], seen)), seen)
    start = (training.init(players, TX, key=loss_key), rollout_state, replay_state)
    (train_state, *_), metrics = lax.scan(update, start, jax.random.split(sample_key, num_updates))
    return train_state.params, metrics


def main(num_seeds: int = 4, num_updates: int = NUM_UPDATES) -> list[float]:
    """Trains and evaluates all seeds in one program, prints and returns their returns."""
    evaluate = rl.evaluate_policy(ENV, best, num_episodes=1000, num_steps=200)

    @jax.jit
    @jax.vmap
    def run(key):
        players, _ = train(key, num_updates)
        return jnp.mean(evaluate(players, jax.random.key(1)).returns)

    returns = run(jax.random.split(jax.random.key(0), num_seeds)).tolist()
    print(*(f"{each:.1f}" for each in returns))
    return returns


if __name__ == "__main__":
    main()
