"""Per-example gradients, norms and clipped sums against a loop of `jax.grad`."""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from renga import nets, optim, training

from ..optim.trees import assert_close, types

KEY = jax.random.key(7)
NUM = 5
MLP = nets.mlp(6, 5, 3, activation=jnp.tanh)


def mean_of(net: Any, *, keyed: bool = False) -> Callable[..., jax.Array]:
    """A loss of a network's outputs."""

    def loss(params: Any, batch: Any, key: jax.Array | None) -> jax.Array:
        options: Any = {"key": key, "train": True} if keyed else {}
        return jnp.mean(jnp.sin(3 * net.apply(params, batch["x"], **options) + 1))

    return loss


def images(size: int, channels: int) -> jax.Array:
    return jax.random.normal(KEY, (NUM, size, size, channels))


def vectors(*shape: int) -> jax.Array:
    return jax.random.normal(KEY, (NUM, *shape))


def ids(num: int) -> jax.Array:
    return jax.random.randint(KEY, (NUM, 6), 0, num)


def flat(x: jax.Array) -> jax.Array:
    return x.reshape(*x.shape[:-3], -1)


@nets.define
def tied(ids, *, tokens=nets.embed(30, 8), hidden=nets.linear(8)):
    h = jnp.tanh(hidden(tokens(ids)))
    return nets.attend(tokens.params, h)


NETS: dict[str, tuple[Any, jax.Array]] = {
    "mlp": (MLP, vectors(4)),
    "one unit": (nets.linear(1, bias=False), vectors(4)),
    "positions": (nets.mlp(9, 9), vectors(3, 20)),
    "many positions": (nets.mlp(4, 2), vectors(12, 3)),
    "convolution": (nets.serial(nets.conv(4, 3, stride=2), jax.nn.relu, flat, nets.linear(3)), images(7, 3)),
    "dilated": (nets.conv(4, 3, padding="valid", dilation=2), images(8, 2)),
    "groups": (nets.conv(8, (3, 2), stride=(2, 1), groups=2), images(6, 4)),
    "few positions": (nets.conv(32, 3, stride=2), images(4, 16)),
    "few positions, groups": (nets.conv(64, 3, padding="valid", groups=2), images(4, 32)),
    "padded": (nets.conv(4, 3, padding=((1, 2), (0, 1))), images(5, 2)),
    "circular": (nets.conv(4, 3, padding="circular"), images(5, 2)),
    "one axis": (nets.conv(4, (3,), padding="causal"), vectors(9, 2)),
    "three axes": (nets.conv(4, (2, 2, 2)), vectors(3, 4, 3, 2)),
    "depthwise": (nets.separable_conv(4, 3, multiplier=2), images(5, 3)),
    "transposed": (nets.conv_transpose(4, 3, stride=2), images(4, 2)),
    "pools": (nets.serial(nets.conv(4, 3), nets.max_pool(2), nets.conv(4, 3), nets.avg_pool(2)), images(8, 2)),
    "norms": (nets.serial(nets.conv(4, 3), nets.group_norm(2), nets.layer_norm(), nets.rms_norm()), images(4, 2)),
    "embedding": (nets.serial(nets.embed(30, 8), nets.linear(4)), ids(30)),
    "small embedding": (nets.serial(nets.embed(3, 8), nets.linear(4)), ids(3)),
    "ids out of range": (nets.serial(nets.embed(30, 8), jnp.nan_to_num, nets.linear(4)), ids(60) - 15),
    "tied": (tied, ids(30)),
    "transformer": (nets.serial(nets.embed(30, 8), nets.transformer_block(2, causal=True), nets.linear(3)), ids(30)),
    "lstm": (nets.serial(nets.rnn(nets.lstm_cell(4)), nets.linear(3)), vectors(6, 3)),
    "gru": (nets.rnn(nets.gru_cell(4)), vectors(6, 3)),
    "remat": (nets.serial(nets.remat(nets.linear(5)), jnp.tanh, nets.linear(3)), vectors(4)),
    "repeat": (nets.serial(nets.linear(4), nets.repeat(nets.serial(nets.linear(4), jnp.tanh), 3)), vectors(4)),
    "weight norm": (nets.weight_norm(nets.linear(3)), vectors(4)),
}


def shared(params: Any, batch: Any, key: None) -> jax.Array:
    h = jnp.tanh(batch["x"] @ params["w"])
    return jnp.mean((h @ params["w"].T + params["b"][0] * h.sum()) ** 2)


def penalised(params: Any, batch: Any, key: None) -> jax.Array:
    return jnp.mean((batch["x"] @ params["w"]) ** 2) + jnp.sum(params["w"] ** 2) + jnp.exp(params["b"]).sum()


def bilinear(params: Any, batch: Any, key: None) -> jax.Array:
    return jnp.sum(jnp.sin(nets.bilinear(3).apply(params, batch["x"], jnp.cos(batch["x"]))))


def heads(params: Any, batch: Any, key: None) -> jax.Array:
    return jnp.sum(jnp.sin(jnp.einsum("bthi,hio->btho", batch["x"], params["w"])))


def heads_first(params: Any, batch: Any, key: None) -> jax.Array:
    return jnp.sum(jnp.sin(jnp.einsum("hoi,bthi->bhto", params["w"], batch["x"])))


def scanned(params: Any, batch: Any, key: None) -> jax.Array:
    return jnp.sum(lax.scan(lambda h, x: (jnp.tanh(h @ params["w"] + x), h), batch["x"][0, 0], batch["x"][0])[0])


def branching(params: Any, batch: Any, key: None) -> jax.Array:
    w = params["w"]
    return jnp.sum(lax.cond(batch["x"][0, 0] > 0, lambda x: x @ w, lambda x: jnp.sin(x) @ w * params["b"], batch["x"]))


def many_kinds(params: Any, batch: Any, key: None) -> jax.Array:
    """Equations of all sorts, operands in odd places, values that are compared with and chosen by."""
    w, b, x = params["w"], params["b"], batch["x"]
    joined = jnp.concatenate([jnp.broadcast_to(b, (1, 4)), jnp.maximum(x, b), b / (2 + x**2), 1 / (b**2 + x**2)])
    chosen = jnp.where(x > b, w[0], b * x)
    rows = jnp.take(w, jnp.argsort(x[0]), axis=0) + lax.dynamic_slice_in_dim(w, (x[0, 0] > 0).astype(int), 2)[:1]
    return jnp.sum(jnp.sin(joined)) + jnp.mean(jax.jit(jnp.cos)(chosen)) + jnp.sum(rows**2) + params["alone"] ** 2


def double(params: Any, batch: Any, key: None) -> jax.Array:
    """An array added to itself beside the example, and one that nothing uses."""
    return jnp.mean(lax.select(jnp.broadcast_to(batch["x"][0] > 0, (4,)), params["b"], params["b"])) * jnp.sum(
        lax.stop_gradient(params["w"])
    )


def in_half(params: Any, batch: Any, key: None) -> jax.Array:
    w, x = params["w"].astype(jnp.complex64), batch["x"]
    return jnp.sum(jnp.abs(jnp.fft.fft(x).astype(jnp.complex64) @ w + params["b"]) ** 2).astype(x.dtype)


SQUARE = {"w": jax.random.normal(KEY, (4, 4)), "b": jnp.linspace(-1, 1, 4)}
LOSSES: dict[str, tuple[Any, Any, jax.Array]] = {
    "shared weights": (shared, SQUARE, vectors(4)),
    "a penalty on the weights": (penalised, SQUARE, vectors(4)),
    "bilinear": (bilinear, {"w": jax.random.normal(KEY, (4, 4, 3)), "b": jnp.ones(3)}, vectors(4)),
    "heads": (heads, {"w": jax.random.normal(KEY, (3, 20, 30))}, vectors(7, 3, 20)),
    "heads first": (heads_first, {"w": jax.random.normal(KEY, (3, 30, 20))}, vectors(7, 3, 20)),
    "scan": (scanned, SQUARE, vectors(6, 4)),
    "cond": (branching, SQUARE, vectors(4)),
    "checkpoint": (jax.checkpoint(shared), SQUARE, vectors(4)),
    "jit": (jax.jit(shared), SQUARE, vectors(4)),
    "many kinds": (many_kinds, SQUARE | {"alone": jnp.array(2.0)}, vectors(4)),
    "chosen from itself": (double, SQUARE, vectors(4)),
    "complex": (in_half, SQUARE, vectors(4)),
    "a list": (lambda params, batch, key: shared(dict(zip("wb", params, strict=True)), batch, key),
               [SQUARE["w"], SQUARE["b"]], vectors(4)),
    "one array": (lambda w, batch, key: jnp.sum(jnp.tanh(batch["x"] @ w)), SQUARE["w"], vectors(4)),
}  # fmt: skip


def cases() -> dict[str, Callable[[], tuple[Any, Any, Any, Any]]]:
    """`(loss, params, batch, key)` by name."""

    def of_net(net: Any, x: jax.Array) -> Any:
        return mean_of(net), net.init(KEY, x), {"x": x}, None

    def dropped() -> Any:
        net = nets.serial(nets.linear(8), nets.dropout(0.5), nets.linear(3))
        return mean_of(net, keyed=True), net.init(KEY, vectors(4)), {"x": vectors(4)}, KEY

    found: dict[str, Any] = {name: functools.partial(of_net, *case) for name, case in NETS.items()}
    found |= {name: lambda case=case: (*case[:2], {"x": case[2]}, None) for name, case in LOSSES.items()}
    return found | {"dropout": dropped}


CASES = cases()


def loop(loss: Any, params: Any, batch: Any, key: Any) -> Any:
    """Gradients of one example after another."""
    num = jax.tree.leaves(batch)[0].shape[0]
    keys = [None] * num if key is None else jax.random.split(key, num)
    grad = jax.jit(jax.grad(loss))
    rows = [grad(params, jax.tree.map(lambda leaf: leaf[i : i + 1], batch), keys[i]) for i in range(num)]  # noqa: B023
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def norms_of(grads: Any) -> jax.Array:
    return jnp.sqrt(sum(jnp.sum(jnp.abs(g.reshape(g.shape[0], -1)) ** 2, 1) for g in jax.tree.leaves(grads)))


def clipped(grads: Any, bound: float, norms: jax.Array) -> Any:
    scale = jnp.where(norms > bound, bound / norms, 1)
    return jax.tree.map(lambda g: jnp.einsum("b,b...->...", scale, g), grads)


def doubled(tree: Any) -> Any:
    """A tree in float64."""
    return jax.tree.map(lambda a: a.astype(jnp.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)


def assert_near(tree: Any, other: Any, share: float) -> None:
    """Up to a share of each array's largest element."""
    assert types(tree) == types(other)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(other), strict=True):
        atol = share * float(jnp.max(jnp.abs(b), initial=0)) + 1e-12
        np.testing.assert_allclose(a, b, 0, atol, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("name", CASES)
def test_gradients_norms_and_clipped_sums_equal_those_of_a_loop(name):
    with jax.enable_x64(True):
        loss, params, batch, key = CASES[name]()
        params, batch = doubled(params), doubled(batch)
        expected = loop(loss, params, batch, key)
        norms = norms_of(expected)
        bound = float(jnp.median(norms))

        @jax.jit
        def found(params: Any, batch: Any) -> Any:
            return (
                training.per_example(loss)(params, batch, key),
                training.clipped_sum(loss, bound)(params, batch, key),
            )

        grads, sums = found(params, batch)
        # Networks take some sums in float32 whatever they are given.
        assert_near(grads, expected, 1e-6)
        np.testing.assert_allclose(sums.norms, norms, 1e-6)
        assert_near(sums.grads, clipped(expected, bound, norms), 1e-6)


@pytest.mark.parametrize("name", ["mlp", "convolution", "few positions", "transformer"])
def test_in_float32_they_are_as_near(name):
    loss, params, batch, key = CASES[name]()
    expected = loop(loss, params, batch, key)
    assert_near(jax.jit(training.per_example(loss))(params, batch, key), expected, 1e-6)
    np.testing.assert_allclose(jax.jit(training.per_example_norms(loss))(params, batch, key), norms_of(expected), 1e-6)


def test_inputs_in_bfloat16_give_gradients_like_the_parameters():
    params, batch = MLP.init(KEY, vectors(4)), {"x": vectors(4).astype(jnp.bfloat16)}
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    for given in (params, half):
        expected = loop(mean_of(MLP), given, batch, None)
        assert_near_half = functools.partial(assert_close, rtol=0.05, atol=0.02)
        assert_near_half(training.per_example(mean_of(MLP))(given, batch), expected)
        norms = training.per_example_norms(mean_of(MLP))(given, batch)
        assert norms.dtype == jnp.float32
        np.testing.assert_allclose(norms, norms_of(jax.tree.map(lambda g: g.astype(jnp.float32), expected)), 0.05)


def test_norms_and_clipping_of_each_parameter():
    loss, params, batch, _ = CASES["convolution"]()
    expected = loop(loss, params, batch, None)
    norms = jax.tree.map(lambda g: norms_of([g]), expected)
    assert_close(training.per_example_norms(loss, per_leaf=True)(params, batch), norms)
    found = jax.jit(training.clipped_sum(loss, 0.2, per_leaf=True))(params, batch)
    each = 0.2 / np.sqrt(len(jax.tree.leaves(params)))
    assert_close(found.norms, norms)
    assert_close(found.grads, jax.tree.map(lambda g, norm: clipped(g, each, norm), expected, norms))


@pytest.mark.parametrize("size", [1, 3, 8])
def test_chunks_change_nothing(size):
    loss, params, batch, key = CASES["dropout"]()
    bound = 0.3
    whole = training.clipped_sum(loss, bound)(params, batch, key)
    assert_close(jax.jit(training.clipped_sum(loss, bound, examples_at_once=size))(params, batch, key), whole)
    norms = training.per_example_norms(loss, examples_at_once=size)(params, batch, key)
    assert_close(norms, whole.norms)


def test_masked_examples_count_for_nothing_whatever_they_hold():
    loss, params, batch, _ = CASES["mlp"]()
    mask = jnp.array([True, False, True, True, False])
    spoilt = {"x": jnp.where(mask[:, None], batch["x"], jnp.nan)}
    found = jax.jit(training.clipped_sum(loss, 0.3))(params, spoilt, None, mask)
    expected = training.clipped_sum(loss, 0.3)(params, {"x": batch["x"][mask]})
    assert_close(found.grads, expected.grads)
    assert_close((found.norms[mask], found.losses[mask]), expected[1:])
    assert found.norms[~mask].tolist() == found.losses[~mask].tolist() == [0, 0]


def test_under_an_empty_mask_the_sum_is_zero():
    loss, params, batch, _ = CASES["mlp"]()
    found = training.clipped_sum(loss, 0.3)(params, batch, None, jnp.zeros(NUM, bool))
    assert all(not jnp.any(leaf) for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("name", ["mlp", "convolution", "few positions", "embedding", "lstm"])
def test_an_example_whose_gradient_is_not_finite_is_left_out(name):
    loss, params, batch, _ = CASES[name]()

    def spoilt(params: Any, batch: Any, key: Any) -> jax.Array:
        return loss(params, {"x": batch["x"]}, key) * batch["times"][0]

    batch |= {"times": jnp.array([1, jnp.nan, 1, jnp.inf, 1])}
    kept = jax.tree.map(lambda leaf: leaf[::2], batch)
    found = training.clipped_sum(spoilt, 0.3)(params, batch)
    assert_close(found.grads, training.clipped_sum(spoilt, 0.3)(params, kept).grads)


def test_a_batch_without_examples_has_no_gradients_and_a_sum_of_zero():
    net = NETS["convolution"][0]
    params, batch = net.init(KEY, images(7, 3)), {"x": images(7, 3)[:0]}
    grads = training.per_example(mean_of(net))(params, batch)
    assert all(leaf.shape[0] == 0 for leaf in jax.tree.leaves(grads))
    found = training.clipped_sum(mean_of(net), 0.3)(params, batch)
    assert found.norms.shape == found.losses.shape == (0,)
    assert types(found.grads) == types(params)
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(found.grads))


def test_gradients_of_norm_zero_stay_zero():
    found = training.clipped_sum(lambda w, batch, key: jnp.mean(batch @ w * 0), 1.0)(jnp.ones(3), jnp.ones((4, 3)))
    assert found.grads.tolist() == [0, 0, 0]
    assert found.norms.tolist() == [0, 0, 0, 0]


def test_sums_of_batches_in_a_scan_are_the_sum_of_all():
    loss, params, batch, _ = CASES["convolution"]()
    sums = training.clipped_sum(loss, 0.2)
    parts = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf, leaf[::-1]]), batch)

    def more(total: Any, part: Any) -> Any:
        return jax.tree.map(jnp.add, total, sums(params, part).grads), None

    total, _ = lax.scan(more, jax.tree.map(jnp.zeros_like, params), parts)
    everything = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), parts)
    assert_close(total, sums(params, everything).grads)


def test_they_go_under_vmap_grad_and_tracers_that_the_loss_closes_over():
    loss, params, batch, _ = CASES["mlp"]()
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    grads = jax.vmap(training.per_example(loss), in_axes=(0, None))(several, batch)
    second = jax.tree.map(lambda leaf: leaf[1], several)
    assert_close(jax.tree.map(lambda leaf: leaf[1], grads), loop(loss, second, batch, None))

    def total(shift: jax.Array) -> jax.Array:
        def shifted(params: Any, batch: Any, key: Any) -> jax.Array:
            return loss(params, {"x": batch["x"] + shift}, key)

        return jnp.sum(training.per_example_norms(shifted)(params, batch) ** 2)

    with jax.enable_x64(True):
        params, batch = doubled(params), doubled(batch)
        step, at = 1e-5, jnp.array(0.3, jnp.float64)
        slope = (total(at + step) - total(at - step)) / (2 * step)
        np.testing.assert_allclose(jax.jit(jax.grad(total))(at), slope, 1e-7)


def test_it_says_which_parameter_goes_by_which_way():
    net = nets.serial(nets.conv(4, 3), flat, nets.linear(8), nets.repeat(nets.linear(8), 2))
    batch = {"x": images(6, 2)}
    params = {"net": net.init(KEY, batch["x"]), "not used": jnp.ones(2)}
    ways = training.per_example_ways(lambda params, *rest: mean_of(net)(params["net"], *rest), params, batch)
    assert ways == {
        "net/conv/b": "add",
        "net/conv/w": "conv_general_dilated",
        "net/linear/b": "add",
        "net/linear/w": "dot_general: norms alone",
        "net/repeat/b": "vmap: inside scan",
        "net/repeat/w": "vmap: inside scan",
        "not used": "unused",
    }
    assert training.per_example_ways(shared, SQUARE, {"x": vectors(4)})["w"] == "dot_general"
    loss, params, batch, key = CASES["dropout"]()
    assert set(training.per_example_ways(loss, params, batch, key).values()) == {"add", "dot_general: norms alone"}


def test_the_norms_of_a_wide_layer_take_no_gradients():
    net = nets.linear(512, bias=False)
    x = jnp.ones((32, 256))
    params = net.init(KEY, x)
    for transform in (training.per_example_norms(mean_of(net)), training.clipped_sum(mean_of(net), 1.0)):
        used = jax.jit(transform).lower(params, {"x": x}).compile().memory_analysis()
        assert used is not None
        assert used.temp_size_in_bytes < 4 * 32 * 256 * 512 / 8


def test_transforms_of_losses_compare_hash_and_print_as_their_call():
    assert training.clipped_sum(shared, 1.0) == training.clipped_sum(shared, 1.0)
    assert hash(training.per_example(shared)) == hash(training.per_example(shared))
    assert repr(training.per_example_norms(shared, per_leaf=True)) == "per_example_norms(shared, per_leaf=True)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: training.clipped_sum(shared, 0.0), "clipped_sum: expected max_norm to be a number above 0, got 0.0"),
        (lambda: training.clipped_sum(shared, -1.0), "clipped_sum: expected max_norm to be a number above 0, got -1.0"),
        (
            lambda: training.clipped_sum(shared, 1.0, examples_at_once=0),
            "clipped_sum: expected examples_at_once to be an integer of at least 1, got 0",
        ),
        (
            lambda: training.per_example_norms(shared, examples_at_once=0),
            "per_example_norms: expected examples_at_once to be an integer of at least 1, got 0",
        ),
        (
            lambda: training.per_example(shared)(SQUARE, {"x": jnp.ones((3, 4)), "y": jnp.ones((2, 4))}),
            "per_example: expected arrays [examples, ...] with as many examples each, "
            "got {\"['x']\": (3,), \"['y']\": (2,)}",
        ),
        (
            lambda: training.clipped_sum(shared, 1.0)(SQUARE, {"x": vectors(4)}, None, jnp.ones(5)),
            "clipped_sum: expected a mask of 5 booleans, got float32[5]",
        ),
    ],
)
def test_values_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


@pytest.mark.parametrize(
    ("loss", "params", "message"),
    [
        (
            lambda params, batch, key: batch["x"][:, 0] * params["b"][0],
            SQUARE,
            "per_example: expected loss_fn to return a scalar of floats, got float32[1]. Take its mean.",
        ),
        (
            lambda params, batch, key: (jnp.zeros(()), {}),
            SQUARE,
            "per_example: expected loss_fn to return a scalar, got PyTreeDef((*, {})). Return the loss alone.",
        ),
        (
            shared,
            {"w": jnp.ones((4, 4), int), "b": jnp.ones(4)},
            "per_example: expected params of floats, got int32 at 'w'. Close over what is not trained.",
        ),
    ],
)
def test_losses_and_parameters_of_a_wrong_kind_are_refused(loss, params, message):
    with pytest.raises(TypeError, match=f"^{re.escape(message)}"):  # JAX adds a line on its traceback
        training.per_example(loss)(params, {"x": vectors(4)})


def test_a_step_takes_a_clipped_sum_as_its_gradient():
    loss, params, batch, _ = CASES["mlp"]()
    sums = training.clipped_sum(loss, 0.3)

    def value_and_grad(params: Any, batch: Any, key: Any) -> Any:
        found = sums(params, batch, key)
        return found.losses.mean(), found.grads

    step = jax.jit(training.step(training.with_gradient(value_and_grad), optim.sgd(1.0)))
    after, metrics = step(training.init(params, optim.sgd(1.0)), batch)
    expected = jax.tree.map(jnp.subtract, params, sums(params, batch).grads)
    assert_close(after.params, expected)
    assert_close(metrics["loss"], loss(params, batch, None))
