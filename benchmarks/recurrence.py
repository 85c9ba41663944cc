"""Forward and backward pass of a recurrent layer, the gradient of the mean square of its outputs.

    pip install -e '.[bench]'
    python benchmarks/recurrence.py lstm             # batch 64, 128 steps, 128 features, 256 units
    python benchmarks/recurrence.py lstm-small       # batch 32, 64 steps, 128 features, 128 units
    python benchmarks/recurrence.py lstm-one-core    # on one of the machine's cores
    python benchmarks/recurrence.py gru              # -small, -one-core
    python benchmarks/recurrence.py linear           # h = a h + b; or linear-small

Beside the peers stand the choices that `rnn` makes and what it could have done instead: weight gradients in every
step of the backward scan ("plain autodiff"), the input projection before the scan ("hoisted projection", to be set
against plain autodiff), several steps compiled as one ("unrolled by 4"). All see batch-major inputs, and Haiku, which
wants time first, transposes them. Torch is eager: its compiler leaves recurrent layers as they are.
"""

import functools
import importlib.util
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from runner import Promise, Round, Work, apart, comparison, main
from steps import passes

from renga import nets, training
from renga.nets._linear_recurrence import associative, linear_scan, sequential

SIZES = {"big": (64, 128, 128, 256), "char": (32, 64, 128, 128)}  # batch, steps, features, units
NUM_PASSES = {"big": 1, "char": 5}


def ours(net: nets.Net, x: jax.Array, num: int, options: Mapping[str, Any] | None = None) -> Round:
    """A network of renga."""
    return passes(lambda params: net.apply(params, x), net.init(jax.random.key(0), x), num, options)


def plain(cell: nets.Cell) -> nets.Cell:
    """The same cell, whose derivative is left to autodiff of `lax.scan`."""
    return nets.Cell(cell.init, cell.initial_carry, cell.step)


def projected(kind: str, units: int) -> nets.Net:
    """A recurrent layer whose input projection is one matmul before the scan."""
    num_gates = {"lstm": 4, "gru": 3}[kind]

    def init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
        return {"u": jax.random.normal(key, (units, num_gates * units)) / units**0.5}

    def lstm_step(params: dict, carry: Any, x: jax.Array) -> Any:
        i, f, g, o = jnp.split(x + carry[1] @ params["u"], 4, -1)
        c = jax.nn.sigmoid(f) * carry[0] + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (c, h), h

    def gru_step(params: dict, h: jax.Array, x: jax.Array) -> Any:
        (r_x, z_x, n_x), (r_h, z_h, n_h) = jnp.split(x, 3, -1), jnp.split(h @ params["u"], 3, -1)
        r, z = jax.nn.sigmoid(r_x + r_h), jax.nn.sigmoid(z_x + z_h)
        n = jnp.tanh(n_x + r * n_h)
        h = n + z * (h - n)
        return h, h

    def initial_carry(params: dict, x: jax.Array) -> Any:
        zeros = jnp.zeros_like(x[..., :units])
        return (zeros, zeros) if kind == "lstm" else zeros

    cell = nets.Cell(init, initial_carry, lstm_step if kind == "lstm" else gru_step)
    return nets.serial(nets.linear(num_gates * units), nets.rnn(cell))


def flax(kind: str, x: jax.Array, units: int, num: int, *, optimized: bool = False) -> Round:
    """Flax linen; its optimised LSTM has the same parameters and fewer matmuls."""
    from flax import linen

    lstm = linen.OptimizedLSTMCell if optimized else linen.LSTMCell
    net = linen.RNN(lstm(units) if kind == "lstm" else linen.GRUCell(units))
    return passes(lambda params: net.apply(params, x), net.init(jax.random.key(0), x), num)


def haiku(kind: str, x: jax.Array, units: int, num: int) -> Round:
    """Haiku's `dynamic_unroll`; its GRU is reset before the matmul."""
    import haiku as hk

    def run(x: jax.Array) -> Any:
        core = hk.LSTM(units) if kind == "lstm" else hk.GRU(units)
        return hk.dynamic_unroll(core, jnp.swapaxes(x, 0, 1), core.initial_state(x.shape[0]))[0]

    net = hk.without_apply_rng(hk.transform(run))
    return passes(lambda params: net.apply(params, x), net.init(jax.random.key(0), x), num)


def equinox(kind: str, x: jax.Array, units: int, num: int) -> Round:
    """Equinox as its documentation writes it: a scan over one example, under `vmap`."""
    import equinox as eqx

    lstm = kind == "lstm"
    cell = (eqx.nn.LSTMCell if lstm else eqx.nn.GRUCell)(x.shape[-1], units, key=jax.random.key(0))
    params, static = eqx.partition(cell, eqx.is_array)

    def apply(params: Any) -> jax.Array:
        model = eqx.combine(params, static)

        def step(carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
            carry = model(x, carry)
            return carry, carry[0] if lstm else carry

        zeros = jnp.zeros(units)
        begin = (zeros, zeros) if lstm else zeros
        return jax.vmap(lambda x: jax.lax.scan(step, begin, x)[1])(x)

    return passes(apply, params, num)


def torch(kind: str, x: jax.Array, units: int, num: int) -> Round:
    """Torch, its own kernels."""
    import torch as th

    net = {"lstm": th.nn.LSTM, "gru": th.nn.GRU}[kind](x.shape[-1], units, batch_first=True)
    inputs = th.ones(x.shape)

    def run() -> int:
        for _ in range(num):
            net.zero_grad()
            net(inputs)[0].square().mean().backward()
        return num

    return run


def cases(kind: str, size: str) -> Mapping[str, Round]:
    """An LSTM or a GRU of a size in every library that is installed, and our own alternatives."""
    batch, steps, features, units = SIZES[size]
    x, num = jax.random.normal(jax.random.key(1), (batch, steps, features)), NUM_PASSES[size]
    cell = {"lstm": nets.lstm_cell, "gru": nets.gru_cell}[kind](units)
    found = {
        "renga": ours(nets.rnn(cell), x, num),
        "renga, compiler_options": ours(nets.rnn(cell), x, num, training.compiler_options()),
        "renga, plain autodiff": ours(nets.rnn(plain(cell)), x, num),
        "renga, hoisted projection": ours(projected(kind, units), x, num),
        "renga, unrolled by 4": ours(nets.rnn(cell, unroll=4), x, num),
    }
    if kind == "gru":
        found["renga, reset before"] = ours(nets.rnn(nets.gru_cell(units, reset="before")), x, num)
    peers: dict[str, dict[str, Callable[..., Round]]] = {
        "flax": {"Flax linen": flax}
        | ({"Flax linen, optimised": functools.partial(flax, optimized=True)} if kind == "lstm" else {}),
        "haiku": {"Haiku": haiku},
        "equinox": {"Equinox": equinox},
        "torch": {"torch, eager": functools.partial(apart, torch)},
    }
    for module, makers in peers.items():
        if importlib.util.find_spec(module):
            found |= {name: make(kind, x, units, num) for name, make in makers.items()}
    return found


def linear_cases(size: str) -> Mapping[str, Round]:
    """All carries of `h = a h + b`, and gradients with respect to `a` and `b`."""
    batch, steps, _, units = SIZES[size]
    a, b = jax.random.uniform(jax.random.key(1), (2, steps, batch, units))
    begin, num = jnp.zeros((batch, units)), NUM_PASSES[size]
    scans = {
        "renga": lambda a, b: linear_scan(a, b, begin, False, 1),
        "sequential, plain autodiff": lambda a, b: sequential(a, b, begin, reverse=False, unroll=1),
        "associative, plain autodiff": lambda a, b: associative(a, b, begin, reverse=False, unroll=1),
    }
    return {name: passes(lambda ab, scan=scan: scan(*ab), (a, b), num) for name, scan in scans.items()}


_JAX_PEERS = ("Flax linen", "Flax linen, optimised", "Haiku", "Equinox")


def _work(gates: int, size: str) -> Work:
    batch, steps, features, units = SIZES[size]
    # Forward, the kernels' gradients, and those of hidden states; the inputs have none.
    return Work(flops=2 * batch * steps * gates * units * (2 * features + 3 * units))


for _cell, (_size, _suffix) in itertools.product(("lstm", "gru"), (("big", ""), ("char", "-small"))):
    _title = f"a recurrent layer, forward and backward: {_cell}, {_size}"
    _why = "A step's product takes 40 us: a second core that is slow to wake adds nothing to the first." * bool(_suffix)
    comparison(
        f"{_cell}{_suffix}",
        _title,
        "renga",
        promises=[
            Promise("renga", _JAX_PEERS, 1 / 1.15, _why),
            Promise("renga, compiler_options", "torch, eager", 1.1, _why),
        ],
        work=_work({"lstm": 4, "gru": 3}[_cell], _size),
    )(functools.partial(cases, _cell, _size))
    comparison(
        f"{_cell}{_suffix}-one-core",
        f"{_title}, one core",
        "renga",
        promises=[Promise("renga, compiler_options", (*_JAX_PEERS, "torch, eager"), 1)],
        backends=["cpu"],
        num_cores=1,
    )(functools.partial(cases, _cell, _size))

for _size, _suffix in (("big", ""), ("char", "-small")):
    _title = f"a linear recurrence, forward and backward: {_size}"
    comparison(f"linear{_suffix}", _title, "renga")(functools.partial(linear_cases, _size))

if __name__ == "__main__":
    main()
