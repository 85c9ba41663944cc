"""What `capture` returns is what is tapped, under every transform, and the function is otherwise what it was."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from renga import nets
from renga.nets import capture, tap

from .kit import KEY, floats, outputs, values, variables
from .made import marks
from .registry import NETS


@nets.define
def inner(x, *, up=nets.linear(6), down=nets.linear(4)):
    """A block with a tap in it."""
    return x + down(tap("hidden", jnp.tanh(up(x))))


@nets.define
def outer(x, *, first=inner, layers=[nets.linear(4), inner]):
    """Taps in a child, in a list, and in the body."""
    x = first(x)
    for child in layers:
        x = child(x)
    return tap("sum", x.sum(-1))


X = values(floats(3, 4))[0]


def hidden(params: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["up"]["w"] + params["up"]["b"])


@jax.custom_vjp
def halved(x):
    return tap("inside", jnp.sin(x)) / 2


halved.defvjp(lambda x: (halved(x), x), lambda x, grads: (grads,))


@jax.custom_jvp
def doubled(x):
    return tap("inside", jnp.sin(x)) * 2


doubled.defjvp(lambda xs, tangents: (doubled(*xs), tangents[0]))


def test_values_stand_under_the_path_of_the_network_they_arise_in():
    params = outer.init(KEY, X)
    found, taps = capture(outer.apply)(params, X)
    np.testing.assert_array_equal(found, outer.apply(params, X))
    assert {path: value.shape for path, value in taps.items()} == {
        "first/hidden": (3, 6), "layers/1/hidden": (3, 6), "sum": (3,)
    }  # fmt: skip
    np.testing.assert_allclose(taps["first/hidden"], hidden(params["first"], X), rtol=1e-6)
    np.testing.assert_array_equal(taps["sum"], found)


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "dtype")


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in NETS])
def test_a_captured_network_returns_what_the_network_returns(name: str):
    case = NETS[name]
    net, keywords = case.build(), dict(case.keywords)
    options = {"key": KEY, "train": True}
    arrays = {name: value for name, value in keywords.items() if any(map(_is_array, jax.tree.leaves(value)))}
    flags = {name: value for name, value in keywords.items() if name not in arrays}
    made = jax.eval_shape(lambda: variables(net, KEY, *values(case.inputs), **values(keywords)))

    def apply(*args: Any, **arrays: Any) -> Any:
        return net.apply(*args, **arrays, **flags, **options)

    found, taps = jax.eval_shape(capture(apply), *made, *case.inputs, **arrays)
    assert taps == {}
    assert found == jax.eval_shape(apply, *made, *case.inputs, **arrays)


@pytest.mark.parametrize("name", ["repeated block", "stateful ensemble", "scan in the body", "convnet", "two inputs"])
def test_a_captured_network_computes_what_the_network_computes(name: str):
    case = NETS[name]
    net, inputs = case.build(), values(case.inputs)
    made = variables(net, KEY, *inputs)
    (found, _), wanted = jax.jit(lambda *args: (capture(net.apply)(*args), net.apply(*args)))(*made, *inputs)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_flags_keys_and_state_pass_through_a_capture():
    @nets.define
    def net(x, *, norm=nets.batch_norm(), drop=nets.dropout(0.5)):
        return tap("dropped", drop(norm(x)))

    params, state = net.init(KEY, X)
    (found, after), taps = capture(net.apply)(params, state, X, key=KEY, train=True)
    wanted, state = net.apply(params, state, X, key=KEY, train=True)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(taps["dropped"], wanted)
    assert not nets.compare(after, state)


@pytest.mark.parametrize("remat", [False, True])
def test_repeated_blocks_are_stacked_and_so_are_members_of_an_ensemble(remat: bool):
    net = nets.serial(nets.repeat(inner, 3, remat=remat), nets.ensemble(nets.repeat(inner, 2), 5))
    params = net.init(KEY, X)
    _, taps = capture(net.apply)(params, X)
    assert {path: value.shape for path, value in taps.items()} == {
        "repeat/hidden": (3, 3, 6), "ensemble/hidden": (2, 5, 3, 6)
    }  # fmt: skip
    x = X
    for index in range(3):
        part = jax.tree.map(lambda leaf, index=index: leaf[index], params["repeat"])
        np.testing.assert_allclose(taps["repeat/hidden"][index], hidden(part, x), rtol=1e-5)
        x = inner.apply(part, x)


def test_captures_commute_with_jit_vmap_grad_and_scan():
    params = outer.init(KEY, X)
    captured = capture(outer.apply)
    wanted = captured(params, X)
    for found in (
        jax.jit(captured)(params, X),
        jax.vmap(captured, (None, 0))(params, X),
        jax.checkpoint(captured)(params, X),
        lax.scan(lambda carry, x: (carry, captured(params, x)), 0, X)[1],
    ):
        jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5), found, wanted)

    def norm(params: Any) -> jax.Array:
        return jnp.sum(captured(params, X)[1]["first/hidden"] ** 2)

    closed = jax.grad(lambda params: jnp.sum(hidden(params["first"], X) ** 2))(params)
    assert not nets.compare(jax.grad(norm)(params), closed, rtol=1e-5, atol=1e-6)
    assert not nets.compare(jax.jacfwd(norm)(params), closed, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_the_outputs_is_that_of_the_function_itself():
    params = outer.init(KEY, X)
    found = jax.grad(lambda params: capture(outer.apply)(params, X)[0].sum())(params)
    assert not nets.compare(found, jax.grad(lambda params: outer.apply(params, X).sum())(params), rtol=1e-5, atol=1e-6)


def test_no_tracer_leaks():
    params = outer.init(KEY, X)
    with jax.checking_leaks():
        jax.jit(jax.grad(lambda params: capture(outer.apply)(params, X)[1]["sum"].sum()))(params)
        jax.vmap(capture(outer.apply), (None, 0))(params, X)


def test_transforms_inside_a_body_stack_their_values_along_the_leading_axis():
    def body(x):
        rows = jax.vmap(lambda row: tap("row", 2 * row).sum(), in_axes=1)(x)
        last, _ = lax.scan(lambda carry, x: (tap("carry", carry + x), None), 0.0, rows, reverse=True)
        again = jax.checkpoint(lambda x: jnp.sin(tap("again", jnp.cos(x))))(rows)
        called = jax.jit(lambda x: tap("pair", (x, {"two": 2 * x}))[0])(again)
        either = lax.cond(last > 0, lambda x: tap("either", x), lambda x: tap("either", -x), called)
        gradient = jax.grad(lambda x: jax.checkpoint(lambda x: tap("primal", jnp.sin(x)) * x)(x).sum())(either)
        return tap("gradient", gradient)

    found, taps = jax.jit(capture(body))(X)
    rows = 2 * X.sum(0)
    np.testing.assert_allclose(found, body(X), rtol=1e-6)
    np.testing.assert_allclose(taps.pop("row"), 2 * X.T, rtol=1e-6)
    np.testing.assert_allclose(taps.pop("carry"), jnp.cumsum(rows[::-1])[::-1], rtol=1e-5)
    np.testing.assert_allclose(taps.pop("again"), jnp.cos(rows), rtol=1e-6)
    either = jnp.where(rows.sum() > 0, 1, -1) * jnp.sin(jnp.cos(rows))
    np.testing.assert_allclose(taps.pop("either"), either, rtol=1e-6)
    np.testing.assert_allclose(taps.pop("primal"), jnp.sin(either), rtol=1e-6)
    np.testing.assert_allclose(taps.pop("pair/1/two"), 2 * taps.pop("pair/0"), rtol=1e-6)
    np.testing.assert_array_equal(taps.pop("gradient"), found)
    assert not taps


@pytest.mark.parametrize("function", [halved, doubled])
def test_a_function_with_derivatives_of_its_own_keeps_them_and_its_taps_are_constants(function: Any):
    found, taps = capture(function)(X)
    np.testing.assert_array_equal(found, function(X))
    np.testing.assert_array_equal(taps["inside"], jnp.sin(X))
    of_output = jax.grad(lambda x: capture(function)(x)[0].sum())(X)
    np.testing.assert_array_equal(of_output, jax.grad(lambda x: function(x).sum())(X))
    np.testing.assert_array_equal(jax.grad(lambda x: capture(function)(x)[1]["inside"].sum())(X), 0 * X)


def test_a_capture_around_a_capture_sees_every_tap_once():
    params = outer.init(KEY, X)
    (_, taps), again = capture(capture(outer.apply))(params, X)
    assert list(taps) == list(again)
    (_, taps), again = capture(capture(halved))(X)
    assert list(taps) == list(again) == ["inside"]


def test_patterns_choose_the_taps():
    params = outer.init(KEY, X)
    assert list(capture(outer.apply, "**/hidden")(params, X)[1]) == ["first/hidden", "layers/1/hidden"]
    assert list(capture(outer.apply, "sum")(params, X)[1]) == ["sum"]

    def ambiguous(x):
        return tap("once", tap("twice", x) + tap("twice", x))

    assert list(capture(ambiguous, "once")(X)[1]) == ["once"]


def test_a_tap_changes_nothing_in_a_network():
    params = inner.init(KEY, X)
    assert set(params) == {"up", "down"}
    np.testing.assert_array_equal(inner.apply(params, X), X + hidden(params, X) @ params["down"]["w"])
    assert tap("n", 3).dtype == jnp.int32
    assert tap("n", {"a": X, "b": None}) == {"a": X, "b": None}
    with jax.named_scope("outside"):
        assert list(capture(inner.apply)(params, X)[1]) == ["hidden"]
    assert nets.summary(inner, X)[-1].num_flops == 3 * (2 * 4 * 6 + 6 + 6 + 2 * 6 * 4 + 4 + 4)


def test_captures_of_equal_functions_are_equal_so_that_jit_compiles_once():
    assert capture(nets.linear(3).apply, "**") == capture(nets.linear(3).apply, "**")
    assert repr(capture(nets.linear(3).apply, "**")) == "capture(linear_apply, '**')"


def test_outputs_of_a_stateless_network_come_first():
    params = inner.init(KEY, X)
    np.testing.assert_array_equal(capture(inner.apply)(params, X)[0], outputs(inner, (params,), X))


def test_a_tap_in_a_linear_function_is_transposed():
    transposed = jax.linear_transpose(lambda x: tap("x", 3 * x), X)
    np.testing.assert_allclose(transposed(jnp.ones_like(X))[0], 3 * jnp.ones_like(X))
