"""What training is made of, on batches spread over four devices, against one device: run by `test_meshes.py`.

    python -m tests.training.laws_over_meshes Auto|Explicit

Prints the names of the programs that differ, and why.
"""

import sys
import traceback
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from renga import nets, optim, training
from renga.training import rl

KEY = jax.random.key(0)
NET = nets.mlp(8, 3)
NORMED = nets.serial(nets.linear(8), nets.batch_norm(), jnp.tanh, nets.dropout(0.2), nets.linear(3))
X = jax.random.normal(KEY, (16, 4))
BATCH = {"x": X, "y": jnp.arange(16) % 3}
TASKS = {half: {"x": jax.random.normal(KEY, (8, 5, 4)), "y": jnp.ones((8, 5), int)} for half in ("support", "query")}
MINIBATCHES = jax.tree.map(lambda leaf: leaf[:, :, None], TASKS["support"])
PARAMS = NET.init(KEY, X)


def loss_fn(params: Any, batch: Any, key: Any) -> jax.Array:
    return training.cross_entropy(NET.apply(params, batch["x"]), batch["y"])


def normed(params: Any, state: Any, batch: Any, key: Any) -> Any:
    logits, state = NORMED.apply(params, state, batch["x"], key=key, train=True)
    return training.cross_entropy(logits, batch["y"]), (state, {})


def stepped(loss: Any, tx: Any, params: Any, **options: Any) -> Callable[[Any], Any]:
    """Two steps of a loss on a batch."""
    step = training.step(loss, tx, **options)
    start = training.init(params, tx, key=KEY)

    def run(batch: Any) -> Any:
        first, _ = step(start, batch)
        second, metrics = step(first, batch)
        return second.params, second.state, metrics

    return run


def normed_run(batch: Any) -> Any:
    params, state = NORMED.init(KEY, X)
    tx = optim.chain(optim.sam(0.05), optim.sgd(1e-2))
    step = training.step(normed, tx, stateful=True)
    after, metrics = step(training.init(params, tx, state=state, key=KEY), batch)
    return after.params, after.state, metrics


def played(batch: Any) -> Any:
    def value(players: Any, batch: Any, key: Any) -> jax.Array:
        real = NET.apply(players["critic"], batch["x"]).mean()
        return real - NET.apply(players["critic"], batch["x"] + players["generator"]).mean()

    players = {"critic": PARAMS, "generator": jnp.ones(4)}
    game = training.zero_sum(value, minimize="generator", maximize="critic")
    links = {player: optim.optimistic_adam(1e-2) for player in players}
    turns = training.alternating(game, optim.by_player(links), {"critic": 2, "generator": 1})
    start = training.init(players, optim.by_player(links), key=KEY)
    return turns(start, batch)[0].params, stepped(game, optim.by_player(links), players)(batch)


def collected(batch: Any) -> Any:
    """A rollout whose environments begin where the rows of the batch say."""
    env = rl.vectorize(rl.cart_pole(), 16)
    collect = training.rollout(env, lambda params, obs, key: jnp.argmax(NET.apply(params, obs)[..., :2], -1), 20)
    start = collect.init(KEY, PARAMS)
    _, seen = collect(PARAMS, start._replace(obs=0.01 * batch["x"]))
    values = NET.apply(PARAMS, seen.obs)[..., 0], NET.apply(PARAMS, seen.next_obs)[..., 0]
    return seen.reward, seen.ended, rl.gae(seen.reward, *values, **seen.ends, discount=0.99, decay=0.95)


TX = optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(1e-2))
PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "step": stepped(loss_fn, TX, PARAMS),
    "sam, batch norm and dropout": normed_run,
    "accumulate": stepped(loss_fn, optim.accumulate(TX, 2), PARAMS),
    "microbatch": stepped(training.microbatch(loss_fn, 2), TX, PARAMS),
    "adversarial": stepped(training.adversarial(loss_fn, training.pgd(0.1, 3)), TX, PARAMS),
    "per-example gradients": lambda batch: training.per_example(loss_fn)(PARAMS, batch),
    "per-example norms": lambda batch: training.per_example_norms(loss_fn)(PARAMS, batch),
    "clipped sum": lambda batch: training.clipped_sum(loss_fn, 0.1)(PARAMS, batch),
    "hvp": lambda batch: training.hvp(loss_fn)(PARAMS, PARAMS, batch, None),
    "ntk": lambda batch: training.ntk(NET.apply)(PARAMS, batch["x"]),
    "evolution": stepped(training.evolution_strategies(loss_fn, scale=0.1, num_pairs=4), TX, PARAMS),
    "games": played,
    "rollout": collected,
    "norms": lambda batch: training.with_norms(training.step(loss_fn, TX))(training.init(PARAMS, TX), batch)[1],
}
OF_TASKS: dict[str, Callable[[Any], Any]] = {
    "maml": stepped(training.maml(loss_fn, optim.adam(0.01), 2), TX, PARAMS),
    "imaml": stepped(training.imaml(loss_fn, optim.sgd(0.1), 3, regularization=2.0), TX, PARAMS),
    "evaluate_tasks": lambda tasks: training.evaluate_tasks(loss_fn, optim.sgd(0.1), 2)(PARAMS, tasks),
}
OF_MINIBATCHES: dict[str, Callable[[Any], Any]] = {
    "reptile": stepped(training.reptile(loss_fn, optim.sgd(0.1), 5), TX, PARAMS)
}


def main(kind: str) -> None:
    """Runs every program on one device and on four."""
    assert jax.device_count() == 4
    mesh = jax.make_mesh((4,), ("data",), axis_types=(getattr(AxisType, kind),))
    spread = NamedSharding(mesh, PartitionSpec("data"))
    for programs, data in ((PROGRAMS, BATCH), (OF_TASKS, TASKS), (OF_MINIBATCHES, MINIBATCHES)):
        for name, program in programs.items():
            expected = jax.jit(program)(data)
            try:
                with jax.set_mesh(mesh):
                    found = jax.jit(program)(jax.device_put(data, spread))
                jax.tree.map(_compare, found, expected)
            except Exception as error:
                traceback.print_exc()
                print(f"{name}: {type(error).__name__}: {str(error).strip().splitlines()[0]}")


def _compare(one: Any, other: Any) -> None:
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    main(sys.argv[1])
