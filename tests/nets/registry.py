"""Every kind of network, by name: the laws of nets hold for all of them, and joining is one line."""

import importlib
import pkgutil

import jax
import jax.numpy as jnp
from jax import lax

from renga import nets

from . import families
from .kit import Case, floats, integers


@nets.define
def small_convnet(
    x: jax.Array, *, conv1=nets.conv(4, 3), conv2=nets.conv(6, 3), hidden=nets.linear(8), head=nets.linear(3)
):
    """The network of the README, small."""
    pool = nets.max_pool(2)
    x = pool(jax.nn.relu(conv1(x)))
    x = pool(jax.nn.relu(conv2(x)))
    return head(jax.nn.relu(hidden(x.reshape(*x.shape[:-3], -1))))


@nets.layer
def block(features: int, rate: float = 0.1) -> nets.Net:
    """A residual block with hyper-parameters."""

    @nets.define
    def body(
        x, *, norm=nets.layer_norm(), up=nets.linear(2 * features), down=nets.linear(features), drop=nets.dropout(rate)
    ):
        return x + drop(down(jax.nn.gelu(up(norm(x)))))

    return body


@nets.define
def gained(x: jax.Array, *, gain=nets.param((5,), nets.normal(1.0)), shift=nets.param((), nets.zeros)):
    """A network with arrays of its own."""
    return jnp.asarray(gain, x.dtype) * x + jnp.asarray(shift, x.dtype)


@nets.define
def tower(
    x, *, layers=[nets.linear(4), nets.dropout(0.5), nets.linear(5)], heads={"a": nets.linear(2), "b": nets.mlp(3, 1)}
):
    """A list and a dict of networks."""
    for child in layers:
        x = jnp.tanh(child(x))
    return {name: head(x) for name, head in heads.items()}


@nets.define
def tied(ids, *, tokens=nets.embed(5, 4), hidden=nets.linear(4)):
    """A language model whose output layer is its embedding."""
    return hidden(tokens(ids)) @ tokens.params["w"].T  # pyright: ignore[reportAttributeAccessIssue]


@nets.define
def twice(x: jax.Array, *, shared=nets.linear(5)):
    """One set of weights, used twice."""
    return shared(jnp.tanh(shared(x)))


@nets.define
def noisy(x: jax.Array, *, head=nets.linear(3), extra=nets.linear(5), key, train):
    """A network that draws its own noise, and has a layer used in training only."""
    if train:
        x = extra(x + 0.1 * jax.random.normal(key, x.shape, x.dtype))
    return head(x)


@nets.define
def counted(
    x, *, norms=[nets.batch_norm(), nets.batch_norm(scale=False)], inner=nets.serial(nets.linear(3), nets.batch_norm())
):
    """State in a list and in a network inside."""
    for norm in norms:
        x = norm(x)
    return inner(x)


@nets.define
def attend(queries, memory, *, q=nets.linear(4), k=nets.linear(4)):
    """Two inputs."""
    return jax.nn.softmax(q(queries) @ jnp.swapaxes(k(memory), -1, -2), -1) @ memory


@nets.define
def recurrent(xs: jax.Array, *, cell=nets.linear(4), into=nets.linear(4)):
    """A scan over time in the body."""

    def step(h, x):
        h = jnp.tanh(cell(h) + into(x))
        return h, h

    time_first = jnp.moveaxis(xs, -2, 0)
    return jnp.moveaxis(lax.scan(step, jnp.zeros((*xs.shape[:-2], 4), xs.dtype), time_first)[1], 0, -2)


def scale_init(key: jax.Array, x: jax.ShapeDtypeStruct) -> dict:
    return {"s": jax.random.normal(key, x.shape[-1:], jnp.float32)}


def scale_apply(params: dict, x: jax.Array) -> jax.Array:
    return params["s"].astype(x.dtype) * x


def counter_init(key: jax.Array, x: jax.ShapeDtypeStruct) -> tuple[dict, dict]:
    return {}, {"count": jnp.zeros((), jnp.float32)}


def counter_apply(params: dict, state: dict, x: jax.Array, *, train: bool) -> tuple[jax.Array, dict]:
    return x, {"count": state["count"] + train}


normed = nets.residual(nets.batch_norm(), nets.dropout(0.5))
deep = nets.repeat(block(5), 2)

NETS: dict[str, Case] = {
    "linear": Case(lambda: nets.linear(3), floats(4, 5)),
    "linear without bias": Case(lambda: nets.linear(3, bias=False), floats(4, 5), long=True),
    "linear from normal": Case(lambda: nets.linear(3, w_init=nets.normal(0.1)), floats(4, 2, 5), long=True),
    "conv over one axis": Case(lambda: nets.conv(3, (3,)), floats(2, 6, 3)),
    "conv over two axes": Case(lambda: nets.conv(3, 3), floats(2, 5, 4, 2)),
    "conv over three axes": Case(lambda: nets.conv(2, (2, 3, 2)), floats(2, 3, 4, 3, 1), long=True),
    "strided conv": Case(lambda: nets.conv(3, 3, stride=(2, 1), bias=False), floats(2, 5, 4, 2), long=True),
    "dilated conv": Case(lambda: nets.conv(3, 3, dilation=2), floats(2, 6, 5, 2), long=True),
    "grouped conv": Case(lambda: nets.conv(4, 3, groups=2), floats(2, 5, 4, 2)),
    "valid conv": Case(lambda: nets.conv(3, (3, 2), padding="valid"), floats(2, 5, 4, 2), long=True),
    "padded conv": Case(lambda: nets.conv(3, 3, padding=((1, 0), (0, 2))), floats(2, 5, 4, 2), long=True),
    "max_pool": Case(lambda: nets.max_pool(2), floats(2, 4, 4, 3), constant=True),
    "overlapping max_pool": Case(
        lambda: nets.max_pool(3, stride=1, padding="same"), floats(2, 4, 4, 3), constant=True, long=True
    ),
    "avg_pool": Case(lambda: nets.avg_pool((2,)), floats(2, 4, 3), constant=True),
    "same avg_pool": Case(
        lambda: nets.avg_pool(3, stride=2, padding="same"), floats(2, 5, 4, 3), constant=True, long=True
    ),
    "flatten": Case(lambda: nets.flatten(), floats(2, 3, 2, 2), constant=True),
    "dropout": Case(lambda: nets.dropout(0.5), floats(4, 16), draws=True, constant=True),
    "batch_norm": Case(lambda: nets.batch_norm(), floats(6, 5), constant=True, normalises=True),
    "batch_norm of images": Case(
        lambda: nets.batch_norm(offset=False), floats(4, 3, 3, 2), constant=True, normalises=True, long=True),
    "layer_norm": Case(lambda: nets.layer_norm(), floats(4, 5), constant=True, normalises=True),
    "plain layer_norm": Case(
        lambda: nets.layer_norm(scale=False, offset=False), floats(4, 5), constant=True, normalises=True, long=True),
    "embed": Case(lambda: nets.embed(5, 4), integers(4, 3)),
    "mlp": Case(lambda: nets.mlp(6, 6, 2, activation=jax.nn.tanh), floats(4, 5)),
    "serial": Case(lambda: nets.serial(nets.linear(4), jax.nn.relu, nets.linear(4), head=nets.linear(2)), floats(4, 5)),
    "empty serial": Case(
        lambda: nets.serial(), floats(4, 5), constant=True, exempt={"structures": "it hands on whatever it is given"}
    ),
    "stateful serial": Case(lambda: nets.serial(nets.conv(3, 3), nets.batch_norm(), jax.nn.relu), floats(4, 4, 4, 2)),
    "parallel": Case(lambda: nets.parallel(nets.linear(2), nets.serial(nets.linear(3), jax.nn.relu)), floats(4, 5)),
    "named parallel": Case(lambda: nets.parallel(mean=nets.linear(2), scale=nets.linear(2)), floats(4, 5), long=True),
    "residual": Case(lambda: nets.residual(nets.layer_norm(), nets.linear(5)), floats(4, 5)),
    "projected residual": Case(lambda: nets.residual(nets.mlp(6, 3), shortcut=nets.linear(3)), floats(4, 5), long=True),
    "repeat": Case(lambda: nets.repeat(nets.linear(5), 3), floats(4, 5)),
    "repeated block": Case(lambda: nets.repeat(block(5, rate=0.5), 2), floats(4, 5), draws=True, long=True),
    "repeated batch_norm": Case(
        lambda: nets.repeat(nets.serial(nets.linear(5), nets.batch_norm()), 2), floats(4, 5), long=True
    ),
    "ensemble": Case(lambda: nets.ensemble(nets.mlp(4, 2), 3), floats(4, 5), out_axis=1),
    "ensemble of inputs": Case(lambda: nets.ensemble(nets.linear(2), 3, in_axes=0), floats(3, 4, 5), 1, 1, long=True),
    "stateful ensemble": Case(
        lambda: nets.ensemble(normed, 3), floats(4, 5), out_axis=1, draws=True, constant=True, long=True
    ),
    "ensemble of repeats": Case(lambda: nets.ensemble(deep, 2), floats(4, 5), out_axis=1, draws=True, long=True),
    "convnet": Case(
        lambda: small_convnet, floats(2, 8, 8, 1), exempt={"empty batches": "a reshape to -1, as in the README"}
    ),
    "block": Case(lambda: block(5, rate=0.5), floats(4, 5), draws=True),
    "arrays of its own": Case(lambda: gained, floats(4, 5), long=True),
    "children in containers": Case(lambda: tower, floats(4, 5), draws=True, long=True),
    "tied weights": Case(lambda: tied, integers(4, 3)),
    "shared weights": Case(lambda: twice, floats(4, 5), long=True),
    "key and train": Case(lambda: noisy, floats(4, 5), draws=True),
    "state in containers": Case(lambda: counted, floats(4, 5), long=True),
    "two inputs": Case(lambda: attend, floats(2, 3, 5) + floats(2, 4, 5)),
    "scan in the body": Case(
        lambda: recurrent, floats(2, 3, 5), exempt={"meshes": "a carry that begins as fresh zeros"}
    ),
    "Net": Case(lambda: nets.Net(scale_init, scale_apply), floats(4, 5)),
    "StatefulNet": Case(lambda: nets.StatefulNet(counter_init, counter_apply), floats(4, 5), constant=True),
}  # fmt: skip

FAMILIES = [
    importlib.import_module(f"{families.__name__}.{found.name}") for found in pkgutil.iter_modules(families.__path__)
]
for _family in FAMILIES:
    NETS |= _family.CASES
