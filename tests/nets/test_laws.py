"""What holds for every network of the registry."""

import functools
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

from .kit import KEY, variables
from .made import LAWS, Made, is_float, over
from .registry import NETS


def assert_same(tree: Any, other: Any) -> None:
    """Bitwise, in structure, shapes and dtypes too."""
    assert same(tree, other), f"{tree}\n\n{other}"


def assert_nearly_same(tree: Any, other: Any) -> None:
    """To the last digit, which a compiler rounds as it likes."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), tree, other)


def same(tree: Any, other: Any) -> bool:
    if jax.tree.structure(tree) != jax.tree.structure(other):
        return False
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)]
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


def assert_close(tree: Any, other: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), tree, other)


def test_every_exemption_is_from_a_law():
    assert {law for case in NETS.values() for law in case.exempt} <= set(LAWS)


def test_init_from_shapes_equals_init_from_arrays(made: Made):
    assert_same(variables(made.net, KEY, *made.case.inputs, **made.case.keywords), made.variables)


def test_eval_shape_gives_what_init_makes(made: Made):
    init = functools.partial(variables, made.net, **made.flags)
    abstract = jax.eval_shape(init, KEY, *made.inputs, **made.arrays)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), abstract) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), made.variables
    )


def test_same_key_gives_the_same_parameters_and_another_key_others(made: Made):
    init = functools.partial(variables, made.net)
    assert_same(init(KEY, *made.inputs, **made.keywords), made.variables)
    assert same(init(jax.random.key(1), *made.inputs, **made.keywords), made.variables) == made.case.constant


def test_a_sibling_leaves_the_initial_values_of_others(made: Made):
    @nets.define
    def alone(*inputs, net=made.net, **given):
        return net(*inputs, **given)

    @nets.define
    def among(*inputs, before=nets.linear(1), net=made.net, after=nets.linear(1), **given):
        return before(jnp.ones(1)), net(*inputs, **given), after(jnp.ones(1))

    one, three = (variables(net, KEY, *made.inputs, **made.keywords) for net in (alone, among))
    assert set(three[0]) == {"before", "after", *one[0]}
    assert_same([part.get("net") for part in three], [part.get("net") for part in one])


def test_init_under_jit_and_vmap_over_keys_makes_a_stack_of_what_init_makes(made: Made):
    keys = jnp.stack([KEY, jax.random.key(1)])
    stack = jax.jit(jax.vmap(lambda key: variables(made.net, key, *made.inputs, **made.keywords)))(keys)
    assert_nearly_same(jax.tree.map(lambda leaf: leaf[0], stack), made.variables)


def test_parameters_are_float32_arrays_in_dicts_and_lists(made: Made):
    def check(node: Any) -> None:
        if isinstance(node, dict):
            assert all(isinstance(name, str) for name in node)
            assert all(jax.tree.leaves(item) for item in node.values()), "an entry without arrays"
            for item in node.values():
                check(item)
        elif isinstance(node, list):
            for item in node:
                check(item)
        else:
            assert isinstance(node, jax.Array)
            assert node.dtype == jnp.float32

    for part in made.variables:
        assert isinstance(part, dict)
        check(part)


@pytest.mark.parametrize("train", [pytest.param(False, marks=pytest.mark.long), True])
def test_jit_equals_no_jit_on_arrays_of_numpy(made: Made, train: bool):
    found = made.jitted(*made.variables, *made.inputs, key=jax.random.key(2), train=train, **made.keywords)
    made_, inputs, arrays = jax.device_get((made.variables, made.inputs, made.arrays))
    with jax.debug_nans(True):
        plain = made.net.apply(*made_, *inputs, key=jax.random.key(2), train=train, **arrays, **made.flags)
    assert_close(found, plain)


def test_gradients_are_finite(made: Made):
    _, grads = made.graded(made.variables, made.inputs, made.arrays, train=True)
    floats = [x for x in jax.tree.leaves(made.inputs) if is_float(x)]
    assert jax.tree.structure(grads) == jax.tree.structure((made.variables[0], floats))
    assert all(jnp.isfinite(grad).all() for grad in jax.tree.leaves(grads))


def test_same_key_gives_the_same_output_in_training_and_another_key_another_where_the_net_draws(made: Made):
    apply = functools.partial(made.jitted, *made.variables, *made.inputs, train=True, **made.keywords)
    runs = [apply(key=jax.random.key(seed)) for seed in (4, 4, 5)]
    assert_same(runs[0], runs[1])
    assert same(runs[1], runs[2]) != made.case.draws


def test_a_key_changes_nothing_outside_of_training(made: Made):
    apply = functools.partial(made.jitted, *made.variables, *made.inputs, **made.keywords)
    assert_same(apply(key=jax.random.key(6), train=False), apply())


def test_training_leaves_the_structure_shapes_and_dtypes_of_state(made: Made):
    def state_after(*state: Any) -> list:
        given = (made.variables[0], *state, *made.inputs)
        found = made.net.apply(*given, key=jax.random.key(7), train=True, **made.keywords)
        return [found[1]] if state else []

    state = list(made.variables[1:])
    assert jax.eval_shape(state_after, *state) == jax.eval_shape(lambda: state)


def test_a_network_prints_as_the_call_that_made_it(made: Made):
    names = vars(jax.nn) | vars(jax.checkpoint_policies) | vars(nets) | made.case.build.__globals__
    assert eval(repr(made.net), names) == made.net


@pytest.fixture(scope="session")
def built() -> dict[nets.Net, set[str]]:
    """How the networks of the registry print, by network: some are there with several inputs."""
    found: dict[nets.Net, set[str]] = {}
    for case in NETS.values():
        found.setdefault(case.build(), set()).add(repr(case.build()))
    return found


def test_networks_built_alike_are_equal_and_unlike_any_other(made: Made, built: dict[nets.Net, set[str]]):
    again = made.case.build()
    assert again == made.net
    assert hash(again) == hash(made.net)
    assert built[made.net] == {repr(made.net)}


def test_a_network_comes_back_from_pickle(made: Made):
    again = pickle.loads(pickle.dumps(made.net))
    assert again == made.net
    assert hash(again) == hash(made.net)
    assert repr(again) == repr(made.net)
    assert type(again) is type(made.net)


def test_a_network_built_again_is_not_traced_again(made: Made):
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def run(net: nets.Net, made_: tuple, *inputs: Any, **arrays: Any) -> Any:
        traced.append(net)
        return net.apply(*made_, *inputs, **arrays, **made.flags)

    run(made.case.build(), made.variables, *made.inputs, **made.arrays)
    run(made.case.build(), made.variables, *made.inputs, **made.arrays)
    run(pickle.loads(pickle.dumps(made.net)), made.variables, *made.inputs, **made.arrays)
    assert len(traced) == 1


@over("structures")
def test_an_input_of_another_structure_is_refused_with_its_path(made: Made):
    first, *others = made.inputs
    for wrong in ((first, first), {"x": first}, None, "x", jax.random.key(1)):
        for attempt in (made.net.init, functools.partial(made.net.apply, *made.variables)):
            given = (KEY, wrong) if attempt is made.net.init else (wrong,)
            with pytest.raises(nets.NetError) as caught:
                attempt(*given, *others, **made.keywords)
            assert str(caught.value).startswith(made.net.name)
