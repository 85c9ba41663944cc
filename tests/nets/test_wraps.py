"""Combinators that keep what a network computes, and change how, at what precision, or what is learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

from .families.combinators import noted, unit, unrolled
from .kit import KEY, floats, outputs, values, variables

(x,) = values(floats(4, 5))


def assert_close(tree, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-5, atol=1e-5), tree, other)


def assert_same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def grads(net, made, *inputs):
    def loss(params):
        result = outputs(net, (params, *made[1:]), *inputs, key=jax.random.key(1), train=True)
        return sum(jnp.sum(leaf.astype(jnp.float32) ** 2) for leaf in jax.tree.leaves(result))

    return jax.jit(jax.grad(loss))(made[0])


def count_primitives(function, *args) -> dict[str, int]:
    found: dict[str, int] = {}

    def look(jaxpr):
        for eqn in jaxpr.eqns:
            found[eqn.primitive.name] = found.get(eqn.primitive.name, 0) + 1
            for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
                if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                    look(getattr(value, "jaxpr", value))

    look(jax.make_jaxpr(function)(*args).jaxpr)
    return found


@pytest.mark.parametrize("wrap", [nets.remat, nets.cast, lambda net: nets.frozen(net, "norm/**")])
def test_wrapped_networks_compute_what_they_wrap(wrap):
    net = unit(5)
    made = variables(net, KEY, x)
    assert_same(variables(wrap(net), KEY, x), made)
    for train in (False, True):
        given = {"key": jax.random.key(1), "train": train}
        assert_close(wrap(net).apply(*made, x, **given), net.apply(*made, x, **given))


@pytest.mark.parametrize("remat", [nets.remat(unit(5)), nets.repeat(unit(5), 3, remat=True)])
def test_remat_computes_the_same_gradients_again_in_the_backward_pass(remat: nets.Net):
    plain = unit(5) if remat == nets.remat(unit(5)) else nets.repeat(unit(5), 3)
    made = variables(plain, KEY, x)
    assert_close(grads(remat, made, x), grads(plain, made, x))
    tanhs = [count_primitives(lambda made, net=net: grads(net, made, x), made)["tanh"] for net in (plain, remat)]
    assert tanhs[1] > tanhs[0]


def test_a_state_that_is_only_read_comes_back_from_remat_as_it_was():
    net = nets.remat(unit(5))
    made = variables(net, KEY, x)
    kept = jax.tree.leaves(net.apply(*made, x)[1])
    assert all(a is b for a, b in zip(kept, jax.tree.leaves(made[1]), strict=True))


def test_cast_keeps_parameters_runs_and_returns_in_the_dtypes_asked_for():
    seen = []

    def look(x):
        seen.append(x.dtype)
        return x

    net = nets.cast(
        nets.serial(nets.linear(3), look), params="float16", compute=jnp.bfloat16, outputs=jnp.dtype("float32")
    )
    params = net.init(KEY, x)
    assert params["linear"]["w"].dtype == jnp.float16
    seen.clear()
    assert net.apply(params, x).dtype == jnp.float32
    assert seen == [jnp.bfloat16]
    assert grads(net, (params,), x)["linear"]["w"].dtype == jnp.float16


def test_cast_leaves_statistics_and_integers_as_they_are():
    ids = jnp.arange(4)
    net = nets.cast(nets.serial(nets.embed(5, 4), nets.batch_norm()), compute="bfloat16")
    params, state = net.init(KEY, ids)
    y, state = net.apply(params, state, ids, train=True)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves((params, state))} == {jnp.dtype("float32")}


def test_frozen_parameters_have_no_gradient_and_others_theirs():
    plain = nets.mlp(6, 2)
    made = variables(plain, KEY, x)
    expected, found = grads(plain, made, x), grads(nets.frozen(plain, "layers/0/*"), made, x)
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(found["layers"][0]))
    assert_close(found["layers"][1], expected["layers"][1])
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(grads(nets.frozen(plain), made, x)))


def test_lora_starts_as_the_network_it_wraps_and_merges_into_it():
    base = nets.mlp(6, 2)
    net = nets.lora(base, "**/w", rank=2, alpha=8)
    params = net.init(KEY, x)
    assert_close(net.apply(params, x), base.apply(params["net"], x))
    params["lora"] = jax.tree.map(lambda leaf: 0.3 + values(leaf), params["lora"])
    merged = nets.merge_lora(net, params)
    change = params["lora"]["layers"]["0"]["w"]
    np.testing.assert_allclose(
        merged["layers"][0]["w"], params["net"]["layers"][0]["w"] + 4 * change["a"] @ change["b"], rtol=1e-5
    )
    assert_close(base.apply(merged, x), net.apply(params, x))


def test_lora_learns_the_change_alone():
    net = nets.lora(nets.mlp(6, 2), "**/w", rank=2)
    found = grads(net, (net.init(KEY, x),), x)
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(found["net"]))
    assert jnp.any(found["lora"]["layers"]["1"]["w"]["b"])


def test_lora_changes_each_block_of_a_repeat_by_itself():
    block = nets.linear(5)
    whole = nets.lora(nets.repeat(block, 3), "w", rank=2, num_stacked=1)
    params = whole.init(KEY, x)
    assert params["lora"]["w"]["a"].shape == (3, 5, 2)
    params["lora"] = jax.tree.map(lambda leaf: 0.3 + values(leaf), params["lora"])
    each = nets.lora(block, "w", rank=2)
    y = x
    for own, change in zip(nets.unstack(params["net"]), nets.unstack(params["lora"]), strict=True):
        y = each.apply({"net": own, "lora": change}, y)
    assert_close(whole.apply(params, x), y)


def test_blocks_that_return_a_pair_are_collected_and_take_their_own_part():
    net = nets.repeat(noted, 3, per_block="bias")
    bias = 0.1 * jnp.arange(15.0).reshape(3, 5)
    params = net.init(KEY, x, bias=bias)
    y, sums = net.apply(params, x, bias=bias)
    expected, expected_sums = x, []
    for index, part in enumerate(nets.unstack(params)):
        expected, note = noted.apply(part, expected, bias=bias[index])
        expected_sums.append(note)
    assert_close((y, sums), (expected, jnp.stack(expected_sums)))


@pytest.mark.parametrize("train", [False, True])
def test_repeat_is_serial_of_its_unstacked_parts(train: bool):
    params, state = nets.repeat(unit(5, 0.0), 12).init(KEY, x)
    y, kept = nets.repeat(unit(5, 0.0), 12).apply(params, state, x, key=KEY, train=train)
    net = nets.serial(*[unit(5, 0.0)] * 12)
    parts = [nets.unstack(tree, name="unit") for tree in (params, state)]
    assert list(parts[0])[:3] == ["unit", "unit_1", "unit_2"]
    expected, expected_state = net.apply(*parts, x, key=KEY, train=train)
    assert_close((y, kept), (expected, nets.stack(expected_state)))
    assert_same(nets.stack(nets.unstack(params)), params)
    assert_same(nets.stack(jax.tree.map(lambda leaf: leaf, parts[0])), params)


def test_equal_blocks_are_traced_once():
    traced = []

    @nets.layer
    def block(features):
        @nets.define
        def body(x, *, into=nets.linear(features), norm=nets.batch_norm()):
            traced.append(1)
            return jnp.tanh(norm(into(x)))

        return body

    net = nets.serial(*[block(5)] * 10)
    made = variables(net, KEY, x)
    assert len(traced) == 1
    traced.clear()
    found = jax.jit(lambda made: net.apply(*made, x, train=True))(made)
    assert len(traced) == 1
    assert_close(found, net.apply(*made, x, train=True))


def test_equal_blocks_that_drop_draw_each_its_own_mask():
    @nets.define
    def masks(x, *, blocks=[nets.serial(nets.dropout(0.5))] * 3):
        return [block(x) for block in blocks]

    ones = jnp.ones((4, 16))
    found = jax.jit(lambda key: masks.apply({}, ones, key=key, train=True))(KEY)
    assert_same(found, masks.apply({}, ones, key=KEY, train=True))
    assert all(jnp.any(found[i] != found[j]) for i, j in [(0, 1), (0, 2), (1, 2)])


def test_a_state_carried_through_a_scan_is_that_of_a_loop():
    (xs,) = values(floats(4, 3, 5))
    params, state = unrolled.init(KEY, xs)
    y, kept = jax.jit(lambda *given: unrolled.apply(*given, train=True))(params, state, xs)
    norm, loop, expected = nets.batch_norm(), state["norm"], []
    for step in range(3):
        h = nets.linear(4).apply(params["first"], xs[:, step])
        out, loop = norm.apply(params["norm"], loop, h, train=True)
        expected.append(out)
    assert_close((y, kept["norm"]), (jnp.stack(expected, 1), loop))
