"""What holds for every network of the registry."""

import functools
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

from . import registry
from .kit import Case, outputs, values, variables
from .registry import NETS

pytestmark = pytest.mark.usefixtures("quick_compiler")


class Made(NamedTuple):
    """A network of the registry with its initial values and its compiled `apply`, made once for all laws."""

    name: str
    case: Case
    net: nets.Net
    inputs: tuple
    variables: tuple
    jitted: Callable[..., Any]


@pytest.fixture(scope="module", params=NETS)
def made(request: pytest.FixtureRequest) -> Made:
    case = NETS[request.param]
    net, inputs = case.build(), values(case.inputs)
    jitted = jax.jit(net.apply, static_argnames="train")
    return Made(request.param, case, net, inputs, variables(net, jax.random.key(0), *inputs), jitted)


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


def test_init_from_shapes_equals_init_from_arrays(made: Made):
    assert_same(variables(made.net, jax.random.key(0), *made.case.inputs), made.variables)


def test_eval_shape_gives_what_init_makes(made: Made):
    abstract = jax.eval_shape(lambda key: variables(made.net, key, *made.case.inputs), jax.random.key(0))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), abstract) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), made.variables
    )


def test_same_key_gives_the_same_parameters_and_another_key_others(made: Made):
    assert_same(variables(made.net, jax.random.key(0), *made.inputs), made.variables)
    assert same(variables(made.net, jax.random.key(1), *made.inputs), made.variables) == made.case.constant


def test_a_sibling_leaves_the_initial_values_of_others(made: Made):
    sibling = nets.Net(lambda key, *inputs: {"s": jax.random.normal(key)}, lambda params, *inputs: params["s"])
    alone = variables(nets.parallel(net=made.net), jax.random.key(0), *made.inputs)
    among = variables(nets.parallel(before=sibling, net=made.net, after=sibling), jax.random.key(0), *made.inputs)
    assert set(among[0]) == {"before", "after", *alone[0]}
    assert_same([part.get("net") for part in among], [part.get("net") for part in alone])


def test_init_under_jit_and_vmap_over_keys_makes_a_stack_of_what_init_makes(made: Made):
    keys = jnp.stack([jax.random.key(0), jax.random.key(1)])
    stack = jax.jit(jax.vmap(lambda key: variables(made.net, key, *made.inputs)))(keys)
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


def test_a_batch_equals_its_examples(made: Made):
    apply = lambda *inputs: outputs(made.net, made.variables, *inputs)  # noqa: E731
    over_examples = jax.vmap(apply, made.case.in_axis, made.case.out_axis)
    together = made.jitted(*made.variables, *made.inputs)
    together = together[0] if isinstance(made.net, nets.StatefulNet) else together
    assert_close(together, jax.jit(over_examples)(*made.inputs))


@pytest.mark.parametrize("train", [False, True])
def test_jit_equals_no_jit(made: Made, train: bool):
    given = (*made.variables, *made.inputs)
    found = made.jitted(*given, key=jax.random.key(2), train=train)
    assert_close(found, made.net.apply(*given, key=jax.random.key(2), train=train))


def test_gradients_are_finite(made: Made):
    is_float = [jnp.issubdtype(x.dtype, jnp.floating) for x in made.inputs]
    params, *state = made.variables

    def loss(params: Any, floats: list) -> jax.Array:
        remaining = iter(floats)
        inputs = [next(remaining) if floating else x for x, floating in zip(made.inputs, is_float, strict=True)]
        found = outputs(made.net, (params, *state), *inputs, key=jax.random.key(3), train=True)
        return jnp.stack([jnp.sum(jnp.square(y)) for y in jax.tree.leaves(found)]).sum()

    floats = [x for x, floating in zip(made.inputs, is_float, strict=True) if floating]
    grads = jax.jit(jax.grad(loss, (0, 1)))(params, floats)
    assert jax.tree.structure(grads) == jax.tree.structure((params, floats))
    assert all(jnp.isfinite(grad).all() for grad in jax.tree.leaves(grads))


def test_same_key_gives_the_same_output_in_training_and_another_key_another_where_the_net_draws(made: Made):
    runs = [made.jitted(*made.variables, *made.inputs, key=jax.random.key(seed), train=True) for seed in (4, 4, 5)]
    assert_same(runs[0], runs[1])
    assert same(runs[1], runs[2]) != made.case.draws


def test_a_key_changes_nothing_outside_of_training(made: Made):
    without = made.jitted(*made.variables, *made.inputs)
    assert_same(made.jitted(*made.variables, *made.inputs, key=jax.random.key(6), train=False), without)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_outputs_have_the_dtype_of_float_inputs_and_parameters_stay_float32(made: Made, dtype: str):
    def cast(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, dtype if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype)

    with jax.enable_x64(dtype == "float64"):
        inputs = jax.tree.map(cast, made.case.inputs)
        abstract = jax.eval_shape(lambda key: variables(made.net, key, *inputs), jax.random.key(0))
        assert {leaf.dtype for leaf in jax.tree.leaves(abstract)} <= {jnp.dtype("float32")}
        for train in (False, True):
            apply = functools.partial(outputs, made.net, key=jax.random.key(0), train=train)
            found = {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(apply, made.variables, *inputs))}
            assert found == {inputs[0].dtype if inputs[0].dtype == dtype else jnp.dtype("float32")}


def test_training_leaves_the_structure_shapes_and_dtypes_of_state(made: Made):
    def state_after(*state: Any) -> list:
        found = made.net.apply(made.variables[0], *state, *made.inputs, key=jax.random.key(7), train=True)
        return [found[1]] if state else []

    state = list(made.variables[1:])
    assert jax.eval_shape(state_after, *state) == jax.eval_shape(lambda: state)


def test_a_network_prints_as_the_call_that_made_it(made: Made):
    assert eval(repr(made.net), vars(jax.nn) | vars(nets) | vars(registry)) == made.net


def test_networks_built_alike_are_equal_and_unlike_any_other(made: Made):
    again = made.case.build()
    assert again == made.net
    assert hash(again) == hash(made.net)
    assert [name for name, case in NETS.items() if case.build() == made.net] == [made.name]


def test_a_network_comes_back_from_pickle(made: Made):
    again = pickle.loads(pickle.dumps(made.net))
    assert again == made.net
    assert hash(again) == hash(made.net)
    assert repr(again) == repr(made.net)
    assert type(again) is type(made.net)


def test_a_network_built_again_is_not_traced_again(made: Made):
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def run(net: nets.Net, made_: tuple, *inputs: Any) -> Any:
        traced.append(net)
        return net.apply(*made_, *inputs)

    run(made.case.build(), made.variables, *made.inputs)
    run(made.case.build(), made.variables, *made.inputs)
    run(pickle.loads(pickle.dumps(made.net)), made.variables, *made.inputs)
    assert len(traced) == 1


def test_no_tracer_is_left_behind(made: Made):
    with jax.checking_leaks():
        jax.eval_shape(functools.partial(variables, made.net), jax.random.key(0), *made.inputs)
        for train in (False, True):
            apply = functools.partial(made.net.apply, key=jax.random.key(0), train=train)
            jax.eval_shape(apply, *made.variables, *made.inputs)
