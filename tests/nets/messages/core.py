"""What the core and the first layers refuse."""

import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from renga import nets
from renga.nets import NetError, ShapeError

from ..kit import KEY, REMEDY, applied, params_of, zeros
from ..registry import block, gained, small_convnet

PADDINGS = "to be 'same', 'valid', 'causal', 'circular', 'reflect', a number or 2 pairs (before, after)"


def with_rate_default():
    @nets.define
    def net(x, *, rate=0.5):
        return x


def with_list_default():
    @nets.define
    def net(x, *, layers=[nets.linear(3), 0.5]):
        return x


def with_child_among_inputs():
    @nets.define
    def net(x, drop=nets.dropout(0.5)):
        return drop(x)


def with_names_that_are_numbers():
    @nets.define
    def net(x, *, heads={1: nets.linear(3)}):
        return heads[1](x)


@nets.define
def forgetful(x, *, heads=[nets.linear(3), nets.linear(2)]):
    return heads[0](x)


@nets.define
def hasty(x, *, tokens=nets.embed(5, 3)):
    return x @ tokens.params["w"].T  # pyright: ignore[reportAttributeAccessIssue]


@nets.define
def undeclared(x, *, head=nets.linear(3)):
    return nets.linear(4)(head(x))


def local() -> nets.Net:
    @nets.define
    def inner(x, *, head=nets.linear(3)):
        return head(x)

    return inner


def local_layer() -> nets.Net:
    @nets.layer
    def scale(by: float) -> nets.Net:
        return nets.Net(None, lambda params, x: by * x)

    return scale(2.0)


def bad_apply(params: dict, state: dict, x: jax.Array) -> jax.Array:
    return x


def bad_init(key: jax.Array, x: jax.ShapeDtypeStruct) -> tuple[dict, dict]:
    return {}, {}


linear, conv, mlp = nets.linear(2), nets.conv(3, 3), nets.mlp(4, 2)
images, rows = zeros(2, 8, 8, 1), zeros(4, 3)

# name: (what is done, error, message)
ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    # Inputs of another shape or dtype.
    "linear, size": (
        lambda: applied(linear, (rows,), zeros(4, 5)),
        ShapeError,
        "linear(2): expected an input [..., 3], got (4, 5).",
    ),
    "linear, rank at init": (
        lambda: linear.init(KEY, zeros()),
        ShapeError,
        "linear(2): expected an input [..., features], got ().",
    ),
    "linear, rank": (
        lambda: applied(linear, (rows,), zeros()),
        ShapeError,
        "linear(2): expected an input [..., 3], got ().",
    ),
    "conv, size": (
        lambda: applied(conv, (images,), zeros(2, 8, 8, 5)),
        ShapeError,
        "conv(3, 3): expected [..., height, width, channels] with 1 channels, got (2, 8, 8, 5).",
    ),
    "conv, rank": (
        lambda: conv.init(KEY, zeros(8, 8)),
        ShapeError,
        "conv(3, 3): expected [..., height, width, channels], got (8, 8).",
    ),
    "conv over one axis, rank": (
        lambda: nets.conv(3, (3,)).init(KEY, zeros(8)),
        ShapeError,
        "conv(3, (3,)): expected [..., length, channels], got (8,).",
    ),
    "conv over three axes, rank": (
        lambda: nets.conv(3, (3, 3, 3)).init(KEY, zeros(8, 8, 1)),
        ShapeError,
        "conv(3, (3, 3, 3)): expected [..., depth, height, width, channels], got (8, 8, 1).",
    ),
    "conv, window larger than the image": (
        lambda: nets.serial(nets.max_pool(8), nets.conv(3, 3, padding="valid")).init(KEY, zeros(8, 8, 1)),
        ShapeError,
        "serial/conv = conv(3, 3, padding='valid'): expected [..., height, width, channels] that hold the window "
        "(3, 3), got (1, 1, 1).",
    ),
    "max_pool, window larger than the image": (
        lambda: nets.max_pool(2)(zeros(1, 1, 3)),
        ShapeError,
        "max_pool(2): expected [..., height, width, channels] that hold the window (2, 2), got (1, 1, 3).",
    ),
    "linear, no features": (
        lambda: nets.linear(3).init(KEY, zeros(2, 0)),
        ShapeError,
        "linear(3): expected an input [..., features], got (2, 0).",
    ),
    "parameters of a network that is no child": (
        lambda: nets.linear(3).params,
        AttributeError,
        "linear(3): a network holds no parameters; those of a child are seen in the body it is in",
    ),
    "conv, groups": (
        lambda: nets.conv(4, 3, groups=2).init(KEY, zeros(8, 8, 3)),
        ShapeError,
        "conv(4, 3, groups=2): expected [..., height, width, channels] with a multiple of 2 channels, got (8, 8, 3).",
    ),
    "max_pool, rank": (
        lambda: nets.max_pool(2)(zeros(4, 4)),
        ShapeError,
        "max_pool(2): expected [..., height, width, channels], got (4, 4).",
    ),
    "avg_pool, rank": (
        lambda: nets.avg_pool((2,))(zeros(4)),
        ShapeError,
        "avg_pool((2,)): expected [..., length, channels], got (4,).",
    ),
    "flatten, rank": (
        lambda: nets.flatten()(zeros(4, 4)),
        ShapeError,
        "flatten(): expected an input of at least 3 axes, got (4, 4).",
    ),
    "layer_norm, size": (
        lambda: applied(nets.layer_norm(), (rows,), zeros(4, 5)),
        ShapeError,
        "layer_norm(): expected an input [..., 3], got (4, 5).",
    ),
    "layer_norm, rank": (
        lambda: nets.layer_norm().init(KEY, zeros()),
        ShapeError,
        "layer_norm(): expected an input [..., features], got ().",
    ),
    "batch_norm, size": (
        lambda: applied(nets.batch_norm(), (rows,), zeros(4, 5)),
        ShapeError,
        "batch_norm(): expected an input [..., 3], got (4, 5).",
    ),
    "batch_norm, no batch in training": (
        lambda: applied(nets.batch_norm(), (rows,), zeros(3), train=True),
        ShapeError,
        "batch_norm(): expected a batch [..., channels] to take statistics of in training, got (3,). Give axis_name= "
        "the name of the axis that jax.vmap maps.",
    ),
    "embed, floats": (
        lambda: nets.embed(5, 4).init(KEY, rows),
        ShapeError,
        "embed(5, 4): expected ids [...] of integers, got float32 (4, 3).",
    ),
    "a child, size": (
        lambda: applied(small_convnet, (images,), zeros(2, 16, 16, 1)),
        ShapeError,
        "small_convnet/hidden = linear(8): expected an input [..., 24], got (2, 96).",
    ),
    "a child, channels": (
        lambda: applied(small_convnet, (images,), zeros(2, 8, 8, 3)),
        ShapeError,
        "small_convnet/conv1 = conv(4, 3): expected [..., height, width, channels] with 1 channels, got (2, 8, 8, 3).",
    ),
    "a child, rank at init": (
        lambda: small_convnet.init(KEY, zeros(8, 8)),
        ShapeError,
        "small_convnet/conv1 = conv(4, 3): expected [..., height, width, channels], got (8, 8).",
    ),
    "repeat, a block that changes the shape": (
        lambda: nets.serial(nets.repeat(nets.linear(5), 2)).init(KEY, rows),
        ShapeError,
        "serial/repeat = repeat(linear(5), 2): expected a block that returns what it takes, float32[4, 3], got "
        "float32[4, 5]. A block is applied to its own output.",
    ),
    "repeat, a block that changes the dtype": (
        lambda: nets.repeat(nets.linear(3), 2).init(KEY, zeros(4, 3, dtype=np.int32)),
        ShapeError,
        "repeat(linear(3), 2): expected a block that returns what it takes, int32[4, 3], got float32[4, 3]. A block "
        "is applied to its own output.",
    ),
    "residual, another shape": (
        lambda: nets.residual(nets.linear(5)).init(KEY, rows),
        ShapeError,
        "residual(linear(5)): expected layers from (4, 3) to (4, 3), the shape they are added to, got (4, 5). Give "
        "shortcut= a layer that projects the input.",
    ),
    "residual, a shape that would broadcast": (
        lambda: nets.residual(nets.linear(1)).init(KEY, rows),
        ShapeError,
        "residual(linear(1)): expected layers from (4, 3) to (4, 3), the shape they are added to, got (4, 1). Give "
        "shortcut= a layer that projects the input.",
    ),
    # Another number of inputs, other keywords.
    "too few inputs": (
        lambda: applied(linear, (rows,)),
        NetError,
        "linear(2): expected inputs (x), got 0 inputs: missing a required argument: 'x'.",
    ),
    "too many inputs": (
        lambda: applied(linear, (rows,), rows, rows),
        NetError,
        "linear(2): expected inputs (x), got 2 inputs: too many positional arguments.",
    ),
    "too few inputs at init": (
        lambda: linear.init(KEY),
        NetError,
        "linear(2): expected inputs (x), got 0 inputs: missing a required argument: 'x'.",
    ),
    "too many inputs at init": (
        lambda: linear.init(KEY, rows, rows),
        NetError,
        "linear(2): expected inputs (x), got 2 inputs: too many positional arguments.",
    ),
    "too many inputs of a define": (
        lambda: small_convnet.init(KEY, images, images),
        NetError,
        "small_convnet: expected inputs (x), got 2 inputs: too many positional arguments.",
    ),
    "too many inputs of a child": (
        lambda: nets.serial(linear).init(KEY, rows, rows),
        NetError,
        "serial/linear = linear(2): expected inputs (x), got 2 inputs: too many positional arguments.",
    ),
    "no inputs of a residual": (
        lambda: nets.residual(linear).init(KEY),
        NetError,
        "residual(linear(2)): expected inputs (x, ...), got 0 inputs.",
    ),
    "no inputs of a repeat": (
        lambda: applied(nets.repeat(nets.linear(3), 2), (rows,)),
        NetError,
        "repeat(linear(3), 2): expected inputs (x, ...), got 0 inputs.",
    ),
    "unknown keyword": (
        lambda: applied(linear, (rows,), rows, mask=rows),
        NetError,
        "linear(2): expected inputs (x), got 1 inputs: got an unexpected keyword argument 'mask'.",
    ),
    "unknown keyword at init": (
        lambda: linear.init(KEY, rows, mask=rows),
        NetError,
        "linear(2): expected inputs (x), got 1 inputs: got an unexpected keyword argument 'mask'.",
    ),
    "unknown keyword of a define": (
        lambda: applied(small_convnet, (images,), images, mask=rows),
        NetError,
        "small_convnet: expected inputs (x), got 1 inputs: got an unexpected keyword argument 'mask'.",
    ),
    "keyword of a serial": (
        lambda: nets.serial(linear).init(KEY, rows, mask=rows),
        NetError,
        "serial(linear(2)): expected inputs by position, got the keywords ['mask'].",
    ),
    "keyword of a parallel": (
        lambda: applied(nets.parallel(linear), (rows,), rows, mask=rows),
        NetError,
        "parallel(linear(2)): expected inputs by position, got the keywords ['mask'].",
    ),
    "keyword of a residual": (
        lambda: applied(nets.residual(nets.linear(3)), (rows,), rows, mask=rows),
        NetError,
        "residual(linear(3)): expected inputs by position, got the keywords ['mask'].",
    ),
    # Parameters and state of another network.
    "parameters of a linear of another size": (
        lambda: nets.linear(7).apply(params_of(linear, rows), rows),
        ShapeError,
        "linear(7): expected parameters w [any, 7], b [7], got {'b': (2,), 'w': (3, 2)}." + REMEDY,
    ),
    "parameters with a bias": (
        lambda: nets.linear(2, bias=False).apply(params_of(linear, rows), rows),
        ShapeError,
        "linear(2, bias=False): expected parameters w [any, 2], got {'b': (2,), 'w': (3, 2)}." + REMEDY,
    ),
    "no parameters": (
        lambda: linear.apply({}, rows),
        ShapeError,
        "linear(2): expected parameters w [any, 2], b [2], got nothing." + REMEDY,
    ),
    "an array for parameters": (
        lambda: linear.apply(rows, rows),
        ShapeError,
        "linear(2): expected parameters w [any, 2], b [2], got (4, 3)." + REMEDY,
    ),
    "parameters of a conv of another kernel": (
        lambda: nets.conv(3, 5).apply(params_of(conv, images), images),
        ShapeError,
        "conv(3, 5): expected parameters w [5, 5, any, 3], b [3], got {'b': (3,), 'w': (3, 3, 1, 3)}." + REMEDY,
    ),
    "parameters of an embed of another size": (
        lambda: nets.embed(5, 4).apply(params_of(nets.embed(6, 4), np.array(0)), np.array(0)),
        ShapeError,
        "embed(5, 4): expected parameters w [5, 4], got {'w': (6, 4)}." + REMEDY,
    ),
    "parameters for a layer without any": (
        lambda: nets.serial(nets.flatten(1)).apply({"flatten": {"w": rows}}, rows),
        ShapeError,
        "serial/flatten = flatten(num_axes=1): expected parameters none, got {'w': (4, 3)}." + REMEDY,
    ),
    "parameters under other names": (
        lambda: small_convnet.apply(params_of(linear, rows), images),
        NetError,
        "small_convnet: expected params of the children ['conv1', 'conv2', 'hidden', 'head'], got ['b', 'w']." + REMEDY,
    ),
    "parameters of a child that are missing": (
        lambda: small_convnet.apply({"conv1": params_of(nets.conv(4, 3), images)}, images),
        ShapeError,
        "small_convnet/conv2 = conv(6, 3): expected parameters w [3, 3, any, 6], b [6], got nothing." + REMEDY,
    ),
    "parameters of a list of another length": (
        lambda: mlp.apply(params_of(nets.mlp(4, 4, 2), rows), rows),
        NetError,
        "mlp/layers = mlp(4, 2): expected params of the children [0, 1], got [0, 1, 2]." + REMEDY,
    ),
    "parameters of a list with other sizes": (
        lambda: mlp.apply(params_of(nets.mlp(5, 2), rows), rows),
        ShapeError,
        "mlp/layers/0 = linear(4): expected parameters w [any, 4], b [4], got {'b': (5,), 'w': (3, 5)}." + REMEDY,
    ),
    "an array of another shape": (
        lambda: gained.apply({"gain": zeros(3), "shift": zeros()}, zeros(4, 5)),
        NetError,
        "gained/gain = param((5,), normal(stddev=1.0)): expected an array (5,), got (3,). Make it with this network's "
        "own init(key, x).",
    ),
    "parameters of another number of blocks": (
        lambda: nets.repeat(nets.linear(3), 3).apply(params_of(nets.repeat(nets.linear(3), 2), rows), rows),
        NetError,
        "repeat(linear(3), 3): expected parameters with a leading axis of 3, got {'b': (2, 3), 'w': (2, 3, 3)}."
        + REMEDY,
    ),
    "parameters of another number of members": (
        lambda: nets.ensemble(nets.linear(3), 4).apply(params_of(nets.linear(3), rows), rows),
        NetError,
        "ensemble(linear(3), 4): expected parameters with a leading axis of 4, got {'b': (3,), 'w': (3, 3)}." + REMEDY,
    ),
    "state of another number of blocks": (
        lambda: nets.repeat(nets.batch_norm(), 2).apply(
            params_of(nets.repeat(nets.batch_norm(), 2), rows)[0], params_of(nets.batch_norm(), rows)[1], rows
        ),
        NetError,
        "repeat(batch_norm(), 2): expected state with a leading axis of 2, got {'mean': (3,), 'var': (3,)}." + REMEDY,
    ),
    "state of another network": (
        lambda: nets.batch_norm().apply(
            params_of(nets.batch_norm(), rows)[0], params_of(nets.batch_norm(), zeros(4, 2))[1], rows
        ),
        ShapeError,
        "batch_norm(): expected state mean [3], var [3], got {'mean': (2,), 'var': (2,)}." + REMEDY,
    ),
    "state under other names": (
        lambda: nets.serial(linear, nets.batch_norm()).apply({}, {"mean": rows}, rows),
        NetError,
        "serial(linear(2), batch_norm()): expected state of the children ['linear', 'batch_norm'], got ['mean']."
        + REMEDY,
    ),
    "no state": (
        lambda: nets.batch_norm().apply({}),
        TypeError,
        "batch_norm(): expected apply(params, state, *inputs), got params alone",
    ),
    "a StatefulNet that returns no state": (
        lambda: nets.StatefulNet(bad_init, bad_apply).apply({}, {}, jnp.zeros(3)),
        NetError,
        "StatefulNet(bad_init, bad_apply): expected apply to return (outputs, state), got ArrayImpl.",
    ),
    # Keys and train.
    "no key in training": (
        lambda: nets.dropout(0.5)(rows, train=True),
        NetError,
        "dropout(0.5): expected a key in training, got None. Pass key= to apply.",
    ),
    "no key in training, deep inside": (
        lambda: applied(nets.serial(nets.repeat(block(3), 2)), (rows,), rows, train=True),
        NetError,
        "serial/repeat/drop = dropout(0.1): expected a key in training, got None. Pass key= to apply.",
    ),
    "a number for a key": (
        lambda: linear.init(0, rows),  # pyright: ignore[reportArgumentType]
        TypeError,
        "linear(2): expected a JAX random key, got 0. Make one with jax.random.key(0).",
    ),
    "floats for a key": (
        lambda: linear.init(jnp.zeros(2), rows),
        TypeError,
        "linear(2): expected a JAX random key, got float32[2]. Make one with jax.random.key(0).",
    ),
    "a number for a key of apply": (
        lambda: applied(linear, (rows,), rows, key=3),
        TypeError,
        "linear(2): expected a JAX random key, got 3. Make one with jax.random.key(0).",
    ),
    "train traced": (
        lambda: jax.jit(nets.dropout(0.5).apply)({}, rows, train=True),
        TypeError,
        "dropout(0.5): expected train to be True or False while tracing, got JitTracer(bool[]). Fix it with "
        "functools.partial, or name it in static_argnames of jax.jit.",
    ),
    # Networks called like functions, and changed.
    "a network with parameters called": (
        lambda: linear(rows),
        NetError,
        "linear(2): expected a network without parameters to be called like a function, got one that has them. Use "
        "net.apply(params, x), or make it a child of a `define`d network.",
    ),
    "a network with state called": (
        lambda: nets.batch_norm(scale=False, offset=False)(rows),
        NetError,
        "batch_norm(scale=False, offset=False): expected a network without parameters to be called like a function, "
        "got one that has them. Use net.apply(params, x), or make it a child of a `define`d network.",
    ),
    "a network with parameters called in a body": (
        lambda: undeclared.init(KEY, rows),
        NetError,
        "undeclared = linear(4): expected a network without parameters to be called like a function, got one that has "
        "them. Use net.apply(params, x), or make it a child of a `define`d network.",
    ),
    "an attribute set": (
        lambda: setattr(linear, "name", "other"),
        AttributeError,
        "linear(2): a network is a value and cannot be changed; build another one",
    ),
    "an attribute deleted": (
        lambda: delattr(linear, "name"),
        AttributeError,
        "linear(2): a network is a value and cannot be changed; build another one",
    ),
    # Constructors.
    "linear, features": (
        lambda: nets.linear(0),
        ValueError,
        "linear: expected features to be an integer of at least 1, got 0",
    ),
    "linear, a float": (
        lambda: nets.linear(2.5),  # pyright: ignore[reportArgumentType]
        ValueError,
        "linear: expected features to be an integer of at least 1, got 2.5",
    ),
    "conv, features": (
        lambda: nets.conv(0, 3),
        ValueError,
        "conv: expected features to be an integer of at least 1, got 0",
    ),
    "conv, kernel of four axes": (
        lambda: nets.conv(3, (1, 2, 3, 4)),
        ValueError,
        "conv: expected kernel for one to three spatial axes, got (1, 2, 3, 4)",
    ),
    "conv, kernel of a float": (
        lambda: nets.conv(3, 2.5),  # pyright: ignore[reportArgumentType]
        ValueError,
        "conv: expected kernel for one to three spatial axes, got 2.5",
    ),
    "conv, kernel of zero": (
        lambda: nets.conv(3, 0),
        ValueError,
        "conv: expected kernel to be an integer of at least 1, got 0",
    ),
    "conv, stride of another length": (
        lambda: nets.conv(3, 3, stride=(1, 2, 3)),
        ValueError,
        "conv: expected stride to be an integer or 2 of them, got (1, 2, 3)",
    ),
    "conv, dilation of zero": (
        lambda: nets.conv(3, 3, dilation=0),
        ValueError,
        "conv: expected dilation to be an integer of at least 1, got 0",
    ),
    "conv, unknown padding": (
        lambda: nets.conv(3, 3, padding="full"),  # pyright: ignore[reportArgumentType]
        ValueError,
        f"conv: expected padding {PADDINGS}, got 'full'",
    ),
    "conv, numbers for pairs": (
        lambda: nets.conv(3, 3, padding=(1, 1)),  # pyright: ignore[reportArgumentType]
        ValueError,
        f"conv: expected padding {PADDINGS}, got (1, 1)",
    ),
    "conv, negative padding": (
        lambda: nets.conv(3, 3, padding=-1),
        ValueError,
        f"conv: expected padding {PADDINGS}, got -1",
    ),
    "conv, features and groups": (
        lambda: nets.conv(3, 3, groups=2),
        ValueError,
        "conv: expected features to be a multiple of groups = 2, got 3",
    ),
    "max_pool, window": (
        lambda: nets.max_pool(0),
        ValueError,
        "max_pool: expected window to be an integer of at least 1, got 0",
    ),
    "avg_pool, stride of another length": (
        lambda: nets.avg_pool(2, stride=(1,)),
        ValueError,
        "avg_pool: expected stride to be an integer or 2 of them, got (1,)",
    ),
    "avg_pool, a window of padding only": (
        lambda: nets.avg_pool(2, padding=2),
        ValueError,
        "avg_pool: expected padding smaller than the window (2, 2), got 2",
    ),
    "flatten, number of axes": (
        lambda: nets.flatten(0),
        ValueError,
        "flatten: expected num_axes to be an integer of at least 1, got 0",
    ),
    "dropout, rate of one": (
        lambda: nets.dropout(1.0),
        ValueError,
        "dropout: expected rate, the share that is dropped, in [0, 1), got 1.0",
    ),
    "layer_norm, eps": (
        lambda: nets.layer_norm(eps=0),
        ValueError,
        "layer_norm: expected eps above 0, got 0",
    ),
    "batch_norm, eps": (
        lambda: nets.batch_norm(eps=-1),
        ValueError,
        "batch_norm: expected eps above 0, got -1",
    ),
    "batch_norm, decay_rate": (
        lambda: nets.batch_norm(decay_rate=2),
        ValueError,
        "batch_norm: expected decay_rate in [0, 1], got 2",
    ),
    "embed, num_embeddings": (
        lambda: nets.embed(0, 3),
        ValueError,
        "embed: expected num_embeddings to be an integer of at least 1, got 0",
    ),
    "mlp, no sizes": (
        lambda: nets.mlp(),
        ValueError,
        "mlp: expected at least one size, got none",
    ),
    "repeat, number": (
        lambda: nets.repeat(linear, 0),
        ValueError,
        "repeat: expected num_blocks to be an integer of at least 1, got 0",
    ),
    "repeat, not a network": (
        lambda: nets.repeat(3, 2),  # pyright: ignore[reportArgumentType]
        TypeError,
        "repeat: expected a network, got 3",
    ),
    "ensemble, number": (
        lambda: nets.ensemble(linear, 2.0),  # pyright: ignore[reportArgumentType]
        ValueError,
        "ensemble: expected num_members to be an integer of at least 1, got 2.0",
    ),
    "serial, neither a network nor a function": (
        lambda: nets.serial(linear, 3),  # pyright: ignore[reportArgumentType]
        TypeError,
        "expected a network or a function, got 3",
    ),
    "serial, an initializer": (
        lambda: nets.serial(nets.lecun_normal()),
        TypeError,
        "expected a network or a function, got lecun_normal()",
    ),
    "serial, a name given twice": (
        lambda: nets.serial(linear, linear=nets.linear(3)),
        TypeError,
        "linear: expected a name of its own, got that of an unnamed layer",
    ),
    "serial, a name with a slash": (
        lambda: nets.serial(**{"a/b": linear}),
        TypeError,
        "a/b: expected a child's name to be a string without a slash, got 'a/b'",
    ),
    "parallel, names for some": (
        lambda: nets.parallel(linear, other=linear),
        TypeError,
        "parallel: expected layers by position or by name, got both",
    ),
    "layer, not a network": (
        lambda: nets.layer(lambda: 3)(),
        TypeError,
        "<lambda>: expected a function marked @layer to return a Net, got 3",
    ),
    # Bodies.
    "a default that is no network": (
        with_rate_default,
        TypeError,
        "net/rate: expected a network, a list or dict of networks, or None as a keyword's default, got 0.5. "
        "Hyper-parameters belong to an enclosing function marked @layer.",
    ),
    "a default that is a list with something else": (
        with_list_default,
        TypeError,
        "net/layers/1: expected a network, a list or dict of networks, or None as a keyword's default, got 0.5. "
        "Hyper-parameters belong to an enclosing function marked @layer.",
    ),
    "a child among the inputs": (
        with_child_among_inputs,
        TypeError,
        "net/drop: expected children after the `*`, got one among the inputs",
    ),
    "a child whose name is a number": (
        with_names_that_are_numbers,
        TypeError,
        "heads/1: expected a child's name to be a string without a slash, got 1",
    ),
    "a child that is never called": (
        lambda: nets.serial(forgetful).init(KEY, rows),
        NetError,
        "serial/forgetful/heads/1 = linear(2): expected every child to be called by the body, got no call: the shapes "
        "of its inputs are unknown.",
    ),
    "parameters read before the call": (
        lambda: hasty.init(KEY, rows),
        NetError,
        "hasty/tokens = embed(5, 3): expected the child to be called before its .params are read, got no call so far.",
    ),
    # Pickle.
    "a define inside a function": (
        lambda: pickle.dumps(nets.serial(local())),
        pickle.PicklingError,
        f"inner: expected a network that is found as {__name__}:local.<locals>.inner, got another value or none "
        "there. Define it at the top level of a module, or return it from a function marked @layer.",
    ),
    "a layer inside a function": (
        lambda: pickle.dumps(local_layer()),
        pickle.PicklingError,
        f"scale(2.0): expected a function at the top level of a module, got {__name__}:local_layer.<locals>.scale. "
        "Move it out of the function that defines it.",
    ),
}
