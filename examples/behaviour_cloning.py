"""Behaviour cloning: a network that imitates a controller, from so many of its episodes.

    python examples/behaviour_cloning.py        6 seconds

Prints the mean return of 1,000 episodes on Pendulum-v1: of the controller, of networks that were shown so many of its
episodes, and of doing nothing:

    controller      -152.4
    1 shown         -935.6
    3 shown         -968.8
    10 shown        -159.1
    30 shown        -156.7
    100 shown       -153.5
    nothing done   -1220.5

Source: Pomerleau 1991, https://doi.org/10.1162/neco.1991.3.1.88, with squared errors; the controller pumps energy as in
Åström, Furuta 2000, https://doi.org/10.1016/S0005-1098(99)00140-5, here by a torque, and is linear near the top.
"""

import jax
import jax.numpy as jnp

from renga import nets, optim, training
from renga.training import rl

COUNTS, NUM_STEPS, BATCH_SIZE = (1, 3, 10, 30, 100), 5000, 128
ENV, NET = rl.pendulum(), nets.mlp(64, 64, 1)
TX = optim.adam(optim.cosine_decay_schedule(3e-3, NUM_STEPS))


def expert(params, obs, key):
    """Energy is pumped until the pendulum is near the top, and there it is held."""
    cosine, sine, speed = obs[..., :1], obs[..., 1:2], obs[..., 2:]
    energy = speed**2 / 6 + 5 * (cosine - 1)
    pump, hold = -2 * jnp.sign(energy * speed), -10 * sine - 2 * speed
    return jnp.clip(jnp.where(cosine > 0.9, hold, pump), -2, 2)


def clone(params, obs, key):
    """What the network has learnt to do in its place."""
    return 2 * jnp.tanh(NET.apply(params, obs))


def rest(params, obs, key):
    """Nothing."""
    return jnp.zeros_like(obs[..., :1])


def loss_fn(params, batch, key):
    """The squared error of the action."""
    return training.squared_error(clone(params, batch["obs"], None), batch["action"])


def imitate(key, shown, count, num_steps=NUM_STEPS):
    """Learns from the first so many episodes of those shown, `[time, episodes, ...]`; the count may be traced."""
    init_key, loop_key = jax.random.split(key)

    def sample(key):
        time_key, episode_key = jax.random.split(key)
        time = jax.random.randint(time_key, (BATCH_SIZE,), 0, shown.reward.shape[0])
        episode = jax.random.randint(episode_key, (BATCH_SIZE,), 0, count)
        return {"obs": shown.obs[time, episode], "action": shown.action[time, episode]}

    train = training.loop(training.step(loss_fn, TX), sample, num_steps)
    train_state, _ = train(training.init(NET.init(init_key, jnp.zeros(3)), TX), loop_key)
    return train_state.params


def main(counts: tuple[int, ...] = COUNTS, num_steps: int = NUM_STEPS) -> dict[str, float]:
    """Shows, learns and tests in one program, for all counts at once; prints and returns the returns."""

    def tested(policy, params):
        test = rl.evaluate_policy(ENV, policy, num_episodes=1000, num_steps=200)
        return jnp.mean(test(params, jax.random.key(2)).returns)

    @jax.jit
    def run(key, counts):
        show_key, learn_key = jax.random.split(key)
        show = training.rollout(rl.vectorize(ENV, max(COUNTS)), expert, 200)
        _, shown = show(None, show.init(show_key, None))
        clones = jax.vmap(lambda count: tested(clone, imitate(learn_key, shown, count, num_steps)))(counts)
        return tested(expert, None), clones, tested(rest, None)

    best, clones, worst = run(jax.random.key(0), jnp.array(counts))
    found = {"controller": best.item()}
    found |= {f"{count} shown": value for count, value in zip(counts, clones.tolist(), strict=True)}
    found["nothing done"] = worst.item()
    for name, value in found.items():
        print(f"{name:<14}{value:8.1f}")
    return found


if __name__ == "__main__":
    main()
