"""Combinators give what the same computation, written out, gives."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

from .kit import floats, values
from .registry import block

KEY = jax.random.key(0)
(X,) = values(floats(4, 3))


def assert_close(tree: Any, other: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), tree, other)


def assert_same(tree: Any, other: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def assert_nearly_same(tree: Any, other: Any) -> None:
    """To the last digit, which a compiler rounds as it likes."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), tree, other)


def member(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def stack(trees: list) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def test_serial_applies_layers_in_turn():
    net = nets.serial(nets.linear(5), jnp.tanh, nets.linear(2))
    params = net.init(KEY, X)
    first, last = nets.linear(5), nets.linear(2)
    assert_close(net.apply(params, X), last.apply(params["linear_1"], jnp.tanh(first.apply(params["linear"], X))))


def test_serial_names_children_after_their_layers_and_by_keyword():
    net = nets.serial(nets.conv(2, 3), jax.nn.relu, nets.conv(2, 3), nets.conv(2, 3), nets.mlp(3), head=nets.linear(2))
    params = net.init(KEY, jnp.ones((4, 4, 1)))
    assert list(params) == ["conv", "conv_1", "conv_2", "mlp", "head"]
    net = nets.serial(jax.nn.relu, jnp.tanh, jax.nn.relu, lambda x: x, nets.flatten(1), last=jnp.tanh)
    paths = [row.path for row in nets.summary(net, X)]
    assert paths == ["relu", "tanh", "relu_1", "function", "flatten", "last", ""]


def test_serial_hands_all_inputs_to_the_first_layer():
    net = nets.serial(lambda x, y: x + 2 * y, nets.linear(2))
    assert_close(net.apply(net.init(KEY, X, X), X, X), nets.linear(2).apply(net.init(KEY, X, X)["linear"], 3 * X))


def test_a_name_gives_the_same_initial_values_wherever_it_stands():
    alone = nets.serial(head=nets.linear(3)).init(KEY, X)
    after = nets.serial(jnp.tanh, nets.linear(3), head=nets.linear(3)).init(KEY, X)
    beside = nets.parallel(tail=nets.linear(2), head=nets.linear(3)).init(KEY, X)
    assert_same(after["head"], alone["head"])
    assert_same(beside["head"], alone["head"])


def test_parallel_returns_a_tuple_or_a_dict():
    one, two = nets.linear(2), nets.linear(3)
    net = nets.parallel(one, two)
    params = net.init(KEY, X)
    assert set(params) == {"linear", "linear_1"}
    assert_close(net.apply(params, X), (one.apply(params["linear"], X), two.apply(params["linear_1"], X)))
    named = nets.parallel(mean=one, scale=two)
    params = named.init(KEY, X)
    assert_close(named.apply(params, X), {"mean": one.apply(params["mean"], X), "scale": two.apply(params["scale"], X)})


def test_residual_adds_the_input_or_the_shortcut():
    net = nets.residual(nets.linear(3), jnp.tanh)
    params = net.init(KEY, X)
    assert_close(net.apply(params, X), X + jnp.tanh(nets.linear(3).apply(params["linear"], X)))
    net = nets.residual(nets.linear(2), shortcut=nets.linear(2))
    params = net.init(KEY, X)
    one, two = (nets.linear(2).apply(params[name], X) for name in ("linear", "shortcut"))
    assert_close(net.apply(params, X), one + two)


def test_repeat_equals_a_list_of_blocks():
    @nets.define
    def listed(x, *, blocks=[block(3), block(3), block(3)]):
        for each in blocks:
            x = each(x)
        return x

    repeated = nets.serial(blocks=nets.repeat(block(3), 3))
    params, in_list = repeated.init(KEY, X), listed.init(KEY, X)
    assert_nearly_same([member(params["blocks"], index) for index in range(3)], in_list["blocks"])
    assert_close(repeated.apply(params, X), listed.apply(in_list, X))


def test_repeat_hands_each_block_its_own_state():
    body = nets.serial(nets.linear(3), nets.batch_norm(decay_rate=0.5))
    net = nets.repeat(body, 3)
    params, state = net.init(KEY, X)
    outputs, after = net.apply(params, state, X, train=True)
    x, states = X, []
    for index in range(3):
        x, moved = body.apply(member(params, index), member(state, index), x, train=True)
        states.append(moved)
    assert_close(outputs, x)
    assert_close(after, stack(states))
    means = after["batch_norm"]["mean"]
    assert not np.allclose(means[0], means[1])
    assert_close(net.apply(params, after, X)[1], after)


def test_repeat_hands_each_block_its_own_key():
    @nets.define
    def note_mask(x, *, drop=nets.dropout(0.5)):
        count, notes = x
        return count + 1, notes.at[count].set(drop(jnp.ones(64)))

    net = nets.repeat(note_mask, 3)
    _, notes = net.apply({}, (jnp.array(0), jnp.zeros((3, 64))), key=KEY, train=True)
    assert len({tuple(row) for row in notes.tolist()}) == 3
    assert set(np.unique(notes).tolist()) == {0.0, 2.0}


def test_repeat_hands_further_inputs_to_every_block():
    @nets.define
    def shift(x, by, *, gain=nets.linear(3)):
        return gain(x) + by

    net = nets.repeat(shift, 2)
    params = net.init(KEY, X, jnp.ones(3))
    once = shift.apply(member(params, 0), X, jnp.ones(3))
    assert_close(net.apply(params, X, jnp.ones(3)), shift.apply(member(params, 1), once, jnp.ones(3)))


@pytest.mark.parametrize("combine", [nets.repeat, nets.ensemble])
def test_the_program_of_a_stack_does_not_grow_with_its_size(combine: Callable[[nets.Net, int], nets.Net]):
    def size(num: int) -> tuple[int, int]:
        net = combine(block(3, rate=0.5), num)
        params = jax.eval_shape(net.init, KEY, X)
        apply = jax.make_jaxpr(lambda params, x, key: net.apply(params, x, key=key, train=True))(params, X, KEY)
        init = jax.make_jaxpr(net.init)(KEY, X)
        return str(apply).count("\n"), str(init).count("\n")

    assert size(2) == size(50)


def test_members_of_an_ensemble_equal_solo_networks():
    @nets.define
    def listed(x, *, members=[nets.mlp(4, 2), nets.mlp(4, 2), nets.mlp(4, 2)]):
        return jnp.stack([each(x) for each in members])

    together = nets.serial(members=nets.ensemble(nets.mlp(4, 2), 3))
    params, in_list = together.init(KEY, X), listed.init(KEY, X)
    assert_nearly_same([member(params["members"], index) for index in range(3)], in_list["members"])
    assert_close(together.apply(params, X), listed.apply(in_list, X))


def test_members_of_an_ensemble_see_inputs_of_their_own():
    net = nets.ensemble(nets.linear(2), 3, in_axes=1)
    (xs,) = values(floats(4, 3, 5))
    params = net.init(KEY, xs)
    assert params["w"].shape == (3, 5, 2)
    solo = [nets.linear(2).apply(member(params, index), xs[:, index]) for index in range(3)]
    assert_close(net.apply(params, xs), jnp.stack(solo))


def test_members_of_an_ensemble_keep_their_own_state_and_draw_their_own_masks():
    body = nets.serial(nets.linear(3), nets.batch_norm(decay_rate=0.5))
    net = nets.ensemble(body, 2)
    params, state = net.init(KEY, X)
    outputs, after = net.apply(params, state, X, train=True)
    solo = [body.apply(member(params, index), member(state, index), X, train=True) for index in range(2)]
    assert_close((outputs, after), stack(solo))
    masks = nets.ensemble(nets.dropout(0.5), 4).apply({}, jnp.ones(64), key=KEY, train=True)
    assert len({tuple(row) for row in masks.tolist()}) == 4


def test_state_goes_through_every_combinator_by_its_path():
    norm = nets.batch_norm(decay_rate=0.0, scale=False, offset=False)
    net = nets.serial(
        nets.residual(norm, nets.dropout(0.1)),
        nets.parallel(a=nets.linear(2), b=norm),
        lambda parts: parts["b"],
        nets.repeat(nets.residual(norm), 2),
        last=nets.ensemble(norm, 3),
    )
    params, state = net.init(KEY, X)
    assert set(params) == {"parallel"}
    shapes = jax.tree.map(jnp.shape, state)
    one, two, three = ({"mean": (*lead, 3), "var": (*lead, 3)} for lead in ((), (2,), (3,)))
    assert shapes == {
        "residual": {"batch_norm": one},
        "parallel": {"b": one},
        "repeat": {"batch_norm": two},
        "last": three,
    }
    _, after = net.apply(params, state, X, key=KEY, train=True)
    # With decay_rate 0 the running mean is that of the batch.
    assert_close(after["residual"]["batch_norm"]["mean"], X.mean(0))
    assert jax.tree.map(jnp.shape, after) == shapes
    _, kept = net.apply(params, after, X)
    assert_same(kept, after)


def test_a_training_loop_of_a_stateful_network_is_a_scan():
    net = nets.serial(nets.linear(3), nets.repeat(nets.batch_norm(decay_rate=0.5), 2))
    params, state = net.init(KEY, X)

    def step(state: dict, x: jax.Array) -> tuple[dict, None]:
        return net.apply(params, state, x, train=True)[1], None

    after, _ = jax.lax.scan(step, state, jnp.stack([X, X]))
    expected = net.apply(params, net.apply(params, state, X, train=True)[1], X, train=True)[1]
    assert_close(after, expected)


def test_members_of_an_ensemble_take_keyword_inputs_of_their_own_by_name():
    @nets.define
    def masked(x: jax.Array, *, into=nets.linear(3), mask, shift):
        return jnp.where(mask, into(x), 0) + shift

    x, masks, shift = values(floats(2, 4))[0], np.array([True, False]), np.float32(2)
    net = nets.ensemble(masked, 2, per_member="mask")
    params = net.init(KEY, x, mask=masks, shift=shift)
    y = net.apply(params, x, mask=masks, shift=shift)
    for index, member in enumerate(nets.unstack(params)):
        np.testing.assert_allclose(y[index], masked.apply(member, x, mask=masks[index], shift=shift), rtol=1e-6)
    with pytest.raises(nets.ShapeError, match="expected mask with a leading axis of 2, one part for each member"):
        net.init(KEY, x, mask=np.ones(3, bool), shift=shift)
