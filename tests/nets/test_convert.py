"""Weights of Flax and Haiku, read and written; what does not fit; files."""

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import freeze

from renga import nets
from renga.nets import convert

from .kit import KEY, outputs, values, zeros


def floats(*shape: int) -> jax.Array:
    return values(jax.ShapeDtypeStruct(shape, jnp.float32))


def ids(*shape: int) -> jax.Array:
    return values(jax.ShapeDtypeStruct(shape, jnp.int32))


def positive(tree: Any) -> Any:
    """The same tree with values in [0.5, 1.5]; a count of steps stays as it is."""

    def fill(leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return 1 + 0.5 * values(leaf)
        return jnp.full(leaf.shape, 10**6, leaf.dtype)

    return jax.tree.map(fill, tree)


def dense_pair(x: jax.Array) -> jax.Array:
    return hk.Linear(2, name="head")(hk.Linear(4, name="hidden")(x))


PAIR = nets.serial(hidden=nets.linear(4), head=nets.linear(2))
X = floats(2, 5, 6, 2)
SEQUENCE = floats(2, 5, 3)

# name: (our network, Flax's, input)
FLAX: dict[str, tuple[nets.Net, nn.Module, jax.Array]] = {
    "linear": (nets.linear(3), nn.Dense(3), floats(4, 5)),
    "linear_general": (nets.linear_general((2, 3)), nn.DenseGeneral((2, 3)), floats(4, 5)),
    "einsum": (nets.einsum("...d,dk->...k", k=3), nn.Einsum((5, 3), "...d,dk->...k", use_bias=False), floats(4, 5)),
    "embed": (nets.embed(5, 4), nn.Embed(5, 4), ids(3, 2)),
    "conv": (nets.conv(4, 3, stride=2), nn.Conv(4, (3, 3), 2), X),
    "depthwise_conv": (nets.depthwise_conv(3), nn.Conv(2, (3, 3), feature_group_count=2), X),
    "conv_transpose": (
        nets.conv_transpose(4, 3, stride=2),
        nn.ConvTranspose(4, (3, 3), (2, 2), transpose_kernel=True),
        X,
    ),
    "turned conv_transpose": (
        nets.conv_transpose(4, 3, stride=2, transpose_kernel=False),
        nn.ConvTranspose(4, (3, 3), (2, 2)),
        X,
    ),
    "conv_local": (nets.conv_local(3, 2, padding="valid"), nn.ConvLocal(3, (2, 2), padding="VALID"), X),
    "layer_norm": (nets.layer_norm(), nn.LayerNorm(epsilon=1e-5), floats(4, 5)),
    "rms_norm": (nets.rms_norm(), nn.RMSNorm(), floats(4, 5)),
    "group_norm": (nets.group_norm(2, eps=1e-5), nn.GroupNorm(2, epsilon=1e-5), floats(2, 3, 3, 4)),
    "batch_norm": (nets.batch_norm(), nn.BatchNorm(use_running_average=True), X),
    "attention": (nets.attention(2), nn.MultiHeadDotProductAttention(2), floats(2, 5, 6)),
    "weight_norm": (nets.weight_norm(nets.conv(4, 3)), nn.WeightNorm(nn.Conv(4, (3, 3))), X),
    "lstm": (nets.rnn(nets.lstm_cell(4)), nn.RNN(nn.OptimizedLSTMCell(4)), SEQUENCE),
    "gru": (nets.rnn(nets.gru_cell(4)), nn.RNN(nn.GRUCell(4)), SEQUENCE),
    "mgu": (nets.rnn(nets.mgu_cell(4)), nn.RNN(nn.MGUCell(4)), SEQUENCE),
    "simple": (nets.rnn(nets.simple_cell(4)), nn.RNN(nn.SimpleCell(4)), SEQUENCE),
    "conv_lstm": (nets.rnn(nets.conv_lstm_cell(4, 3)), nn.RNN(nn.ConvLSTMCell(4, (3, 3))), floats(2, 3, 4, 4, 2)),
}  # fmt: skip
# name: (our network, Haiku's function, input, names)
HAIKU: dict[str, tuple[nets.Net, Callable[[Any], Any], jax.Array, Any]] = {
    "linear": (PAIR, dense_pair, floats(4, 5), None),
    "embed": (nets.embed(5, 4), lambda x: hk.Embed(5, 4, name="peer")(x), ids(3, 2), {"": "peer"}),
    "vector_quantise": (
        nets.serial(nets.vector_quantise(5), operator.itemgetter(0)),
        lambda x: hk.nets.VectorQuantizer(4, 5, 0.25, name="peer")(x, False)["quantize"],
        floats(3, 4),
        {"vector_quantise": "peer"},
    ),
    "conv": (nets.conv(4, 3), lambda x: hk.Conv2D(4, 3, name="peer")(x), X, {"": "peer"}),
    "depthwise_conv": (nets.depthwise_conv(3), lambda x: hk.DepthwiseConv2D(1, 3, name="peer")(x), X, {"": "peer"}),
    "conv_transpose": (
        nets.conv_transpose(4, 3, stride=2),
        lambda x: hk.Conv2DTranspose(4, 3, 2, name="peer")(x),
        X,
        {"": "peer"},
    ),
    "layer_norm": (
        nets.layer_norm(),
        lambda x: hk.LayerNorm(-1, create_scale=True, create_offset=True, name="peer")(x),
        floats(4, 5),
        {"": "peer"},
    ),
    "rms_norm": (
        nets.rms_norm(eps=1e-5),
        lambda x: hk.RMSNorm(-1, create_scale=True, name="peer")(x),
        floats(4, 5),
        {"": "peer"},
    ),
    "group_norm": (
        nets.group_norm(2),
        lambda x: hk.GroupNorm(2, name="peer")(x),
        floats(2, 3, 3, 4),
        {"": "peer"},
    ),
    "instance_norm": (
        nets.instance_norm(),
        lambda x: hk.InstanceNorm(True, True, name="peer")(x),
        floats(2, 3, 3, 4),
        {"": "peer"},
    ),
    "batch_norm": (
        nets.serial(norm=nets.batch_norm()),
        lambda x: hk.BatchNorm(True, True, 0.9, name="norm")(x, is_training=hk.running_init()),
        X,
        None,
    ),
    "attention": (
        nets.attention(2),
        lambda x: hk.MultiHeadAttention(2, 3, w_init=hk.initializers.VarianceScaling(1.0), name="peer")(x, x, x),
        floats(2, 5, 6),
        {"": "peer"},
    ),
    "lstm": (nets.rnn(nets.lstm_cell(4)), lambda x: unroll(hk.LSTM(4, name="peer"), x), SEQUENCE, {"": "peer"}),
    "gru": (
        nets.rnn(nets.gru_cell(4, reset="before")),
        lambda x: unroll(hk.GRU(4, name="peer"), x),
        SEQUENCE,
        {"": "peer"},
    ),
    "simple": (
        nets.rnn(nets.simple_cell(4, activation=jax.nn.relu)),
        lambda x: unroll(hk.VanillaRNN(4, name="peer"), x),
        SEQUENCE,
        {"": "peer"},
    ),
    "conv_lstm": (
        nets.rnn(nets.conv_lstm_cell(4, 3)),
        lambda x: unroll(hk.Conv2DLSTM((4, 4), 4, 3, name="peer"), x),
        floats(2, 3, 4, 4, 2),
        {"": "peer"},
    ),
}


def unroll(core: hk.RNNCore, x: jax.Array) -> Any:
    return hk.dynamic_unroll(core, x, core.initial_state(len(x)), time_major=False)[0]


def as_variables(net: nets.Net, made: Any) -> tuple:
    return made if isinstance(net, nets.StatefulNet) else (made,)


def assert_close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", FLAX)
def test_variables_of_flax_give_flaxs_outputs_and_go_back(name: str):
    net, module, x = FLAX[name]
    theirs = positive(jax.eval_shape(module.init, KEY, x))
    made = convert.from_flax(net, theirs, x)
    assert_close(outputs(net, as_variables(net, made), x), module.apply(theirs, x))
    back = convert.to_flax(net, made, x)
    assert jax.tree.structure(back) == jax.tree.structure(theirs)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b) if "conv_lstm" not in name else None, back, theirs)
    assert_close(module.apply(back, x), module.apply(theirs, x))


@pytest.mark.parametrize("name", HAIKU)
def test_parameters_of_haiku_give_haikus_outputs_and_go_back(name: str):
    net, function, x, names = HAIKU[name]
    module = hk.transform_with_state(function)
    theirs, state = positive(jax.eval_shape(module.init, KEY, x))
    given = (theirs, state) if isinstance(net, nets.StatefulNet) else theirs
    made = convert.from_haiku(net, given, x, names=names)
    expected = module.apply(theirs, state, None, x)[0]
    assert_close(outputs(net, as_variables(net, made), x), expected)
    back = convert.to_haiku(net, made, x, names=names)
    back, back_state = back if isinstance(net, nets.StatefulNet) else (back, state)
    assert jax.tree.structure(back) == jax.tree.structure(theirs)
    assert_close(module.apply(back, back_state, None, x)[0], expected)


def test_bidirectional_reads_flaxs():
    net = nets.bidirectional(nets.lstm_cell(4))
    module = nn.Bidirectional(nn.RNN(nn.LSTMCell(4)), nn.RNN(nn.LSTMCell(4)))
    theirs = positive(jax.eval_shape(module.init, KEY, SEQUENCE))
    assert_close(net.apply(convert.from_flax(net, theirs, SEQUENCE), SEQUENCE), module.apply(theirs, SEQUENCE))


def test_a_network_of_ones_own_keeps_its_names():
    @nets.define
    def own(x, *, scale=nets.param((5,), nets.ones), into=nets.linear(5)):
        return scale * into(x)

    x = floats(2, 5)
    params = own.init(KEY, x)
    found = convert.to_torch(own, params, x)
    assert sorted(found) == ["into.bias", "into.weight", "scale"]
    jax.tree.map(np.testing.assert_array_equal, convert.from_torch(own, found, x), params)


def test_wrappers_are_looked_through():
    x = floats(2, 5)
    net = nets.serial(block=nets.remat(nets.cast(nets.frozen(nets.linear(3)), compute="float32")))
    assert sorted(convert.to_torch(net, net.init(KEY, x), x)) == ["block.bias", "block.weight"]


def test_all_that_does_not_fit_is_listed():
    x = floats(4, 5)
    given = {"hidden.weight": zeros(4, 6), "hidden.bias": zeros(4), "head.weight": zeros(2, 4), "tail.weight": zeros(1)}
    with pytest.raises(convert.ConvertError) as caught:
        convert.from_torch(PAIR, given, x)
    assert str(caught.value) == (
        "serial(hidden=linear(4), head=linear(2)), from torch: 3 arrays do not fit:\n"
        "  missing head.bias (2,)\n"
        "  extra tail.weight (1,)\n"
        "  hidden.weight: expected (4, 5), got (4, 6)"
    )


def test_parameters_of_another_network_are_refused():
    x = floats(4, 5)
    with pytest.raises(convert.ConvertError, match=r"our own arrays: 2 arrays do not fit:\n  missing params/head/b"):
        convert.to_torch(PAIR, {"hidden": PAIR.init(KEY, x)["hidden"]}, x)


def test_two_arrays_of_one_name_are_refused():
    x = floats(4, 5)
    with pytest.raises(convert.ConvertError, match="a name of its own for every array"):
        convert.to_torch(PAIR, PAIR.init(KEY, x), x, names={"*": "same"})


def test_other_collections_of_flax_are_extra():
    theirs = {"params": {"kernel": zeros(5, 3), "bias": zeros(3)}, "cache": {"index": zeros()}}
    with pytest.raises(convert.ConvertError, match="extra cache"):
        convert.from_flax(nets.linear(3), theirs, floats(4, 5))


def test_a_pattern_that_matches_no_path_is_refused():
    x = floats(4, 5)
    with pytest.raises(convert.ConvertError, match=r"a path, got 'heads'\. There are 'head', 'hidden'\."):
        convert.to_torch(PAIR, PAIR.init(KEY, x), x, names={"heads": "fc", "head": "out"})


def test_a_pattern_under_a_longer_one_is_no_mistake():
    x, names = floats(4, 5), {"hidden": "first", "*": "any/*"}
    assert "any.head.bias" in convert.to_torch(PAIR, PAIR.init(KEY, x), x, names=names)


def test_frozen_mappings_are_read():
    theirs = freeze({"params": {"hidden": {"kernel": zeros(5, 4), "bias": zeros(4)}}, "batch_stats": {}})
    net = nets.serial(hidden=nets.linear(4))
    assert convert.from_flax(net, theirs, floats(4, 5))["hidden"]["w"].shape == (5, 4)


@nets.define
def masked(x, *, mask, norm=nets.batch_norm(), into=nets.linear(2)):
    return jnp.where(mask, norm(into(x)), 0)


@pytest.mark.parametrize("library", ["torch", "flax", "haiku"])
def test_inputs_by_name_reach_the_network(library: str):
    x, mask = floats(4, 5), jnp.ones((4, 1), bool)
    made = masked.init(KEY, x, mask=mask)
    theirs = getattr(convert, f"to_{library}")(masked, made, x, mask=mask)
    again = getattr(convert, f"from_{library}")(masked, theirs, x, mask=mask)
    jax.tree.map(np.testing.assert_array_equal, again, made)


def test_files_keep_names_values_and_dtypes(tmp_path: Path):
    path = tmp_path / "net.safetensors"
    arrays = {
        "w": jnp.arange(6.0, dtype=jnp.bfloat16).reshape(2, 3),
        "n": np.asarray(3, np.int32),
        "t": np.arange(6.0).reshape(2, 3).T[1:],
        "big": np.asarray([2**40]),
    }
    convert.save_safetensors(arrays, path)
    found = convert.load_safetensors(path)
    assert {name: (a.dtype, a.shape) for name, a in found.items()} == {
        "w": (jnp.bfloat16, (2, 3)),
        "n": (np.int32, ()),
        "t": (np.float64, (2, 2)),
        "big": (np.int64, (1,)),
    }
    for name, array in found.items():
        assert isinstance(array, np.ndarray)
        np.testing.assert_array_equal(array, arrays[name])


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path: Path):
    path = tmp_path / "net.safetensors"
    convert.save_safetensors({"w": jnp.ones(3)}, path)
    with pytest.raises(Exception, match=r".+"):
        convert.save_safetensors({"w": object()}, path)
    assert convert.load_safetensors(path)["w"].shape == (3,)
