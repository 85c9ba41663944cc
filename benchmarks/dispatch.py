"""What a jitted train step costs in a Python loop: an 8-16-1 MLP, batch 16, Adam.

The network is so small that nearly all of the time is the way into the compiled program and out of it. Every library
does the same arithmetic, with its buffers donated where it can.

    pip install -e '.[bench]'
    python benchmarks/dispatch.py
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from runner import Promise, Round, apart, comparison, installed, main

from renga import nets, optim, training

NUM_STEPS = 1000
SIZES = (8, 16, 1)
X, Y = jnp.ones((16, SIZES[0])), jnp.ones((16, SIZES[-1]))
BATCH = {"x": X, "y": Y}


def loop(step: Callable[..., tuple[Any, Any]], carry: Any, batch: Any = BATCH) -> Round:
    """A round of steps from one initial carry, which is donated."""

    def run() -> int:
        state = jax.tree.map(jnp.copy, carry)
        metrics = None
        for _ in range(NUM_STEPS):
            state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))
        return NUM_STEPS

    return run


def plain_apply(params: dict, x: jax.Array) -> jax.Array:
    """The network in plain JAX."""
    hidden = jax.nn.relu(x @ params["hidden"]["w"] + params["hidden"]["b"])
    return hidden @ params["out"]["w"] + params["out"]["b"]


def plain_params() -> dict:
    """Its parameters as a dict of dicts."""
    keys = jax.random.split(jax.random.key(0))
    sizes = zip(("hidden", "out"), SIZES[:-1], SIZES[1:], keys, strict=True)
    return {name: {"w": jax.random.normal(key, (i, o)), "b": jnp.zeros(o)} for name, i, o, key in sizes}


def plain_loss(params: dict, batch: dict) -> jax.Array:
    """Mean squared error."""
    return jnp.mean((plain_apply(params, batch["x"]) - batch["y"]) ** 2)


def plain_step(tx: optax.GradientTransformation, *, with_key: bool, batch: Any = BATCH) -> Round:
    """What one writes without a library; with a key, that is split at each step."""

    def step(carry: tuple, batch: dict) -> tuple[tuple, jax.Array]:
        params, opt_state, *key = carry
        key = [jax.random.split(key[0])[0]] if with_key else []
        loss, grads = jax.value_and_grad(plain_loss)(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, *key), loss

    params = plain_params()
    key = [jax.random.key(0)] if with_key else []
    return loop(jax.jit(step, donate_argnums=0), (params, tx.init(params), *key), batch)


def renga_step(*, with_key: bool) -> Round:
    """The same through `training.step`."""
    net, tx = nets.mlp(*SIZES[1:]), optim.adam(1e-3)

    def loss_fn(params: Any, batch: Any, key: jax.Array | None) -> jax.Array:
        return training.squared_error(net.apply(params, batch["x"]), batch["y"])

    key = jax.random.key(0) if with_key else None
    train_state = training.init(net.init(jax.random.key(0), X), tx, key=key)
    return loop(jax.jit(training.step(loss_fn, tx), donate_argnums=0), train_state)


def haiku_step(tx: optax.GradientTransformation) -> Round:
    """Haiku."""
    import haiku as hk

    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP(SIZES[1:])(x)))

    def step(carry: tuple, batch: dict) -> tuple[tuple, jax.Array]:
        params, opt_state = carry
        loss, grads = jax.value_and_grad(lambda p: jnp.mean((net.apply(p, batch["x"]) - batch["y"]) ** 2))(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    params = net.init(jax.random.key(0), X)
    return loop(jax.jit(step, donate_argnums=0), (params, tx.init(params)))


def flax_step(tx: optax.GradientTransformation) -> Round:
    """Flax linen with its TrainState."""
    from flax import linen
    from flax.training.train_state import TrainState

    class Mlp(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return linen.Dense(SIZES[2])(linen.relu(linen.Dense(SIZES[1])(x)))

    def step(state: TrainState, batch: dict) -> tuple[TrainState, jax.Array]:
        def loss_fn(params: Any) -> jax.Array:
            return jnp.mean((state.apply_fn(params, batch["x"]) - batch["y"]) ** 2)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), loss

    net = Mlp()
    state = TrainState.create(apply_fn=net.apply, params=net.init(jax.random.key(0), X), tx=tx)
    state = state.replace(step=jnp.zeros((), jnp.int32))
    return loop(jax.jit(step, donate_argnums=0), state)


def equinox_step(tx: optax.GradientTransformation) -> Round:
    """Equinox as its documentation writes it."""
    import equinox as eqx

    @eqx.filter_jit(donate="all-except-first")
    def step(batch: dict, model: Any, opt_state: Any) -> tuple[Any, Any, jax.Array]:
        loss, grads = eqx.filter_value_and_grad(lambda m: jnp.mean((jax.vmap(m)(batch["x"]) - batch["y"]) ** 2))(model)
        updates, opt_state = tx.update(grads, opt_state, eqx.filter(model, eqx.is_array))
        return eqx.apply_updates(model, updates), opt_state, loss

    def run() -> int:
        model = eqx.nn.MLP(SIZES[0], SIZES[2], SIZES[1], 1, key=jax.random.key(0))
        opt_state = tx.init(eqx.filter(model, eqx.is_array))
        loss = None
        for _ in range(NUM_STEPS):
            model, opt_state, loss = step(BATCH, model, opt_state)
        jax.block_until_ready((loss, opt_state))
        return NUM_STEPS

    return run


def torch_step() -> Round:
    """Torch, eager, with its fused Adam."""
    import torch

    x, y = torch.ones(X.shape), torch.ones(Y.shape)
    net = torch.nn.Sequential(torch.nn.Linear(*SIZES[:2]), torch.nn.ReLU(), torch.nn.Linear(*SIZES[1:]))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)

    def run() -> int:
        for _ in range(NUM_STEPS):
            adam.zero_grad()
            torch.nn.functional.mse_loss(net(x), y).backward()
            adam.step()
        return NUM_STEPS

    return run


@comparison(
    "dispatch",
    "a train step of an 8-16-1 MLP in a Python loop",
    "plain JAX, dict params",
    num_rounds=25,
    promises=[Promise("renga", "plain JAX, dict params", 1.1)],
)
def cases() -> dict[str, Round]:
    """Every case whose library is installed."""
    tx = optax.adam(1e-3)
    found: dict[str, Round] = {
        "plain JAX, dict params": plain_step(tx, with_key=False),
        "renga": renga_step(with_key=False),
        "plain JAX, with a key": plain_step(tx, with_key=True),
        "renga, with a key": renga_step(with_key=True),
    }
    peers: dict[str, dict[str, Callable[[], Round]]] = {
        "haiku": {"Haiku": lambda: haiku_step(tx)},
        "flax": {"Flax linen, TrainState": lambda: flax_step(tx)},
        "equinox": {"Equinox, filter_jit": lambda: equinox_step(tx)},
        "torch": {"torch, fused Adam": lambda: apart(torch_step)},
    }
    found |= installed(peers)
    return found


if __name__ == "__main__":
    main()
