"""Values that are the call that made them: links, networks, schedules and steps rest on this."""

import copy
import functools
import pickle
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from renga import nets, optim, training
from renga._call import RecordedFunction, recording


@recording
def kept(value: Any, *, name: str = "kept") -> Callable[[], Any]:
    """A recorded constructor: what it returns, returns its argument."""
    return lambda: value


@recording
def kept_function(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A recorded constructor: it returns its argument."""
    return function


@recording
def listed(*values: Any, first: Any = None, **named: Any) -> Callable[[], Any]:
    """A recorded constructor with variadic arguments."""
    return lambda: (first, values, named)


def scaled(by: Any) -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        return by * x

    return function


def scaled_otherwise(by: Any) -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        return by * x

    return function


def scaled_by_default(by: Any) -> Callable[[Any], Any]:
    return lambda x, by=by: by * x


def scaled_by_keyword(by: Any) -> Callable[[Any], Any]:
    return lambda x, *, by=by: by * x


def countdown(start: int) -> Callable[[int], int]:
    def function(n: int) -> int:
        return function(n - 1) if n else start

    return function


class Scale:
    """Compares by identity, as objects do."""

    def method(self, x: Any) -> Any:
        return x


class Unhashable:
    """Compares by value, and so cannot be hashed."""

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __eq__(self, other: object) -> bool:
        return True


ONE, OTHER = Scale(), Scale()
ITSELF = Unhashable()
CYCLIC: list = [1]
CYCLIC.append(CYCLIC)

ALIKE: dict[str, Callable[[], Any]] = {
    "closures of one line over equal numbers": lambda: scaled(2.0),
    "closures over closures": lambda: scaled(scaled(2.0)),
    "closures over arrays": lambda: scaled(jnp.arange(3.0)),
    "closures over lists": lambda: scaled([1, {"a": jnp.ones(2)}]),
    "lambdas with equal defaults": lambda: scaled_by_default(2.0),
    "lambdas with equal keyword defaults": lambda: scaled_by_keyword(2.0),
    "functions at the top level": lambda: scaled,
    "functions of JAX": lambda: jax.nn.relu,
    "partials": lambda: functools.partial(scaled, by=jnp.ones(2)),
    "methods of one object": lambda: ONE.method,
    "arrays": lambda: jnp.arange(3.0),
    "NumPy's arrays": lambda: np.arange(3.0),
    "random keys": lambda: jax.random.key(3),
    "dicts": lambda: {"a": [1, 2.0], "b": {"c": np.ones(2)}},
    "tuples": lambda: (1, (2, "three"), None),
    "links": lambda: optim.chain(optim.sam(0.1), base=optim.adam(optim.cosine_decay_schedule(0.1, 9))),
    "links of Optax": lambda: optax.adam(optax.cosine_decay_schedule(0.1, 9)),
    "networks": lambda: nets.mlp(3, 4, activation=jnp.tanh),
    "dtypes": lambda: jnp.bfloat16,
    "itself, if it cannot be hashed": lambda: ITSELF,
    "a list that holds itself": lambda: CYCLIC,
    "closures that hold themselves": lambda: countdown(1),
}

UNLIKE: dict[str, tuple[Any, Any]] = {
    "closures over other numbers": (scaled(2.0), scaled(3.0)),
    "closures over other arrays": (scaled(jnp.arange(3.0)), scaled(jnp.arange(3.0) + 1)),
    "closures of two lines": (scaled(2.0), scaled_otherwise(2.0)),
    "lambdas with other defaults": (scaled_by_default(2.0), scaled_by_default(3.0)),
    "lambdas with other keyword defaults": (scaled_by_keyword(2.0), scaled_by_keyword(3.0)),
    "closures that hold themselves": (countdown(1), countdown(2)),
    "functions at the top level": (scaled, scaled_otherwise),
    "partials with other arguments": (functools.partial(scaled, 1), functools.partial(scaled, 2)),
    "partials of other functions": (functools.partial(scaled, 1), functools.partial(scaled_otherwise, 1)),
    "methods of two objects": (ONE.method, OTHER.method),
    "objects": (ONE, OTHER),
    "objects that cannot be hashed": (Unhashable(), Unhashable()),
    "arrays with other values": (jnp.zeros(2), jnp.ones(2)),
    "arrays of other shapes": (jnp.zeros((2, 1)), jnp.zeros((1, 2))),
    "arrays of other dtypes": (jnp.zeros(2, jnp.int32), jnp.zeros(2, jnp.float32)),
    "random keys": (jax.random.key(3), jax.random.key(4)),
    "a key and its data": (jax.random.key(3), jax.random.key_data(jax.random.key(3))),
    "an integer and a float": (1, 1.0),
    "an integer and a boolean": (1, True),
    "a number and an array": (1.0, jnp.array(1.0)),
    "a list and a tuple": ([1, 2], (1, 2)),
    "dicts with other values": ({"a": 1}, {"a": 2}),
    "dicts with other names": ({"a": 1}, {"b": 1}),
    "links": (optim.adam(0.1), optim.adam(0.2)),
    "networks": (nets.mlp(3, activation=jnp.tanh), nets.mlp(3, activation=jax.nn.relu)),
    "a link and a network of one name": (
        optim.scale(1.0),
        nets.layer(lambda by: nets.Net(None, lambda params, x: x))(1.0),
    ),
}


@pytest.mark.parametrize("build", ALIKE.values(), ids=ALIKE.keys())
def test_calls_with_arguments_built_alike_are_equal(build: Callable[[], Any]):
    first, second = kept(build()), kept(build())
    assert first is not second
    assert first == second
    assert hash(first) == hash(second)


@pytest.mark.parametrize(("first", "second"), UNLIKE.values(), ids=UNLIKE.keys())
def test_calls_with_other_arguments_are_not_equal(first: Any, second: Any):
    assert kept(first) != kept(second)
    assert kept([first]) != kept([second])


def test_calls_of_other_functions_are_not_equal():
    assert kept(1) != listed(1)
    assert optim.scale(0.1) != optim.scale_by_learning_rate(0.1)


def test_how_the_arguments_were_written_does_not_matter():
    written = [
        optim.adam(0.1),
        optim.adam(learning_rate=0.1),
        optim.adam(0.1, 0.9),
        optim.adam(b1=0.9, learning_rate=0.1),
    ]
    assert set(written) == {written[0]}
    assert {repr(tx) for tx in written} == {"adam(0.1)"}


def test_the_order_of_keywords_matters_only_where_the_function_sees_it():
    assert optim.adam(0.1, b1=0.8, b2=0.9) == optim.adam(0.1, b2=0.9, b1=0.8)
    assert listed(a=1, b=2) != listed(b=2, a=1)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (optim.adam(0.1, 0.8), "adam(0.1, b1=0.8)"),
        (optim.sgd(optim.linear_schedule(0.1, 0.0, 5)), "sgd(linear_schedule(0.1, 0.0, 5))"),
        (optim.adam(0.1, mu_dtype=jnp.bfloat16), "adam(0.1, mu_dtype=bfloat16)"),
        (optim.sam(jnp.float32(0.25)), "sam(0.25)"),
        (nets.mlp(3, activation=jax.nn.relu), "mlp(3)"),
        (nets.mlp(3, activation=jax.nn.gelu), "mlp(3, activation=gelu)"),
        (kept([1, "two", (3,), {"four": jnp.tanh}]), "kept([1, 'two', (3,), {'four': tanh}])"),
        (kept(np.arange(2)), "kept(array([0, 1]))"),
        (kept(1, name="kept"), "kept(1)"),
        (listed(1, 2, a=3), "listed(1, 2, a=3)"),
        (listed(first=1), "listed(first=1)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_prints_as_its_call(value: Any, shown: str):
    assert repr(value) == shown


def test_a_call_with_a_random_key_can_be_printed():
    assert "noisy_sgd(0.1, key=" in repr(optim.noisy_sgd(0.1, key=jax.random.key(3)))


def test_tracers_compare_by_identity():
    @jax.jit
    def build(x: jax.Array, y: jax.Array) -> jax.Array:
        assert optim.sam(x) == optim.sam(x)
        assert optim.sam(x) != optim.sam(y)
        assert hash(optim.sam(x)) == hash(optim.sam(x))
        assert repr(optim.sam(x)).startswith("sam(JitTracer(")
        return x

    build(1.0, 1.0)


def test_equal_functions_are_found_again_by_jit():
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def call(function: Callable[[Any], Any], x: Any) -> Any:
        traced.append(function)
        return function(x)

    for _ in range(2):
        call(optim.cosine_decay_schedule(0.1, 9), 3)
        call(kept_function(scaled(2.0)), 3)
    assert len(traced) == 2


@pytest.mark.parametrize(
    "build", [lambda: optim.adam(0.1), lambda: nets.mlp(3, activation=jax.nn.gelu), lambda: kept([scaled])]
)
def test_a_deep_copy_is_equal(build: Callable[[], Any]):
    again = copy.deepcopy(build())
    assert again == build()
    assert repr(again) == repr(build())


@pytest.mark.parametrize(
    "build",
    [
        lambda: optim.adam(0.1),
        lambda: nets.mlp(3, activation=jax.nn.gelu),
    ],
    ids=["numbers", "functions"],
)
def test_a_copy_is_equal(build: Callable[[], Any]):
    again = copy.copy(build())
    assert again == build()
    assert repr(again) == repr(build())


@pytest.mark.parametrize(
    "value",
    [
        nets.mlp(3, activation=jax.nn.relu),
        nets.mlp(3, activation=jax.nn.gelu),
        optim.adam(0.1, mu_dtype=jnp.bfloat16),
        optim.nadam(0.1),
        optim.scale_by_schedule(
            optim.join_schedules([optim.constant_schedule(0.1), optim.cosine_decay_schedule(0.1, 9)], [5])
        ),
        kept([jax.nn.relu, {"f": scaled}, (jnp.tanh, Scale)]),
        kept(optax.softmax_cross_entropy),
        training.step(optax.l2_loss, optim.chain(optim.sam(0.1), optim.sgd(0.1))),
    ],
    ids=repr,
)
def test_functions_that_are_found_by_name_are_pickled_by_it(value: Any):
    again = pickle.loads(pickle.dumps(value))
    assert again == value
    assert type(again) is type(value)
    assert repr(again) == repr(value)


def test_a_constructor_in_a_function_is_refused_by_pickle():
    @recording
    def local(value: int) -> Callable[[], int]:
        return lambda: value

    place = f"{__name__}:test_a_constructor_in_a_function_is_refused_by_pickle.<locals>.local"
    expected = f"local(3): expected a function at the top level of a module, got {place}. Move it out"
    with pytest.raises(pickle.PicklingError, match=f"^{re.escape(expected)}"):
        pickle.dumps(local(3))


def test_a_value_without_a_call_is_only_itself():
    first, second = (optim.Link(*optax.adam(0.1)) for _ in range(2))
    assert first == first
    assert first != second
    assert hash(first) != hash(second)
    assert repr(first).startswith("Link(init=<function")
    with pytest.raises(pickle.PicklingError, match=r"expected a value made by a recorded call, got one without\.$"):
        pickle.dumps(first)


def test_a_recorded_function_is_called_as_the_function_that_it_holds():
    schedule, own = optim.cosine_decay_schedule(0.1, 9), optax.cosine_decay_schedule(0.1, 9)
    assert isinstance(schedule, RecordedFunction)
    assert schedule.__name__ == "cosine_decay_schedule"
    assert [schedule(step) for step in range(9)] == [own(step) for step in range(9)]
    assert listed(1, first=2, a=3)() == (2, (1,), {"a": 3})


def test_a_constructor_keeps_its_name_docstring_and_signature():
    assert optim.sgd.__name__ == "sgd"
    assert optim.sgd.__doc__ == optax.sgd.__doc__
    assert optim.nadam.__name__ == "nadam"
    assert optim.nadam.__doc__ == optax.nadam.__doc__
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'learning_rate'"):
        optim.adam()  # pyright: ignore[reportCallIssue]
