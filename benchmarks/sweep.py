"""A sweep of 32 members, 4 learning rates by 8 seeds, beside 32 runs one after another.

    pip install -e '.[bench]'
    python benchmarks/sweep.py

Each member trains an MLP 16-32-32-4 by Adam on 300 batches of 32 out of 1,024 examples. The baseline is 32 runs by
`training.fit`, warm, ten steps a dispatch, as one trains alone. `one program, 32 calls` is a whole run compiled once,
its rate an argument, and called for each: no Python between steps. `one run, compiled anew` is what a whole run costs
whose rate is a number in the program, as every new rate is compiled again.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from runner import Promise, Round, comparison, main

from renga import nets, optim, training

RATES, NUM_SEEDS, NUM_STEPS, BATCH = [1e-3, 3e-3, 1e-2, 3e-2], 8, 300, 32
NET = nets.mlp(32, 32, 4)
X = jax.random.normal(jax.random.key(0), (1024, 16))
DATA = {"x": X, "y": jnp.argmax(X[:, :4], -1)}


def loss_fn(params: Any, batch: Any, key: Any) -> jax.Array:
    """The cross entropy of the network."""
    return training.cross_entropy(NET.apply(params, batch["x"]), batch["y"])


def sample(key: jax.Array) -> dict[str, jax.Array]:
    """A batch."""
    chosen = jax.random.randint(key, (BATCH,), 0, len(X))
    return jax.tree.map(lambda leaf: leaf[chosen], DATA)


def run(values: dict[str, Any], key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
    """A whole run."""
    tx, (init_key, order_key) = optim.adam(values["rate"]), jax.random.split(key)
    train = training.loop(training.step(loss_fn, tx), sample, NUM_STEPS, report_every=NUM_STEPS)
    begin = training.init(NET.init(init_key, jax.ShapeDtypeStruct((16,), jnp.float32)), tx)
    train_state, metrics = train(begin, order_key)
    return train_state.params, {"loss": metrics["loss"][-1]}


@comparison(
    "sweep",
    "a sweep of 32 members, all of them",
    "32 runs",
    promises=[Promise("sweep", "32 runs", 0.25)],
    ours="sweep*",
)
def cases() -> Mapping[str, Round]:
    """One round is all members."""
    solo, rates = jax.jit(run), jnp.array(RATES)
    keys = [jax.random.key(seed) for seed in range(NUM_SEEDS)]

    def by_fit() -> int:
        for rate in RATES:
            update, tx = training.step(loss_fn, optim.adam(rate)), optim.adam(rate)
            for key in keys:
                begin = training.init(NET.init(key, X[0]), tx)
                feed = training.batches(jax.device_get(DATA), BATCH, key=key)
                jax.block_until_ready(training.fit(update, begin, feed, num_steps=NUM_STEPS, progress=False)[0])
        return 1

    def one_by_one() -> int:
        jax.block_until_ready([solo({"rate": rate}, key) for rate in rates for key in keys])
        return 1

    def swept(**options: int) -> Round:
        def once() -> int:
            jax.block_until_ready(training.sweep(run, {"rate": RATES}, seeds=NUM_SEEDS, **options).results)
            return 1

        return once

    def compiled_anew() -> int:
        def fresh(key: jax.Array) -> Any:
            return run({"rate": RATES[0]}, key)

        jax.block_until_ready(jax.jit(fresh)(keys[0]))
        return 1

    return {
        "32 runs": by_fit,
        "one program, 32 calls": one_by_one,
        "sweep": swept(),
        "sweep, 8 at once": swept(members_at_once=8),
        "one run, compiled anew": compiled_anew,
    }


if __name__ == "__main__":
    main()
