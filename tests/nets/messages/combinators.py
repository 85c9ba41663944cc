"""What combinators refuse."""

import jax
import jax.numpy as jnp

from renga import nets
from renga.nets import NetError, ShapeError

from ..families.combinators import noted, unit
from ..kit import KEY, REMEDY, applied, params_of, zeros

linear, rows = nets.linear(3), zeros(4, 3)
lora = nets.lora(linear, "w", rank=2)


@nets.define
def early(xs, *, norm=nets.batch_norm()):
    return jax.lax.scan(lambda state, x: norm(x, state=state)[::-1], norm.state, xs)[1]


@nets.define
def stateless(x, *, into=nets.linear(3)):
    return into(x, state={})


ERRORS = {
    "repeat, input per block": (
        lambda: nets.repeat(noted, 3, per_block="bias").init(KEY, zeros(4, 5), bias=zeros(2, 5)),
        ShapeError,
        "repeat(noted, 3, per_block='bias'): expected bias with a leading axis of 3, one part for each block, got "
        "(2, 5).",
    ),
    "repeat, no input": (
        lambda: nets.repeat(linear, 3).init(KEY),
        NetError,
        "repeat(linear(3), 3): expected inputs (x, ...), got 0 inputs.",
    ),
    "ensemble, members": (
        lambda: nets.ensemble(linear, 3, in_axes=0).init(KEY, zeros(2, 5)),
        ShapeError,
        "ensemble(linear(3), 3, in_axes=0): expected inputs with 3 members along axis 0, got (2, 5).",
    ),
    "ensemble, members at apply": (
        lambda: applied(nets.ensemble(linear, 3, in_axes=1), (zeros(2, 3, 5),), zeros(5)),
        ShapeError,
        "ensemble(linear(3), 3, in_axes=1): expected inputs with 3 members along axis 1, got (5,).",
    ),
    "lora of stacked weights": (
        lambda: nets.lora(nets.serial(nets.repeat(linear, 2)), "**/w", rank=2).init(KEY, zeros(4, 3)),
        NetError,
        "lora(serial(repeat(linear(3), 2)), '**/w', rank=2): expected repeat/w to have 0 stacked axes, got 1, of "
        "repeat(linear(3), 2). Pass num_stacked=1, or choose weights outside of it by patterns of paths.",
    ),
    "serial, no input": (
        lambda: nets.serial().init(KEY),
        NetError,
        "serial(): expected inputs (x, ...), got 0 inputs.",
    ),
    "init, a batch of keys": (
        lambda: linear.init(jax.random.split(KEY), rows),
        TypeError,
        "linear(3): expected a JAX random key, got key<fry>[2]. Map over several with jax.vmap.",
    ),
    "stack, none": (
        lambda: nets.stack([]),
        ValueError,
        "stack: expected at least one tree, got none",
    ),
    "stack, another shape": (
        lambda: nets.stack([{"w": zeros(2)}, {"w": zeros(3)}]),
        ValueError,
        "stack: expected 1 to be like 0, {'w': (2,)}, got {'w': (3,)}",
    ),
    "stack, another dtype": (
        lambda: nets.stack([{"w": zeros(2)}, {"w": zeros(2, dtype=jnp.bfloat16)}]),
        ValueError,
        "stack: expected 1 to be like 0, {w: float32[2]}, got {w: bfloat16[2]}",
    ),
    "unstack, no axis in common": (
        lambda: nets.unstack({"w": zeros(2), "b": zeros(3, 2)}),
        ValueError,
        "unstack: expected arrays with one leading axis in common, got {'b': (3, 2), 'w': (2,)}",
    ),
    "remat, not a network": (
        lambda: nets.remat(3),  # pyright: ignore[reportArgumentType]
        TypeError,
        "remat: expected a network, got 3",
    ),
    "cast, not a network": (
        lambda: nets.cast(3),  # pyright: ignore[reportArgumentType]
        TypeError,
        "cast: expected a network, got 3",
    ),
    "cast, dtype": (
        lambda: nets.cast(linear, compute="int32"),
        TypeError,
        "cast: expected compute to be a floating-point dtype, got 'int32'",
    ),
    "cast, no dtype": (
        lambda: nets.cast(linear, params="half a float"),
        TypeError,
        "cast: expected params to be a floating-point dtype, got 'half a float'",
    ),
    "frozen, pattern": (
        lambda: nets.serial(nets.frozen(linear, "c")).init(KEY, rows),
        ValueError,
        "frozen: expected a pattern that matches a path, got 'c'. There are 'b', 'w'.",
    ),
    "lora, no pattern": (
        lambda: nets.lora(linear, rank=2),
        ValueError,
        "lora: expected at least one pattern of paths, such as '**/w', got none",
    ),
    "lora, rank": (
        lambda: nets.lora(linear, "w", rank=0),
        ValueError,
        "lora: expected rank to be an integer of at least 1, got 0",
    ),
    "lora, a vector": (
        lambda: nets.serial(nets.lora(linear, "b", rank=2)).init(KEY, rows),
        NetError,
        "serial/lora = lora(linear(3), 'b', rank=2): expected b to have 0 stacked, at least one input, and 1 output "
        "axes, got float32 (3,). Say how its axes are meant with num_stacked= and num_outputs=.",
    ),
    "lora, parameters of the network inside": (
        lambda: lora.apply(params_of(linear, rows), rows),
        NetError,
        f"lora(linear(3), 'w', rank=2): expected params of ['net', 'lora'], got ['b', 'w'].{REMEDY}",
    ),
    "lora, a change of another rank": (
        lambda: lora.apply({**params_of(lora, rows), "lora": {"w": {"a": zeros(3, 1), "b": zeros(1, 3)}}}, rows),
        ShapeError,
        "lora/lora/w = _low_rank((3, 3), 2, 0, 1): expected parameters a [3, 2], b [2, 3], got {'a': (3, 1), 'b': "
        f"(1, 3)}}.{REMEDY}",
    ),
    "lora, an input of another size": (
        lambda: applied(lora, (rows,), zeros(4, 5)),
        ShapeError,
        "lora/net = linear(3): expected an input [..., 3], got (4, 5).",
    ),
    "merge_lora, another network": (
        lambda: nets.merge_lora(linear, {}),
        TypeError,
        "merge_lora: expected a network that lora returned, got linear(3)",
    ),
    "a state read before the call": (
        lambda: early.init(KEY, zeros(2, 4, 3)),
        NetError,
        "early/norm = batch_norm(): expected the child to be called before its .state is read, got no call so far.",
    ),
    "a state for a child without": (
        lambda: stateless.init(KEY, rows),
        NetError,
        "stateless/into = linear(3): expected a network that carries state, got one without.",
    ),
    "remat, an input of another size": (
        lambda: applied(nets.serial(nets.remat(unit(3))), (rows,), zeros(4, 5)),
        ShapeError,
        "serial/remat/norm = batch_norm(): expected an input [..., 3], got (4, 5).",
    ),
}
