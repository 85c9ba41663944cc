"""Cells over sequences: each sequence of a batch is as if it were alone, whatever its length, resets and padding."""

import functools
import pickle
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from renga import nets
from renga.nets import _lstm

from .families.recurrent import leaky_cell, skipping, stacked
from .kit import KEY, floats, values

TIME, SIZE = 4, 3
BATCHES = {"no axis": (), "one axis": (3,), "two axes": (2, 2)}
CELLS: dict[str, tuple[nets.Cell, str, bool]] = {  # cell, batch axes, whether in reverse
    "simple": (nets.simple_cell(3), "one axis", True),
    "lstm": (nets.lstm_cell(3), "one axis", False),
    "reverse lstm": (nets.lstm_cell(3), "two axes", True),
    "lstm of one sequence": (nets.lstm_cell(2), "no axis", True),
    "gru": (nets.gru_cell(3), "two axes", False),
    "reverse gru": (nets.gru_cell(3), "one axis", True),
    "gru, reset before": (nets.gru_cell(3, reset="before"), "one axis", False),
    "reverse gru, reset before": (nets.gru_cell(3, reset="before"), "no axis", True),
    "mgu": (nets.mgu_cell(3), "one axis", False),
    "lru": (nets.lru_cell(3, state_size=2), "one axis", False),
    "reverse lru": (nets.lru_cell(3, state_size=2), "two axes", True),
    "min_gru": (nets.min_gru_cell(3), "one axis", True),
    "stack": (stacked, "one axis", True),
    "stack with skips": (skipping, "one axis", False),
    "cell of one's own": (leaky_cell(0.7), "one axis", False),
}


def normal(seed: int, shapes: Any) -> Any:
    """Normal numbers, complex ones where the shapes say so."""
    leaves, structure = jax.tree.flatten(shapes)
    random = np.random.default_rng(seed)
    return jax.tree.unflatten(structure, [random.normal(size=leaf.shape).astype(leaf.dtype) for leaf in leaves])


@functools.cache
def batched(name: str) -> Any:
    """`(params, x, carry, lengths, reset, cotangents) -> (outputs, gradients)` of a network of a batch."""
    cell, _, reverse = CELLS[name]
    net = nets.rnn(cell, reverse=reverse, return_carry=True)

    @jax.jit
    def run(params: Any, x: Any, carry: Any, lengths: Any, reset: Any, cotangents: Any) -> Any:
        apply = functools.partial(net.apply, lengths=lengths, reset=reset)
        outputs, pull = jax.vjp(lambda params, x, carry: apply(params, x, carry=carry), params, x, carry)
        return outputs, pull(cotangents)

    return run


@functools.cache
def alone(name: str, length: int) -> Any:
    """The same of one sequence of a length without padding, in a Python loop over `cell.step`."""
    cell, _, reverse = CELLS[name]

    def loop(params: Any, x: jax.Array, carry: Any, reset: jax.Array) -> tuple[Any, Any]:
        ys: list = [None] * length
        for t in range(length)[:: -1 if reverse else 1]:
            initial = cell.initial_carry(params, x[t])
            carry = jax.tree.map(lambda a, b, t=t: jnp.where(reset[t], a, b), initial, carry)
            carry, ys[t] = cell.step(params, carry, x[t])
        return ys, carry

    @jax.jit
    def run(params: Any, x: Any, carry: Any, reset: Any, cotangents: Any) -> Any:
        outputs, pull = jax.vjp(lambda params, x, carry: loop(params, x, carry, reset), params, x, carry)
        return outputs, pull((list(cotangents[0]), cotangents[1]))

    return run


@pytest.mark.parametrize("name", CELLS)
@settings(max_examples=10, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_a_sequence_in_a_padded_batch_gives_and_gets_what_it_does_alone(name: str, data: Any):
    cell, axes, _ = CELLS[name]
    batch = BATCHES[axes]
    count = int(np.prod(batch, dtype=int))
    lengths = np.array(data.draw(st.lists(st.integers(0, TIME), min_size=count, max_size=count)), np.int32)
    reset = np.array(data.draw(st.lists(st.booleans(), min_size=count * TIME, max_size=count * TIME)), bool)
    seed = data.draw(st.integers(0, 1000))
    lengths, reset = lengths.reshape(batch), reset.reshape(*batch, TIME)

    (x,) = normal(seed, floats(*batch, TIME, SIZE))
    params = normal(seed + 1, jax.eval_shape(cell.init, KEY, x[..., 0, :]))
    begin = jax.eval_shape(cell.initial_carry, params, x[..., 0, :])
    carry = normal(seed + 2, begin)
    y = jax.eval_shape(cell.step, params, begin, x[..., 0, :])[1]
    pull = normal(seed + 3, (jax.ShapeDtypeStruct((*batch, TIME, *y.shape[len(batch) :]), y.dtype), begin))
    padded = np.where(np.arange(TIME)[:, None] < lengths[..., None, None], x, np.nan)
    (ys, last), (dparams, dx, dcarry) = batched(name)(params, padded, carry, lengths, reset, pull)

    total = jax.tree.map(np.zeros_like, params)
    for index in np.ndindex(batch):
        at = functools.partial(jax.tree.map, lambda leaf, index=index: leaf[index])
        length = int(lengths[index])
        found = alone(name, length)(
            params, x[index][:length], at(carry), reset[index], (pull[0][index][:length], at(pull[1]))
        )
        (its_ys, its_last), (its_dparams, its_dx, its_dcarry) = found
        assert_close(ys[index][:length], np.stack(its_ys) if length else np.zeros_like(ys[index][:0]))
        assert_close(dx[index][:length], its_dx)
        assert_close(at(last), its_last)
        assert_close(at(dcarry), its_dcarry)
        assert not np.any(ys[index][length:])
        assert not np.any(dx[index][length:])
        total = jax.tree.map(np.add, total, its_dparams)
    assert_close(dparams, total)


def assert_close(tree: Any, other: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), tree, other)


def made(cell: nets.Cell, **options: Any) -> tuple[nets.Net, Any, jax.Array]:
    net, (x,) = nets.rnn(cell, **options), values(floats(2, 5, SIZE))
    return net, net.init(KEY, x), x


@pytest.mark.parametrize("name", CELLS)
def test_step_by_step_with_the_same_params_gives_the_whole_sequence(name: str):
    cell = CELLS[name][0]
    net, params, x = made(cell, return_carry=True)
    ys, last = jax.jit(net.apply)(params, x)
    step, carry = jax.jit(cell.step), cell.initial_carry(params, x[:, 0])
    for t in range(x.shape[1]):
        carry, y = step(params, carry, x[:, t])
        assert_close(y, ys[:, t])
    assert_close(carry, last)
    assert jax.tree.map(jnp.shape, cell.init(KEY, x[:, 0])) == jax.tree.map(jnp.shape, params)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_sequence_of_length_zero_returns_the_carry_it_was_given_and_the_initial_one_if_none(reverse: bool):
    net, params, x = made(nets.lstm_cell(3), reverse=reverse, return_carry=True)
    carry = values(floats(2, 3) + floats(2, 3))
    for begin, expected in ((carry, carry), (None, (jnp.zeros((2, 3)),) * 2)):
        ys, last = jax.jit(net.apply)(params, x, lengths=jnp.array([0, 5]), carry=begin)
        assert not ys[0].any()
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[0]), last, tuple(expected))


def test_a_chunk_goes_on_where_the_one_before_it_ended():
    net, params, x = made(stacked, return_carry=True)
    apply = jax.jit(net.apply)
    whole, last = apply(params, x)
    first, carry = apply(params, x[:, :2])
    second, carry = apply(params, x[:, 2:], carry=carry)
    assert_close(jnp.concatenate((first, second), 1), whole)
    assert_close(carry, last)


def test_frozen_parameters_cost_no_gradient():
    net, params, x = made(nets.lstm_cell(16))

    def flops(*names: str) -> float:
        """Of the gradient with respect to some parameters; XLA counts a loop once."""
        fixed = {name: leaf for name, leaf in params.items() if name not in names}
        grad = jax.grad(lambda some: jnp.sum(net.apply(fixed | some, x) ** 2))
        analysis = jax.jit(grad).lower({name: params[name] for name in names}).compile().cost_analysis()
        assert analysis is not None
        return analysis["flops"]

    # One matmul over all steps for each of the two matrices.
    rows = x.shape[0] * x.shape[1]
    assert flops("w", "u", "b") - flops("u", "b") > 0.9 * 2 * rows * SIZE * 64
    assert flops("w", "u", "b") - flops("w", "b") > 0.9 * 2 * rows * 16 * 64


def test_lengths_do_not_keep_the_history_of_carries():
    net, (x,) = nets.rnn(nets.lstm_cell(64), return_carry=True), floats(16, 100, 8)
    params, lengths = jax.eval_shape(net.init, KEY, x), jax.ShapeDtypeStruct((16,), jnp.int32)

    def temporary(**given: Any) -> int:
        apply = jax.jit(lambda params, x, given: net.apply(params, x, **given))
        analysis = apply.lower(params, x, given).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    history = 16 * 100 * 64 * 4
    assert temporary(lengths=lengths) < temporary() + history / 2


@pytest.mark.parametrize("reverse", [False, True])
def test_a_recurrent_network_runs_under_every_transform(reverse: bool):
    net, params, x = made(nets.gru_cell(3), reverse=reverse)
    lengths = jnp.array([5, 2])
    apply = lambda params, x, n: net.apply(params, x, lengths=n)  # noqa: E731
    grad = jax.grad(lambda *given: jnp.sum(apply(*given) ** 2), (0, 1))
    expected = jax.jit(grad)(params, x, lengths)

    by_example = jax.jit(jax.vmap(grad, (None, 0, 0)))(params, x, lengths)
    assert_close((jax.tree.map(lambda leaf: leaf.sum(0), by_example[0]), by_example[1]), expected)
    again = jax.jit(jax.grad(lambda *given: jnp.sum(jax.checkpoint(apply)(*given) ** 2), (0, 1)))
    assert_close(again(params, x, lengths), expected)
    scanned = jax.jit(
        lambda: jax.lax.scan(lambda _, at: (_, grad(params, *at)), 0, (x[:, None], lengths[:, None]))[1]
    )()
    assert_close((jax.tree.map(lambda leaf: leaf.sum(0), scanned[0]), scanned[1][:, 0]), expected)
    stacked_params = jax.tree.map(lambda leaf: jnp.stack((leaf, 2 * leaf)), params)
    many = jax.jit(jax.vmap(grad, (0, None, None)))(stacked_params, x, lengths)
    assert_close(jax.tree.map(lambda leaf: leaf[0], many), expected)


def test_bidirectional_is_one_cell_from_each_end():
    forward, backward = nets.gru_cell(3), nets.lstm_cell(2)
    net, (x,), lengths = nets.bidirectional(forward, backward, return_carry=True), values(floats(2, 5, SIZE)), [4, 0]
    params, lengths = net.init(KEY, x), jnp.array(lengths)
    ys, carries = net.apply(params, x, lengths=lengths)
    parts = [
        nets.rnn(forward, return_carry=True).apply(params["forward"], x, lengths=lengths),
        nets.rnn(backward, return_carry=True, reverse=True).apply(params["backward"], x, lengths=lengths),
    ]
    assert_close(ys, jnp.concatenate([y for y, _ in parts], -1))
    assert_close(carries, tuple(carry for _, carry in parts))
    again, _ = net.apply(params, x, lengths=lengths, carry=carries)
    assert bool((again[1] == 0).all())


def test_cells_are_the_calls_that_made_them():
    for cell, shown in [
        (nets.lstm_cell(8), "lstm_cell(8)"),
        (nets.gru_cell(8, reset="before"), "gru_cell(8, reset='before')"),
        (nets.stack_cells(nets.mgu_cell(2), nets.lru_cell(3), skips=True), None),
        (leaky_cell(0.5), "leaky_cell(0.5)"),
    ]:
        again = pickle.loads(pickle.dumps(cell))
        assert again == cell
        assert hash(again) == hash(cell)
        assert repr(cell) == (shown or "stack_cells(mgu_cell(2), lru_cell(3), skips=True)")
        assert again.step == cell.step
        assert hash(again.init) == hash(cell.init)
        assert cell.init != cell.step
        assert repr(pickle.loads(pickle.dumps(cell.step))) == f"{cell!r}.step"
    assert nets.lstm_cell(8) != nets.lstm_cell(9)
    with pytest.raises(AttributeError, match="a cell is a value"):
        nets.lstm_cell(8).name = "other"
    with pytest.raises(AttributeError, match="a cell is a value"):
        del nets.lstm_cell(8).name


@pytest.mark.parametrize("cell", [nets.lru_cell(4), nets.min_gru_cell(4)])
def test_linear_recurrences_are_associative_on_accelerators_and_sequential_on_cpu(cell: nets.Cell):
    net, params, x = made(cell)
    grad = jax.jit(jax.grad(lambda params: jnp.sum(net.apply(params, x) ** 2)))
    loops = {}
    for platform in ("cpu", "cuda", "tpu"):
        text = grad.trace(params).lower(lowering_platforms=(platform,)).as_text()
        loops[platform] = text.count("stablehlo.while")
    assert loops["cpu"] > 0
    assert loops["cuda"] == loops["tpu"] == 0


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_sequential_and_associative_scans_are_equal(reverse: bool, dtype: str):
    from renga.nets._linear_recurrence import associative, linear_scan, sequential

    a, b, h, da, db, dh = (normal(i, jax.ShapeDtypeStruct((7, 2, 3), dtype)) for i in range(6))
    given, along = (a, b, h[0]), (da, db, dh[0])
    one, other = (functools.partial(scan, reverse=reverse, unroll=1) for scan in (sequential, associative))
    expected = jax.jvp(other, given, along)
    assert_close(jax.jvp(one, given, along), expected)
    assert_close(jax.jvp(lambda *given: linear_scan(*given, reverse, 1), given, along), expected)
    if dtype == "float32":
        pulls = [jax.vjp(scan, *given)[1](db) for scan in (one, other, lambda *g: linear_scan(*g, reverse, 1))]
        assert_close(pulls[0], pulls[1])
        assert_close(pulls[2], pulls[1])


def test_lru_begins_on_its_ring_with_the_scale_of_the_source():
    cell = nets.lru_cell(4, state_size=4000, min_radius=0.6, max_radius=0.9)
    params = cell.init(KEY, *floats(3))
    radius = np.exp(-np.exp(params["nu"]))
    assert 0.6 <= radius.min() < 0.605
    assert 0.895 < radius.max() <= 0.9
    # Evenly over the ring's area, not its radius.
    np.testing.assert_allclose(np.mean(radius**2), (0.6**2 + 0.9**2) / 2, rtol=0.01)
    np.testing.assert_allclose(np.exp(params["gamma"]) ** 2, 1 - radius**2, rtol=1e-4)


def test_lstm_and_mgu_begin_with_an_open_forget_gate():
    (x,) = floats(3)
    np.testing.assert_array_equal(nets.lstm_cell(2).init(KEY, x)["b"], [0, 0, 1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(nets.mgu_cell(2, forget_bias=0.5).init(KEY, x)["b"], [0.5, 0.5, 0, 0])


def test_each_gate_of_u_is_orthogonal():
    u = nets.gru_cell(5).init(KEY, *floats(3))["u"]
    for gate in jnp.split(u, 3, axis=1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(5), atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", [nets.lru_cell(2), nets.min_gru_cell(2), nets.gru_cell(2)], ids=str)
def test_a_reset_forgets_a_carry_that_is_not_finite(cell: nets.Cell, reverse: bool):
    net, (x,) = nets.rnn(cell, reverse=reverse), values(floats(4, 3))
    params = net.init(KEY, x)
    reset, broken, after = (jnp.arange(4) == 2, 1, slice(2, 4)) if not reverse else (jnp.arange(4) == 1, 2, slice(2))
    y, pull = jax.vjp(lambda x: net.apply(params, x, reset=reset)[after], x.at[broken].set(jnp.nan))
    np.testing.assert_allclose(y, net.apply(params, x, reset=reset)[after], rtol=1e-5)
    assert np.isfinite(pull(y)[0][after]).all()


@pytest.mark.parametrize("cell", [nets.lru_cell(2), nets.min_gru_cell(2)], ids=str)
def test_a_carry_that_is_reset_before_it_is_used_reaches_no_derivative(cell: nets.Cell):
    net, (x,) = nets.rnn(cell), values(floats(4, 3))
    params = net.init(KEY, x)
    carry = cell.initial_carry(params, x[0]) + jnp.nan

    def loss(params: Any, x: jax.Array, **options: Any) -> jax.Array:
        return jnp.sum(net.apply(params, x, **options) ** 2)

    found = jax.grad(loss, (0, 1))(params, x, carry=carry, reset=jnp.arange(4) == 0)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, jax.grad(loss, (0, 1))(params, x)
    )


@pytest.mark.parametrize("reverse", [False, True])
def test_sequential_and_associative_scans_with_resets_are_equal(reverse: bool):
    from renga.nets._linear_recurrence import associative, linear_scan, sequential

    a, b, h = (normal(i, jax.ShapeDtypeStruct((7, 2, 3), "float32")) for i in range(3))
    reset = np.arange(14).reshape(7, 2) % 3 == 1
    a = np.where(reset[..., None], 0, a)
    b[2, 0] = np.nan
    results = []
    for scan in (sequential, associative, lambda *g, reverse, unroll: linear_scan(*g[:3], reverse, unroll, g[3])):
        hs, pull = jax.vjp(lambda a, b, h, scan=scan: scan(a, b, h, reset, reverse=reverse, unroll=1), a, b, h[0])
        results.append((hs, pull(np.ones_like(hs))[1:]))
    assert 0 < np.isnan(results[0][0]).sum() < 10
    assert_close(results[0], results[1])
    assert_close(results[2], results[1])


def test_lengths_that_are_traced_are_clamped():
    net, (x,) = nets.rnn(nets.min_gru_cell(3)), values(floats(2, 4, 3))
    params = net.init(KEY, x)
    y = jax.jit(lambda lengths: net.apply(params, x, lengths=lengths))(jnp.array([9, -1]))
    assert_close(y, net.apply(params, x, lengths=jnp.array([4, 0])))


def test_lru_begins_on_a_ring_close_to_zero():
    params = nets.lru_cell(1000, min_radius=0.0, max_radius=1e-4).init(KEY, *floats(3))
    radius = np.exp(-np.exp(params["nu"]))
    assert 4.9e-5 <= radius.min() < radius.max() <= 1.01e-4


def test_lru_needs_no_promotion_of_dtypes():
    net, (x,) = nets.rnn(nets.lru_cell(3)), values(floats(4, 2))
    with jax.numpy_dtype_promotion("strict"):
        assert net.apply(net.init(KEY, x), x).shape == (4, 3)


def test_an_lstm_of_large_weights_makes_two_products_a_step_and_gives_the_same(monkeypatch: pytest.MonkeyPatch):
    net, x = nets.rnn(nets.lstm_cell(5)), values(floats(3, 7, 4))[0]
    params = net.init(KEY, x)

    def of(params: Any, x: jax.Array) -> jax.Array:
        return jnp.sin(3 * net.apply(params, x)).sum()

    def all_of() -> Any:
        grad = jax.grad(of, (0, 1))
        return jax.jit(lambda *args: (of(*args), grad(*args), jax.jvp(grad, args, args)[1]))(params, x)

    def num_products() -> int:
        return str(jax.make_jaxpr(net.apply)(params, x)).count("dot_general")

    one_product, before = all_of(), num_products()
    monkeypatch.setattr(_lstm, "_SMALL", 0)
    jax.clear_caches()
    assert num_products() == before + 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), all_of(), one_product)
