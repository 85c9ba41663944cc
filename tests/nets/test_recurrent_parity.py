"""Recurrent networks equal Haiku's and Flax's for the same parameters, gradients too."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

from .kit import KEY, floats, values

Peer = Callable[..., Any]
IN, SIZE = 3, 4


def assert_parity(net: nets.Net, peer: Peer, x: jax.Array, **keywords: Any) -> None:
    """Outputs to 1e-5, and gradients with respect to our parameters and inputs to 1e-4."""
    shapes = jax.eval_shape(net.init, KEY, x)
    params = jax.tree.map(lambda leaf: 0.5 * leaf, values(shapes))

    def graded(apply: Peer) -> Any:
        def loss(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
            found = jax.tree.leaves(apply(params, x))
            terms = [jnp.sum(jnp.sin(3 * y) * (1 + jnp.arange(y.size).reshape(y.shape) % 3)) for y in found]
            return jnp.stack(terms).sum(), found

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)

    grads, found = graded(lambda params, x: net.apply(params, x, **keywords))
    their_grads, theirs = graded(peer)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, theirs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), grads, their_grads)


def haiku(core: Callable[[], Any], convert: Callable[[Any], dict]) -> Peer:
    """Haiku's `dynamic_unroll` of a core; `convert(params)` has the parts of `{"peer/...": ...}`."""

    def run(xs: jax.Array) -> tuple[Any, Any]:
        made = core()
        return hk.dynamic_unroll(made, xs, made.initial_state(xs.shape[1]))

    def peer(params: Any, x: jax.Array) -> Any:
        theirs = {f"peer{name and '/' + name}": part for name, part in convert(params).items()}
        ys, state = hk.transform(run).apply(theirs, None, jnp.moveaxis(x, 1, 0))
        return jnp.moveaxis(ys, 0, 1), state

    return peer


def flax(cell: nn.RNNCellBase, convert: Callable[[Any], dict], reverse: bool = False) -> Peer:
    """Flax's `RNN` of a cell, its outputs past the end set to zero as ours are."""

    def peer(params: Any, x: jax.Array, lengths: jax.Array | None = None) -> Any:
        rnn = nn.RNN(cell, reverse=reverse, keep_order=True, return_carry=True)
        found: Any = rnn.apply({"params": {"cell": convert(params)}}, x, seq_lengths=lengths)
        carry, ys = found
        if lengths is not None:
            ys = jnp.where(jnp.arange(x.shape[1])[:, None] < lengths[:, None, None], ys, 0)
        return ys, carry

    return peer


def gates(matrix: jax.Array, order: str, given: str) -> jax.Array:
    """Gates in another order."""
    parts = dict(zip(given, jnp.split(matrix, len(given), axis=-1), strict=True))
    return jnp.concatenate([parts[name] for name in order], axis=-1)


def haiku_lstm(params: dict) -> dict:
    joined = jnp.concatenate((params["w"], params["u"]), axis=-2)
    return {"linear": {"w": gates(joined, "igfo", "ifgo"), "b": _haiku_bias(params["b"])}}


def haiku_conv_lstm(params: dict) -> dict:
    u = gates(params["u"], "igfo", "ifgo")
    into = {"w": gates(params["w"], "igfo", "ifgo"), "b": _haiku_bias(params["b"])}
    return {"input_to_hidden": into, "hidden_to_hidden": {"w": u, "b": jnp.zeros(u.shape[-1])}}


def _haiku_bias(b: jax.Array) -> jax.Array:
    i, f, g, o = jnp.split(b, 4)
    return jnp.concatenate((i, g, f - 1, o))


def haiku_gru(params: dict) -> dict:
    def reorder(matrix: jax.Array) -> jax.Array:
        r, z, n = jnp.split(matrix, 3, axis=-1)
        return jnp.concatenate((-z, r, n), axis=-1)

    return {"": {"w_i": reorder(params["w"]), "w_h": reorder(params["u"]), "b": reorder(params["b"])}}


def haiku_simple(params: dict) -> dict:
    return {"linear": {"w": params["w"], "b": params["b"]}, "linear_1": {"w": params["u"], "b": jnp.zeros(SIZE)}}


def flax_gates(names: str, *, bias_on: str) -> Callable[[Any], dict]:
    """Kernels `i?` and `h?` for each gate; the bias stands on one of the two, that of `n` on both if ours has both."""

    def convert(params: dict) -> dict:
        found = {}
        for side, matrix in (("i", params["w"]), ("h", params["u"])):
            for name, kernel in zip(names, jnp.split(matrix, len(names), axis=-1), strict=True):
                found[f"{side}{name}"] = {"kernel": kernel}
        for name, bias in zip(names, jnp.split(params["b"], len(names)), strict=True):
            found[f"{bias_on}{name}"]["bias"] = bias
        if "b_h" in params:
            found["hn"]["bias"] = params["b_h"]
        return found

    return convert


def flax_simple(params: dict) -> dict:
    return {"i": {"kernel": params["w"], "bias": params["b"]}, "h": {"kernel": params["u"]}}


def flax_conv_lstm(params: dict) -> dict:
    into = {"kernel": gates(params["w"], "igfo", "ifgo"), "bias": _haiku_bias(params["b"])}
    u = gates(params["u"], "igfo", "ifgo")
    return {"ih": into, "hh": {"kernel": u, "bias": jnp.zeros(u.shape[-1])}}


IN_HAIKU: dict[str, tuple[nets.Cell, Callable[[], Any], Callable[[Any], dict], tuple[int, ...]]] = {
    "VanillaRNN": (
        nets.simple_cell(SIZE, activation=jax.nn.relu),
        lambda: hk.VanillaRNN(SIZE, name="peer"),
        haiku_simple,
        (2, 5, IN),
    ),
    "LSTM": (nets.lstm_cell(SIZE), lambda: hk.LSTM(SIZE, name="peer"), haiku_lstm, (2, 5, IN)),
    "GRU": (nets.gru_cell(SIZE, reset="before"), lambda: hk.GRU(SIZE, name="peer"), haiku_gru, (2, 5, IN)),
    "Conv1DLSTM": (
        nets.conv_lstm_cell(2, (2,)),
        lambda: hk.Conv1DLSTM((5,), 2, 2, name="peer"),
        haiku_conv_lstm,
        (2, 3, 5, IN),
    ),
    "Conv2DLSTM": (
        nets.conv_lstm_cell(2, 3),
        lambda: hk.Conv2DLSTM((4, 3), 2, 3, name="peer"),
        haiku_conv_lstm,
        (2, 3, 4, 3, IN),
    ),
    "Conv3DLSTM": (
        nets.conv_lstm_cell(2, (2, 1, 2)),
        lambda: hk.Conv3DLSTM((2, 3, 2), 2, (2, 1, 2), name="peer"),
        haiku_conv_lstm,
        (2, 3, 2, 3, 2, IN),
    ),
}
IN_FLAX: dict[str, tuple[nets.Cell, nn.RNNCellBase, Callable[[Any], dict], tuple[int, ...]]] = {
    "SimpleCell": (nets.simple_cell(SIZE), nn.SimpleCell(SIZE), flax_simple, (2, 5, IN)),
    "LSTMCell": (nets.lstm_cell(SIZE), nn.LSTMCell(SIZE), flax_gates("ifgo", bias_on="h"), (2, 5, IN)),
    "OptimizedLSTMCell": (
        nets.lstm_cell(SIZE),
        nn.OptimizedLSTMCell(SIZE),
        flax_gates("ifgo", bias_on="h"),
        (2, 5, IN),
    ),
    "GRUCell": (nets.gru_cell(SIZE), nn.GRUCell(SIZE), flax_gates("rzn", bias_on="i"), (2, 5, IN)),
    "MGUCell": (nets.mgu_cell(SIZE), nn.MGUCell(SIZE), flax_gates("fn", bias_on="i"), (2, 5, IN)),
    "ConvLSTMCell": (nets.conv_lstm_cell(2, 3), nn.ConvLSTMCell(2, (3, 3)), flax_conv_lstm, (2, 3, 4, 3, IN)),
}


@pytest.mark.parametrize("name", IN_HAIKU)
def test_cells_equal_haiku(name: str):
    cell, core, convert, shape = IN_HAIKU[name]
    (x,) = values(floats(*shape))
    theirs = haiku(core, convert)

    def peer(params: Any, x: jax.Array) -> Any:
        ys, state = theirs(params, x)
        return ys, (state.cell, state.hidden) if isinstance(state, hk.LSTMState) else state

    assert_parity(nets.rnn(cell, return_carry=True), peer, x)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", IN_FLAX)
def test_cells_equal_flax(name: str, reverse: bool):
    cell, module, convert, shape = IN_FLAX[name]
    (x,) = values(floats(*shape))
    assert_parity(nets.rnn(cell, reverse=reverse, return_carry=True), flax(module, convert, reverse), x)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["SimpleCell", "LSTMCell", "GRUCell", "MGUCell"])
def test_lengths_of_at_least_one_equal_flax(name: str, reverse: bool):
    cell, module, convert, _ = IN_FLAX[name]
    (x,), lengths = values(floats(3, 5, IN)), jnp.array([5, 1, 3])
    theirs = flax(module, convert, reverse)
    net = nets.rnn(cell, reverse=reverse, return_carry=True)
    assert_parity(net, lambda params, x: theirs(params, x, lengths), x, lengths=lengths)


def test_bidirectional_equals_flax():
    convert = flax_gates("ifgo", bias_on="h")
    module = nn.Bidirectional(nn.RNN(nn.LSTMCell(SIZE)), nn.RNN(nn.LSTMCell(SIZE)))

    def peer(params: Any, x: jax.Array) -> Any:
        names = {"forward_rnn": "forward", "backward_rnn": "backward"}
        theirs = {name: {"cell": convert(params[ours])} for name, ours in names.items()}
        return module.apply({"params": theirs}, x)

    (x,) = values(floats(2, 5, IN))
    assert_parity(nets.bidirectional(nets.lstm_cell(SIZE)), peer, x)


@pytest.mark.parametrize("skips", [False, True])
def test_stack_cells_equals_haiku(skips: bool):
    make = hk.deep_rnn_with_skip_connections if skips else hk.DeepRNN
    net = nets.rnn(nets.stack_cells(nets.lstm_cell(2), nets.gru_cell(3, reset="before"), skips=skips))

    def core() -> Any:
        return make([hk.LSTM(2, name="lstm"), hk.GRU(3, name="gru")])

    def peer(params: Any, x: jax.Array) -> Any:
        def run(xs: jax.Array) -> Any:
            made = core()
            return hk.dynamic_unroll(made, xs, made.initial_state(xs.shape[1]))[0]

        lstm, gru = params["cells"]
        theirs = {"lstm/linear": haiku_lstm(lstm)["linear"], "gru": haiku_gru(gru)[""]}
        return jnp.moveaxis(hk.transform(run).apply(theirs, None, jnp.moveaxis(x, 1, 0)), 0, 1)

    (x,) = values(floats(2, 5, IN))
    assert_parity(net, peer, x)
