"""Every link in every wrapper, Optax's and ours, against a loop written by hand; gradients go through all of them.

The wrappers do what they are for: wait, leave out, go back, hide, lay together, round. The loops know the link alone.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from renga import optim
from renga.optim._low_bit import Halves

from .by_hand import QUICKLY, Alone, gradient, update_of
from .registry import LINKS
from .test_laws import BATCH, OF_PLAYERS, OURS, PARAMS, C, calls_in, loss_fn
from .trees import assert_close, types
from .wrappers import BATCHES, WRAPPERS

OWN = [name for name, build in LINKS.items() if calls_in(build()) & (OURS - {"chain", "plain_sgd"})]
ALONE = [name for name in OWN if " with " not in name and " from " not in name and "chain" not in name]
NARROW = {"low_bit"}  # it rounds arrays of float32 alone
VIEWS = ("average", "slow", "anchor", "ahead")  # fields of states that are parameters, which it leaves alone
AS_A_WHOLE = {
    "average_params",
    "ema_params",
    "freeze",
    "grouped",
    "lookahead",
    "masked",
    "partition",
    "past_extragradient",
    "project",
    "soap",
}
REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "accumulate": (lambda tx: tx.evaluates_gradient, "expected tx without links that evaluate gradients"),
    "inject_hyperparams": (lambda tx: calls_in(tx) & {"inject_hyperparams"}, "expected tx without another one inside"),
    "grouped": (lambda tx: tx.evaluates_gradient or calls_in(tx) & AS_A_WHOLE, "grouped: expected links|that evaluate"),
}
# Of a group, low_bit rounds other blocks with other bits; Optax's lookahead hands no grad_fn on.
UNLIKE: dict[str, Callable[[Any], Any]] = {
    "grouped": lambda tx: calls_in(tx) & NARROW,
    "optax.lookahead": lambda tx: tx.evaluates_gradient,
}
LINK_OF = {name: LINKS[name]() for name in ALONE}
REFUSALS = [(wrapper, name) for wrapper, (refuses, _) in REFUSED.items() for name in ALONE if refuses(LINK_OF[name])]
PAIRS = [
    (wrapper, name)
    for name in ALONE
    for wrapper in WRAPPERS
    if (wrapper, name) not in REFUSALS and not (wrapper in UNLIKE and UNLIKE[wrapper](LINK_OF[name]))
]
# One pair in five stands for the others, every link and every wrapper among them.
A_FIFTH = {
    pair for pair in PAIRS if (ALONE.index(pair[1]) + list(WRAPPERS).index(pair[0])) % 5 == 0
}  # fmt: skip


def long_unless(short: bool) -> Any:
    """Left to `pytest -m long`, or not."""
    return () if short else pytest.mark.long


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("wrapper", "name"), [pytest.param(*pair, marks=long_unless(pair in A_FIFTH)) for pair in PAIRS]
)
def test_a_link_in_a_wrapper_steps_as_a_loop_by_hand(wrapper: str, name: str):
    tx, pair = LINKS[name](), WRAPPERS[wrapper]
    dtype = jnp.float32 if calls_in(tx) & NARROW else jnp.float64
    start, batches, given, c = jax.tree.map(lambda x: jnp.asarray(x, dtype), (PARAMS, BATCHES, pair.batches, C))
    wrapped, params = pair.wrap(tx), start | {"c": c} if pair.with_c else start
    state = first = wrapped.init(params)
    update = update_of(wrapped, bool(calls_in(tx) & OF_PLAYERS))
    for batch, expected in zip(given, pair.loop(Alone(tx, start, batches)), strict=True):
        updates, state = update(gradient(params, batch), state, params, batch)
        params = optax.apply_updates(params, updates)
        assert types(state) == types(first)
        assert_close(pair.look(params, state), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("wrapper", "name"), REFUSALS)
def test_a_wrapper_refuses_a_link_that_it_cannot_hold(wrapper: str, name: str):
    with pytest.raises(ValueError, match=REFUSED[wrapper][1]):
        WRAPPERS[wrapper].wrap(LINKS[name]())


@pytest.mark.parametrize("name", [name for name in ALONE if not calls_in(LINK_OF[name]) & NARROW])
def test_low_bit_steps_as_the_link_and_rounds_its_state_to_the_digits_that_stay(name: str):
    tx, params = LINKS[name](), PARAMS
    wrapped: Any = optim.low_bit(tx, 16, key=0, min_size=1)
    alone, state = Alone(tx, PARAMS, BATCHES), wrapped.init(params)
    update = update_of(wrapped, bool(calls_in(tx) & OF_PLAYERS))
    for batch in BATCHES:
        expected, inner = alone.updates(widened(state.inner), params, batch)
        updates, state = update(gradient(params, batch), state, params, batch)
        assert_close(updates, expected, rtol=1e-6, atol=1e-7)
        assert_close(widened(state.inner), inner, rtol=2**-7, atol=0)
        assert [leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(state.inner)] == are_rounded(inner)
        params = optax.apply_updates(params, updates)


@pytest.mark.parametrize("name", [name for name in ALONE if calls_in(LINK_OF[name]) & NARROW])
def test_low_bit_refuses_another(name: str):
    with pytest.raises(ValueError, match="expected tx without low_bit inside"):
        optim.low_bit(LINKS[name](), key=0)


def widened(state: Any) -> Any:
    """A state with its bfloat16 numbers as float32."""
    is_packed = lambda leaf: isinstance(leaf, Halves)  # noqa: E731
    return jax.tree.map(lambda x: x.values.astype(float) if is_packed(x) else x, state, is_leaf=is_packed)


def are_rounded(state: Any) -> list[bool]:
    """For each leaf, whether it is one of float32 that is no parameter."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    views = {jax.tree_util.GetAttrKey(name) for name in VIEWS}
    return [leaf.dtype == jnp.float32 and not views & set(path) for path, leaf in leaves]


def exotic() -> optax.GradientTransformation:
    """A link whose state has a leaf of every kind."""

    def init(params: Any) -> dict[str, Any]:
        return {
            "flag": jnp.asarray(False),
            "count": jnp.zeros((), jnp.int32),
            "byte": jnp.zeros(3, jnp.uint8),
            "key": jax.random.key(3),
            "nothing": None,
            "hole": optax.MaskedNode(),
            "half": jnp.zeros(2, jnp.bfloat16),
            "empty": (),
        }

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        moved = {"flag": ~state["flag"], "count": state["count"] + 1, "key": jax.random.split(state["key"])[0]}
        return jax.tree.map(lambda g: -0.1 * g, updates), {**state, **moved, "half": state["half"] + 1}

    return optax.GradientTransformation(init, update)


OURS_ALONE = {name: pair.wrap for name, pair in WRAPPERS.items() if "." not in name and name != "inject_hyperparams"}
OURS_ALONE["low_bit"] = lambda tx: optim.low_bit(tx, key=0, min_size=1)


@pytest.mark.parametrize("wrapper", OURS_ALONE)
def test_states_of_every_kind_keep_their_types_under_scan_cond_and_vmap(wrapper: str):
    tx = OURS_ALONE[wrapper](exotic())
    params = {"w": jnp.ones(3), "b": jnp.ones((), jnp.bfloat16), "c": jnp.ones(2)}
    state = tx.init(params)

    def step(state: Any, scale: jax.Array) -> Any:
        grads = jax.tree.map(lambda p: (scale * p).astype(p.dtype), params)
        new = lax.cond(scale > 0.5, lambda: tx.update(grads, state, params)[1], lambda: state)
        return new, tx.update(grads, new, params)[0]

    last, _ = lax.scan(step, state, jnp.array([1.0, 0.0, 1.0]))
    assert types(last) == types(state)
    rows = jax.vmap(lambda scale: step(state, scale)[0])(jnp.array([1.0, 0.0]))
    assert types(jax.tree.map(lambda leaf: leaf[1], rows)) == types(state)


NO_DERIVATIVE = {
    "low_bit": "codes are steps",
    "low_bit of 16": "so are the digits of bfloat16",
    "soap": "the bases are refreshed without one",
    "lbfgs": "its line search is a while loop",
}
UNDEFINED_AT_ZERO = {"dadapt_adamw", "prodigy"}  # Optax's step is NaN itself there


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "zero"),
    [
        pytest.param(name, zero, marks=long_unless(name in ALONE[zero::2]))
        for name in LINKS
        for zero in (False, True)
        if name not in NO_DERIVATIVE and not (zero and name in UNDEFINED_AT_ZERO)
    ],
)
def test_gradients_through_twenty_steps_equal_finite_differences(name: str, zero: bool):
    tx = optim.differentiable(LINKS[name]())
    start, batch = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (PARAMS, BATCH))
    along = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(1.0, leaf.size + 1)).reshape(leaf.shape), start)

    def loss(params: Any, scale: Any) -> Any:
        value = loss_fn(params, batch, None) * (0.0 if zero else 1.0) + 0.0 * scale
        return dict.fromkeys(params, value) if calls_in(tx) & {"lola", "sos"} else value

    def after(t: jax.Array) -> jax.Array:
        params = jax.tree.map(lambda p, v: p + t * v, start, along)

        def step(carry: Any, _: None) -> Any:
            params, state = carry
            found = optim.oracle(lambda params: loss(params, t), params)
            updates, state = tx.update(found.grads, state, params, **found.extra)
            return (jax.tree.map(lambda p, u: p + 0.01 * u, params, updates), state), None

        (params, _), _ = lax.scan(step, (params, tx.init(params)), None, 20)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(params))  # pyright: ignore[reportReturnType]

    found, small = jax.jit(jax.grad(after), compiler_options=QUICKLY)(0.0), 1e-6
    after = jax.jit(after, compiler_options=QUICKLY)
    expected = (after(jnp.asarray(small)) - after(jnp.asarray(-small))) / (2 * small)
    assert np.isfinite(found)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
