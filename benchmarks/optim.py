"""What an update costs: of many small leaves, to compile and to make, and of one large one.

One of: adam-compile, trace, lower and compile an Adam step of 3,000 leaves of 100 numbers; adam-many, that step;
adam-large, a step of one leaf of 10 million numbers, and a copy of as many bytes; wrappers, steps of 10 leaves of a
million.

    pip install -e '.[bench]'
    python benchmarks/optim.py adam-compile

An Adam step moves 28 bytes a parameter: it reads parameter, gradient and two moments, and writes all but the gradient.
The copy is of an array so large that it moves as many bytes; so its ratio over a step's is the share of the machine's
bandwidth that the step has.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from runner import Promise, Round, Work, comparison, main

from renga import optim
from renga.optim import clip_by_global_norm, grouped

NUM_LEAVES, LEAF_SIZE, LARGE = 3000, 100, 10_000_000
ADAM_BYTES, COPY_BYTES = 28, 8  # of a number
ADAM = Work(bytes=ADAM_BYTES * LARGE)
Params = dict[str, jax.Array]


def small_leaves() -> Params:
    """Parameters in many leaves."""
    return {f"p{index:04}": jnp.full(LEAF_SIZE, index / NUM_LEAVES) for index in range(NUM_LEAVES)}


def one_leaf() -> Params:
    """Parameters in one."""
    return {"w": jnp.linspace(0, 1, LARGE)}


def million_each() -> Params:
    """Ten matrices."""
    return {f"w{index}": jnp.full((1000, 1000), index / 10) for index in range(10)}


def step_of(tx: Any) -> Any:
    """One update, parameters and state donated."""
    tx = optax.with_extra_args_support(tx)

    def step(params: Any, opt_state: Any, grads: Any) -> tuple[Any, Any]:
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return jax.jit(step, donate_argnums=(0, 1))


def compiling(tx: Any, params: Params) -> Round:
    """A round that compiles a step once, from empty caches."""
    opt_state = jax.eval_shape(tx.init, params)

    def run() -> int:
        jax.clear_caches()
        step_of(tx).lower(params, opt_state, params).compile()
        return 1

    return run


def stepping(tx: Any, params: Params, num_steps: int = 10) -> Round:
    """A round of steps."""
    grads = jax.tree.map(lambda leaf: leaf - 0.3, params)
    carry = [jax.tree.map(jnp.copy, params), jax.jit(tx.init)(params)]
    step = step_of(tx)

    def run() -> int:
        for _ in range(num_steps):
            carry[0], carry[1] = step(*carry, grads)
        jax.block_until_ready(carry)
        return num_steps

    return run


def copying(num_steps: int = 10) -> Round:
    """A round of copies, into an array that is there, that move as many bytes as a step of the large leaf."""
    source = jnp.linspace(0, 1, LARGE * ADAM_BYTES // COPY_BYTES)
    carry = [jnp.copy(source)]
    copy = jax.jit(lambda old, source, scale: source * scale, donate_argnums=0, keep_unused=True)

    def run() -> int:
        for _ in range(num_steps):
            carry[0] = copy(carry[0], source, 1.5)
        jax.block_until_ready(carry)
        return num_steps

    return run


@comparison(
    "adam-compile",
    "trace, lower and compile Adam of 3,000 leaves",
    "Optax",
    num_rounds=2,
    promises=[Promise("renga, grouped", "Optax", 1 / 3)],
)
def many_leaves_compile() -> Mapping[str, Round]:
    """Adam of many small leaves, compiled."""
    params = small_leaves()
    return {
        "renga, grouped": compiling(grouped(optim.adam(1e-3)), params),
        "Optax": compiling(optax.adam(1e-3), params),
    }


@comparison(
    "adam-many",
    "an Adam step of 3,000 leaves",
    "Optax",
    promises=[Promise("renga, grouped", "Optax", 1)],
    work=Work(bytes=ADAM_BYTES * NUM_LEAVES * LEAF_SIZE),
)
def many_leaves() -> Mapping[str, Round]:
    """Adam of many small leaves, stepped."""
    params = small_leaves()
    return {
        "renga, grouped": stepping(grouped(optim.adam(1e-3)), params),
        "Optax": stepping(optax.adam(1e-3), params),
    }


@comparison(
    "adam-large",
    "an Adam step of 10M parameters in one leaf",
    "Optax",
    promises=[Promise("renga, adam", "Optax", 1.05)],
    work=dict.fromkeys(("renga, adam", "renga, grouped", "Optax", "copy of as many bytes"), ADAM),
)
def large_leaf() -> Mapping[str, Round]:
    """Adam of one large leaf."""
    params = one_leaf()
    return {
        "renga, adam": stepping(optim.adam(1e-3), params),
        "renga, grouped": stepping(grouped(optim.adam(1e-3)), params),
        "renga, 8 bits": stepping(optim.low_bit(optim.adam(1e-3), key=0), params),
        "Optax": stepping(optax.adam(1e-3), params),
        "copy of as many bytes": copying(),
    }


@comparison(
    "wrappers",
    "a step of 10M parameters in ten leaves",
    "adamw",
    num_rounds=5,
    ours="renga, *",
    work={"adamw": ADAM},
)
def wrappers() -> Mapping[str, Round]:
    """What wraps AdamW, ours and Optax's."""
    params, adamw = million_each(), optim.adamw(1e-3)
    txs = {
        "adamw": adamw,
        "renga, clip": optax.chain(clip_by_global_norm(1.0), adamw),
        "Optax, clip": optax.chain(optax.clip_by_global_norm(1.0), adamw),
        "renga, skip_not_finite": optim.skip_not_finite(adamw),
        "Optax, apply_if_finite": optax.apply_if_finite(adamw, 3),
        "renga, accumulate": optim.accumulate(adamw, 5),
        "Optax, MultiSteps": optax.MultiSteps(adamw, 5),
        "renga, ema_params": optim.chain(adamw, optim.ema_params()),
    }
    return {name: stepping(tx, params) for name, tx in txs.items()}


if __name__ == "__main__":
    main()
