"""A summary's paths are those of the parameters, and its numbers those that one counts by hand."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from renga import nets

from .kit import floats, integers, values
from .registry import NETS, convnet, tied


def rows(net: nets.Net, *inputs: jax.ShapeDtypeStruct, train: bool = False) -> dict[str, Any]:
    return {row.path: row for row in nets.summary(net, *inputs, train=train)}


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
    table = rows(convnet, *floats(2, 8, 8, 1))
    conv1, conv2, hidden, head = 2 * 64 * (2 * 9 + 1) * 4, 2 * 16 * (2 * 36 + 1) * 6, 2 * (2 * 24 + 1) * 8, 2 * 17 * 3
    relus, pools = 2 * (64 * 4 + 16 * 6 + 8), 2 * 4 * (16 * 4 + 4 * 6)
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
    assert table[""] == ("", "tied", "(4, 3, 5)", 40, 12 * (2 * 4 * 4 + 4) + 2 * 12 * 4 * 5)


def test_training_is_counted_where_it_is_asked_for():
    asked, other = (rows(nets.serial(nets.dropout(0.5)), *floats(4, 5), train=train) for train in (True, False))
    assert asked[""].num_flops > other[""].num_flops == 0


@pytest.mark.parametrize("name", NETS)
def test_every_parameter_stands_under_the_path_of_a_row(name: str):
    net, inputs = NETS[name].build(), NETS[name].inputs
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    shapes = shapes[0] if isinstance(net, nets.StatefulNet) else shapes
    table = rows(net, *inputs)
    sizes: dict[str, int] = {}
    for path, leaf in jax.tree.leaves_with_path(shapes):
        full = jax.tree_util.keystr(path, simple=True, separator="/")
        layer = full if full in table else full.rpartition("/")[0]
        sizes[layer] = sizes.get(layer, 0) + leaf.size
    assert sizes == {path: table[path].num_params for path in sizes}
    assert table[""].num_params == sum(sizes.values())


def test_a_summary_prints_as_a_table():
    net = nets.serial(nets.linear(100), jax.nn.relu, head=nets.mlp(10, 10, activation=jnp.tanh))
    assert str(nets.summary(net, *floats(8, 64))) == "\n".join(
        [
            "path           layer                                             output    params    FLOPs",
            "-------------  ------------------------------------------------  --------  ------  -------",
            "linear         linear(100)                                       (8, 100)   6,500  103,200",
            "relu           function(relu)                                    (8, 100)       0      800",
            "head           mlp(10, 10, activation=tanh)                      (8, 10)    1,120   17,840",
            "head/layers/0  linear(10)                                        (8, 10)    1,010   16,080",
            "head/layers/1  linear(10)                                        (8, 10)      110    1,680",
            "-------------  ------------------------------------------------  --------  ------  -------",
            "total          serial(linear(100), relu, head=mlp(10, 10, ac...  (8, 10)    7,620  121,840",
        ]
    )


def test_a_summary_is_a_tuple_of_rows_with_the_network_last():
    table = nets.summary(nets.mlp(4, 2), *floats(3))
    assert [row.path for row in table] == ["layers/0", "layers/1", ""]
    assert table[-1].layer == "mlp(4, 2)"
    assert repr(table) == str(table)
    assert nets.summary(nets.mlp(4, 2), values(floats(3))[0]) == table
    assert nets.summary(nets.mlp(4, 2), jnp.ones(3)) == table
