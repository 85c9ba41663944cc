"""Parameters by path: nothing is lost, nothing is chosen by accident, and what changed is said."""

import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renga import nets

from .kit import KEY, floats, values
from .registry import NETS, block, tower

PARAMS: dict[str, Any] = {
    "encoder": {"layers": [{"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}, {}, {"w": jnp.ones((3, 3))}]},
    "head": {"w": jnp.ones((3, 1)), "b": jnp.zeros(1)},
}
names = st.text("abw_.", min_size=1, max_size=3)
trees = st.recursive(
    st.integers(),
    lambda inside: st.dictionaries(names, inside, max_size=3) | st.lists(inside, max_size=3),
    max_leaves=8,
)


def paths(tree: Any) -> set[str]:
    return {path for path, leaf in nets.flatten_params(tree).items() if not isinstance(leaf, dict | list)}


@given(trees)
@settings(deadline=None)
def test_flattened_parameters_are_the_parameters(tree: Any):
    assert nets.unflatten_params(nets.flatten_params(tree)) == tree


@given(trees | st.dictionaries(st.sampled_from(["0", "1", "7"]), trees))
@settings(deadline=None)
def test_names_that_are_integers_are_told_from_positions_by_a_like_tree(tree: Any):
    assert nets.unflatten_params(nets.flatten_params({"a": tree}), like={"a": tree}) == {"a": tree}
    assert nets.rename_params({"a": tree}, {"a": "b/c"}) == {"b": {"c": tree}}


@given(trees, st.data())
@settings(deadline=None)
def test_a_partition_merges_to_what_it_was_made_of(tree: Any, data: st.DataObject):
    patterns = data.draw(st.lists(st.sampled_from(sorted(paths(tree)) or ["**"]), min_size=1, max_size=3))
    if not paths(tree):
        return
    chosen, rest = nets.partition_params(tree, *patterns)
    assert paths(chosen) == set(patterns)
    assert paths(rest) == paths(tree) - set(patterns)
    assert nets.merge_params(chosen, rest) == nets.merge_params(rest, chosen) == tree


@pytest.mark.parametrize("name", NETS)
def test_the_parameters_of_every_network_survive_the_flat_form_and_a_partition(name: str):
    case = NETS[name]
    made = jax.eval_shape(lambda: case.build().init(KEY, *values(case.inputs), **values(dict(case.keywords))))
    for tree in made if isinstance(made, tuple) else (made,):
        assert nets.unflatten_params(nets.flatten_params(tree), like=tree) == tree
        if jax.tree.leaves(tree):
            assert nets.merge_params(*nets.partition_params(tree, "**")) == tree


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        ("**", {"encoder/layers/0/w", "encoder/layers/0/b", "encoder/layers/2/w", "head/w", "head/b"}),
        ("**/b", {"encoder/layers/0/b", "head/b"}),
        ("head/**", {"head/w", "head/b"}),
        ("head/*", {"head/w", "head/b"}),
        ("*/w", {"head/w"}),
        ("encoder/**/w", {"encoder/layers/0/w", "encoder/layers/2/w"}),
        ("**/layers/0/**", {"encoder/layers/0/w", "encoder/layers/0/b"}),
        ("**/h??d/w", {"head/w"}),
        ("**/head/**/w/**", {"head/w"}),
    ],
)
def test_stars_stand_for_letters_and_double_stars_for_names(pattern: str, chosen: set[str]):
    flags = nets.flatten_params(nets.mask_params(PARAMS, pattern))
    assert {path for path, flag in flags.items() if flag is True} == chosen
    assert paths(nets.partition_params(PARAMS, pattern)[0]) == chosen


def test_a_list_keeps_its_positions_in_a_partition():
    chosen, rest = nets.partition_params(PARAMS, "encoder/layers/2/w")
    assert jax.tree.map(jnp.shape, chosen) == {"encoder": {"layers": [{}, {}, {"w": (3, 3)}]}}
    assert jax.tree.map(jnp.shape, rest["encoder"]["layers"]) == [{"w": (2, 3), "b": (3,)}, {}, {}]


def test_the_gradient_of_a_part_is_the_part_of_the_gradient():
    x = values(floats(4, 5))[0]
    params = tower.init(KEY, x)

    def loss_fn(params: Any) -> jax.Array:
        return sum((jnp.sum(head**2) for head in tower.apply(params, x).values()), jnp.zeros(()))

    whole = nets.partition_params(jax.grad(loss_fn)(params), "layers/2/**", "heads/a/w")[0]
    chosen, rest = nets.partition_params(params, "layers/2/**", "heads/a/w")
    part = jax.jit(jax.grad(lambda chosen: loss_fn(nets.merge_params(chosen, rest))))(chosen)
    assert not nets.compare(part, whole, rtol=1e-5, atol=1e-6)
    assert paths(part) == {"layers/2/w", "layers/2/b", "heads/a/w"}


def test_a_mask_is_what_optax_takes():
    tx = optax.masked(optax.scale(0.0), lambda params: nets.mask_params(params, "**/b"))
    updates, _ = tx.update(PARAMS["head"] | {"b": jnp.ones(1)}, tx.init(PARAMS["head"]))
    assert not nets.compare(updates, {"w": jnp.ones((3, 1)), "b": jnp.zeros(1)})


def test_parts_change_places_in_one_renaming():
    swapped = nets.rename_params({"a": {"w": 1.0}, "b": {"w": 2.0}, "c": 3.0}, {"a": "b", "b": "a", "c": "d/e"})
    assert swapped == {"b": {"w": 1.0}, "a": {"w": 2.0}, "d": {"e": 3.0}}
    assert nets.rename_params({"a": {"w": 1.0, "b": 2.0}}, {"a/w": "a/v"}) == {"a": {"v": 1.0, "b": 2.0}}
    assert nets.rename_params({"x": [1.0, {}]}, {"x": "y"}) == {"y": [1.0, {}]}


def test_a_part_is_read_by_its_path():
    assert nets.params_at(PARAMS, "encoder/layers/2/w") is PARAMS["encoder"]["layers"][2]["w"]
    assert nets.params_at(PARAMS, "encoder/layers/1") == {}
    assert nets.params_at(PARAMS, "encoder") is PARAMS["encoder"]


def test_blocks_of_a_stack_are_the_parameters_of_a_shallower_network():
    x = values(floats(4, 5))[0]
    params = {"repeat": nets.repeat(block(5), 4).init(KEY, x), "head": jnp.ones(2)}
    first, rest = (nets.slice_params(params, "repeat", part) for part in (slice(0, 3), slice(3, None)))
    halfway = nets.repeat(block(5), 3).apply(first["repeat"], x)
    whole = nets.repeat(block(5), 4).apply(params["repeat"], x)
    np.testing.assert_allclose(nets.repeat(block(5), 1).apply(rest["repeat"], halfway), whole, rtol=1e-6)
    last = nets.params_at(nets.slice_params(params, "repeat", -1), "repeat")
    np.testing.assert_allclose(block(5).apply(last, halfway), whole, rtol=1e-6)
    assert first["head"] is params["head"]


def test_a_wider_and_deeper_network_starts_from_the_smaller_ones_values():
    x = values(floats(4, 5))[0]
    small, large = nets.repeat(nets.linear(5), 2), nets.repeat(nets.linear(5), 3)
    old, initial = small.init(KEY, x), large.init(jax.random.key(1), x)
    grown, changes = nets.resize_params(old, initial)
    assert not nets.compare(nets.slice_params({"net": grown}, "net", slice(0, 2)), {"net": old})
    assert not nets.compare(nets.slice_params({"net": grown}, "net", 2), nets.slice_params({"net": initial}, "net", 2))
    assert [(row.path, row.kind) for row in changes] == [("b", "shape"), ("w", "shape")]
    cut, _ = nets.resize_params(grown, old)
    assert not nets.compare(cut, old)
    assert nets.resize_params(old, old)[1] == ()


def test_resized_parameters_have_the_dtypes_of_the_initial_ones_and_empty_layers_stay():
    resized, changes = nets.resize_params([{"w": jnp.ones(2)}, {}], [{"w": jnp.zeros(3, jnp.bfloat16)}, {}])
    assert resized[0]["w"].dtype == jnp.bfloat16
    assert resized[0]["w"].tolist() == [1.0, 1.0, 0.0]
    assert resized[1] == {}
    assert [row.kind for row in changes] == ["shape"]


def test_equal_trees_compare_as_nothing():
    assert nets.compare(PARAMS, jax.tree.map(np.asarray, PARAMS)) == ()
    assert str(nets.compare(PARAMS, PARAMS)) == "no difference"
    assert not nets.compare({"w": jnp.array([jnp.nan, jnp.inf])}, {"w": jnp.array([jnp.nan, jnp.inf])})
    assert not nets.compare({"key": jax.random.key(0)}, {"key": jax.random.key(0)})
    assert not nets.compare({"layers": [{}, jnp.ones(2)]}, {"layers": [{}, jnp.ones(2)]})


def test_every_kind_of_difference_is_told_apart():
    first = {"a": jnp.ones(3), "b": jnp.ones(3), "c": jnp.ones(3), "d": jnp.array([1.0, 2.0, 4.0]), "e": jnp.ones(1)}
    second = {"a": jnp.ones(2), "b": jnp.ones(3, jnp.bfloat16), "d": jnp.array([1.0, 2.5, 5.0]), "e": jnp.ones(1)}
    rows = {row.path: row for row in nets.compare(first, {**second, "f": jnp.ones(2)})}
    assert {path: row.kind for path, row in rows.items()} == {
        "a": "shape", "b": "dtype", "c": "missing", "d": "value", "f": "extra"
    }  # fmt: skip
    assert rows["d"][4:] == (2, 1.0, 0.2)
    assert rows["b"][2:4] == ("float32 (3,)", "bfloat16 (3,)")


def test_tolerances_let_small_differences_pass():
    first, second = {"w": jnp.array([1.0, 100.0])}, {"w": jnp.array([1.25, 101.0])}
    assert nets.compare(first, second)[0].num_entries == 2
    assert nets.compare(first, second, rtol=0.02)[0].num_entries == 1
    assert nets.compare(first, second, atol=0.25)[0].num_entries == 1
    assert not nets.compare(first, second, rtol=0.01, atol=0.25)
    assert nets.compare({"w": jnp.array([jnp.nan])}, {"w": jnp.array([1.0])}, atol=9.0)


def test_integers_keys_and_flags_compare_exactly():
    large = np.array([2**60, 3], np.int64)
    assert nets.compare({"n": large}, {"n": large + np.array([1, 0])})[0].num_entries == 1
    assert nets.compare({"key": jax.random.key(0)}, {"key": jax.random.key(1)})[0].kind == "value"
    assert nets.compare({"flag": jnp.array([True])}, {"flag": jnp.array([False])})[0].num_entries == 1


def test_shapes_compare_without_values():
    shapes = jax.eval_shape(nets.linear(3).init, KEY, *floats(2, 4))
    assert not nets.compare(shapes, nets.linear(3).init(KEY, jnp.ones((2, 4))))
    assert nets.compare(shapes, nets.linear(3).init(KEY, jnp.ones((2, 5))))[0].path == "w"


def test_a_comparison_prints_as_a_table_in_rich_too():
    from rich.console import Console

    found = nets.compare({"w": jnp.ones(2), "v": jnp.ones(1)}, {"w": jnp.array([1.0, 3.0])})
    assert (
        str(found)
        == repr(found)
        == "\n".join(
            [
                "path  differs  first         second        entries  max abs  max rel",
                "----  -------  ------------  ------------  -------  -------  -------",
                "w     value    float32 (2,)  float32 (2,)        1        2    0.667",
                "v     missing  float32 (1,)  -",
            ]
        )
    )
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(found)
    console.print(nets.compare({}, {}))
    assert "float32 (2,)" in console.export_text(clear=False)
    assert "no difference" in console.export_text()


def test_a_number_is_not_close_to_infinity():
    infinite = {"a": np.array([np.inf, 1.0, -np.inf])}
    assert nets.compare({"a": np.array([1.0, np.inf, -np.inf])}, infinite, rtol=1e-3)[0].num_entries == 2
    assert not nets.compare(infinite, infinite)


def test_dtypes_differ_that_jax_would_make_one():
    difference = nets.compare({"a": np.ones(2)}, {"a": np.ones(2, "float32")})[0]
    assert (difference.kind, difference.first) == ("dtype", "float64 (2,)")
