"""A summary's paths are those of the parameters, and its numbers those that one counts by hand."""

import io
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from renga import nets

from .kit import floats, integers, values
from .made import marks
from .registry import NETS, small_convnet, tied


def rows(net: nets.Net, *inputs: jax.ShapeDtypeStruct, **keywords: Any) -> dict[str, Any]:
    return {row.path: row for row in nets.summary(net, *inputs, **keywords)}


def counts(net: nets.Net, *inputs: jax.ShapeDtypeStruct) -> tuple[int, int]:
    total = nets.summary(net, *inputs)[-1]
    return total.num_params, total.num_flops


def test_linear_costs_two_operations_a_weight_and_row_and_one_a_bias():
    assert counts(nets.linear(3), *floats(4, 5)) == (5 * 3 + 3, 4 * (2 * 5 * 3 + 3))
    assert counts(nets.linear(3, bias=False), *floats(4, 5)) == (5 * 3, 4 * 2 * 5 * 3)


def test_conv_costs_two_operations_a_weight_and_position():
    assert counts(nets.conv(4, 3, bias=False), *floats(2, 6, 5, 3)) == (9 * 3 * 4, 2 * 6 * 5 * 2 * 9 * 3 * 4)
    assert counts(nets.conv(4, 3, stride=2), *floats(6, 6, 3)) == (112, 9 * (2 * 9 * 3 * 4 + 4))
    assert counts(nets.conv(4, (5,), groups=2, bias=False), *floats(8, 6)) == (5 * 3 * 4, 8 * 2 * 5 * 3 * 4)


def test_mlp_costs_its_linear_maps_and_activations():
    assert counts(nets.mlp(6, 2), *floats(4, 5)) == (5 * 6 + 6 + 6 * 2 + 2, 4 * (2 * 5 * 6 + 6 + 6 + 2 * 6 * 2 + 2))


@pytest.mark.parametrize("combine", [nets.repeat, nets.ensemble])
def test_a_stack_costs_its_size_times_the_cost_of_one(combine: Callable[[nets.Net, int], nets.Net]):
    alone, stacked = rows(nets.mlp(6, 5), *floats(4, 5)), rows(combine(nets.mlp(6, 5), 7), *floats(4, 5))
    for path in ("layers/0", "layers/1", ""):
        assert stacked[path].num_params == 7 * alone[path].num_params
        assert stacked[path].num_flops == 7 * alone[path].num_flops


def test_a_define_costs_its_layers_and_what_the_body_does_itself():
    table = rows(small_convnet, *floats(2, 8, 8, 1))
    conv1, conv2, hidden, head = 2 * 64 * (2 * 9 + 1) * 4, 2 * 16 * (2 * 36 + 1) * 6, 2 * (2 * 24 + 1) * 8, 2 * 17 * 3
    relus, pools = 2 * (64 * 4 + 16 * 6 + 8), 2 * 3 * (16 * 4 + 4 * 6)
    assert [(path, row.num_params, row.num_flops) for path, row in table.items()] == [
        ("conv1", 40, conv1),
        ("conv2", 222, conv2),
        ("hidden", 200, hidden),
        ("head", 27, head),
        ("", 489, conv1 + conv2 + hidden + head + relus + pools),
    ]
    assert [row.output for row in table.values()] == ["(2, 8, 8, 4)", "(2, 4, 4, 6)", "(2, 8)", "(2, 3)", "(2, 3)"]


def test_a_child_called_in_a_scan_costs_every_step():
    one = counts(NETS["scan in the body"].build(), *floats(1, 4))[1]
    assert counts(NETS["scan in the body"].build(), *floats(9, 4))[1] == 9 * one


def test_a_lookup_costs_nothing_and_tied_weights_count_once():
    table = rows(tied, *integers(4, 3))
    assert table["tokens"].num_flops == 0
    assert table["hidden"].num_flops == 12 * (2 * 4 * 4 + 4)
    assert table[""] == ("", "tied", "(4, 3, 5)", 40, 160, 0, 12 * (2 * 4 * 4 + 4) + 2 * 12 * 4 * 5)


def test_training_is_counted_where_it_is_asked_for():
    asked, other = (rows(nets.serial(nets.dropout(0.5)), *floats(4, 5), train=train) for train in (True, False))
    assert asked[""].num_flops > other[""].num_flops == 0


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in NETS])
def test_every_parameter_stands_under_the_path_of_a_row(name: str):
    net, inputs, keywords = NETS[name].build(), NETS[name].inputs, dict(NETS[name].keywords)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), *inputs, **keywords))
    shapes = shapes[0] if isinstance(net, nets.StatefulNet) else shapes
    sizes: dict[str, int] = {}
    table = rows(net, *inputs, **keywords)
    for path, leaf in nets.flatten_params(shapes).items():
        above = [layer for layer in table if not layer or path == layer or path.startswith(f"{layer}/")]
        sizes |= {layer: sizes.get(layer, 0) + sum(part.size for part in jax.tree.leaves(leaf)) for layer in above}
    assert {path: row.num_params for path, row in table.items()} == {path: sizes.get(path, 0) for path in table}


def test_a_summary_prints_as_a_table():
    net = nets.serial(nets.linear(100), jax.nn.relu, head=nets.mlp(10, 10, activation=jnp.tanh))
    assert str(nets.summary(net, *floats(8, 64))) == "\n".join(
        [
            "path           layer                                             output    params    bytes    FLOPs",
            "-------------  ------------------------------------------------  --------  ------  -------  -------",
            "linear         linear(100)                                       (8, 100)   6,500    26 kB  103,200",
            "relu           function(relu)                                    (8, 100)       0      0 B      800",
            "head           mlp(10, 10, activation=tanh)                      (8, 10)    1,120  4.48 kB   17,840",
            "head/layers/0  linear(10)                                        (8, 10)    1,010  4.04 kB   16,080",
            "head/layers/1  linear(10)                                        (8, 10)      110    440 B    1,680",
            "-------------  ------------------------------------------------  --------  ------  -------  -------",
            "total          serial(linear(100), relu, head=mlp(10, 10, ac...  (8, 10)    7,620  30.5 kB  121,840",
        ]
    )


def test_a_summary_is_a_tuple_of_rows_with_the_network_last():
    table = nets.summary(nets.mlp(4, 2), *floats(3))
    assert [row.path for row in table] == ["layers/0", "layers/1", ""]
    assert table[-1].layer == "mlp(4, 2)"
    assert repr(table) == str(table)
    assert nets.summary(nets.mlp(4, 2), values(floats(3))[0]) == table
    assert nets.summary(nets.mlp(4, 2), jnp.ones(3)) == table


def test_parameters_take_the_bytes_of_their_dtype():
    half = nets.cast(nets.linear(3), params=jnp.bfloat16)
    assert nets.summary(nets.linear(3), *floats(4, 5))[-1].num_bytes == 4 * (5 * 3 + 3)
    assert nets.summary(half, *floats(4, 5))[-1].num_bytes == 2 * (5 * 3 + 3)


def test_state_is_counted_where_there_is_any():
    net = nets.serial(nets.linear(3), norm=nets.repeat(nets.batch_norm(), 4))
    table = nets.summary(net, *floats(4, 5))
    assert {row.path: row.num_state for row in table} == {"linear": 0, "norm": 24, "": 24}
    assert "state" in str(table).split("\n")[0]
    assert "state" not in str(nets.summary(nets.linear(3), *floats(4, 5)))


@pytest.mark.parametrize("size", [0, 999, 1000, 123456, 7_000_000, 2_500_000_000])
def test_bytes_are_printed_with_three_digits(size: int):
    @nets.define
    def net(x, *, w=nets.param((size,), nets.zeros, dtype="int8")):
        return x

    shown = {0: "0 B", 999: "999 B", 1000: "1 kB", 123456: "123 kB", 7_000_000: "7 MB", 2_500_000_000: "2.5 GB"}
    assert shown[size] in str(nets.summary(net, *floats(2)))


@jax.custom_vjp
def squared(x):
    return x * x


squared.defvjp(lambda x: (x * x, x), lambda x, grads: (2 * x * grads,))


@jax.custom_jvp
def cubed(x):
    return x * x * x


cubed.defjvp(lambda xs, tangents: (cubed(*xs), 3 * xs[0] ** 2 * tangents[0]))


@pytest.mark.parametrize(
    ("function", "num_flops"),
    [
        (squared, 20),
        (cubed, 40),
        (jax.jit(squared), 20),
        (jax.checkpoint(cubed), 40),
        (jax.checkpoint(jax.jit(squared)), 20),
        (jax.vmap(squared), 20),
        (lambda x: jax.lax.scan(lambda carry, row: (carry + row, squared(row)), x[0], x)[1], 40),
        (lambda x: jax.lax.fori_loop(0, 7, lambda _, x: x + 1, x), 140),
        (lambda x: jax.lax.cond(x[0, 0] > 0, squared, cubed, x), 40),
        (lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 9, squared, x), 20),
        (lambda x: x @ x.T, 2 * 4 * 5 * 4),
        (lambda x: jnp.sort(x.T[:, ::-1]).reshape(-1)[2:], 0),
        (lambda x: jnp.cumsum(x, 0), 20),
        (lambda x: jnp.sum(x * 2, 1), 40),
        (lambda x: jnp.fft.rfft(jnp.concatenate([x, x[:, :3]], 1)), 5 * 4 * 8 * 3),
        (lambda x: x > 0, 0),
    ],
)
def test_programs_inside_a_program_count_as_often_as_they_run(function: Callable[..., Any], num_flops: int):
    assert counts(nets.serial(function), *floats(4, 5))[1] == num_flops


def test_attention_costs_its_two_products_and_the_softmax():
    def attend(q, k, v):
        return jax.nn.dot_product_attention(q, k, v)

    flops = counts(nets.serial(attend), *floats(2, 7, 3, 8) * 3)[1]
    assert 2 * (2 * 2 * 3 * 7 * 7 * 8) <= flops <= 2 * (2 * 2 * 3 * 7 * 7 * 8) + 10 * 2 * 3 * 7 * 7


def test_a_transposed_conv_costs_its_kernel_at_every_input():
    net = nets.serial(lambda x, w: jax.lax.conv_transpose(x, w, (2, 2), "SAME"))
    assert counts(net, *floats(1, 5, 6, 3), *floats(3, 3, 3, 4))[1] == 2 * 5 * 6 * 3 * 9 * 4


def test_inputs_by_name_are_looked_at_too():
    @nets.define
    def net(x, *, head=nets.linear(3), mask=None):
        return head(x) if mask is None else head(x) * mask

    plain, masked = nets.summary(net, *floats(4, 5))[-1], nets.summary(net, *floats(4, 5), mask=floats(4, 1)[0])[-1]
    assert masked.num_flops == plain.num_flops + 12


def test_a_summary_prints_in_rich():
    from rich.console import Console

    console = Console(width=80, record=True, file=io.StringIO())
    console.print(nets.summary(nets.serial(nets.linear(4), nets.batch_norm()), *floats(8, 3)))
    shown = console.export_text()
    for words in ("path", "linear(4)", "batch_norm()", "total", "params", "state", "FLOPs", "8"):
        assert words in shown


def test_a_scatter_costs_what_it_adds():
    table = jnp.zeros((1000, 8))
    add = nets.serial(lambda x: table.at[:2].add(x))
    assert nets.summary(add, jnp.ones((2, 8)))[-1].num_flops == 16
    assert nets.summary(nets.serial(lambda x: table.at[:2].set(x)), jnp.ones((2, 8)))[-1].num_flops == 0
