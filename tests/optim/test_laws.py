"""What holds for every link of the registry."""

import functools
import inspect
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import lax

from renga import optim, training
from renga.optim import Link

from . import registry
from .registry import LINKS
from .trees import assert_close, assert_same, types

PARAMS = {"b": jnp.array([0.3, -0.2]), "w": jnp.array([[0.3, 0.9], [-0.2, -0.9], [0.4, 0.8]])}
C = jnp.array([1.1, -0.7])
BATCH = {"x": jnp.array([[0.1, 0.8, -0.4], [0.9, 0.2, 0.5]]), "y": jnp.array([[0.4, -0.3], [1.2, 0.6]]), "c": C}
BATCHES = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), BATCH)


class Made(NamedTuple):
    """A link of the registry and two steps with it, made once for all laws.

    Attributes:
      name: the link's in the registry.
      tx: the link.
      step: a training step with it.
      compiled: the step under `jax.jit`, which donates the train state.
      states: the train states before, between and after two steps with it.
      traces: how often `jax.jit` traced the step.
    """

    name: str
    tx: Any
    step: Callable[..., Any]
    compiled: Callable[..., Any]
    states: list[training.TrainState]
    traces: int


@pytest.fixture(scope="module", params=LINKS)
def made(request: pytest.FixtureRequest) -> Made:
    return make(request.param, LINKS[request.param]())


def make(name: str, tx: optax.GradientTransformation) -> Made:
    step, traced = step_with(tx), []

    @functools.partial(jax.jit, donate_argnums=0)
    def compiled(train_state: training.TrainState, batch: Any) -> Any:
        traced.append(name)
        return step(train_state, batch)

    states = two_steps(tx, step=lambda train_state, batch: compiled(copy_of(train_state), batch))
    return Made(name, tx, step, compiled, states, len(traced))


def step_with(tx: optax.GradientTransformation, like: Any = None) -> Callable[..., Any]:
    """A training step with a link; where it, or one like it, is for players, they share a loss."""
    if not calls_in(tx if like is None else like) & OF_PLAYERS:
        return training.step(loss_fn, tx)

    def step(train_state: training.TrainState, batch: Any) -> Any:
        params, opt_state, *_ = train_state
        found = optim.oracle(lambda params: dict.fromkeys(params, loss_fn(params, batch, None)), params)
        updates, opt_state = tx.update(found.grads, opt_state, params, **found.extra)
        params = optax.apply_updates(params, updates)
        return train_state._replace(params=params, opt_state=opt_state, step=train_state.step + 1), {}

    return step


def copy_of(tree: Any) -> Any:
    """The same values in arrays of their own."""
    return jax.tree.map(jnp.copy, tree)


def loss_fn(params: dict, batch: dict, key: None) -> jax.Array:
    """A loss of `w` and `b`, and of `c`, which is in the batch where it is no parameter."""
    predicted = jnp.tanh(batch["x"] @ params["w"]) * params.get("c", batch["c"]) + params["b"]
    return jnp.mean(jnp.square(predicted - batch["y"]))


def two_steps(
    tx: optax.GradientTransformation,
    params: Any = PARAMS,
    step: Callable[..., Any] | None = None,
) -> list[training.TrainState]:
    """The train states of two steps; every link gets `value`, `grad`, `value_fn` and `grad_fn`."""
    states, step = [training.init(copy_of(params), tx)], step or step_with(tx)
    for _ in range(2):
        states.append(step(states[-1], BATCH)[0])
    return states


def assert_params_close(states: list[training.TrainState], others: list[training.TrainState], **tolerance: Any) -> None:
    assert_close([state.params for state in states], [state.params for state in others], **tolerance)


def calls_in(value: Any) -> set[str]:
    """Names of all recorded calls in a value."""
    if isinstance(value, dict):
        return calls_in(list(value.values()))
    if isinstance(value, tuple | list) and not isinstance(value, Link):
        return set().union(*map(calls_in, value))
    call = getattr(value, "call", None)
    return {call.name} | calls_in(call.args) | calls_in(call.kwargs) if call else set()


def optaxs_own(value: Any) -> Any:
    """The same call, made with Optax's functions."""
    if isinstance(value, dict):
        return {name: optaxs_own(item) for name, item in value.items()}
    call = getattr(value, "call", None)
    return of_optax(call.name)(*map(optaxs_own, call.args), **optaxs_own(call.kwargs)) if call else value


def of_optax(name: str) -> Any:
    """Optax's function of a name."""
    return getattr(optax, name, None) or getattr(optax.contrib, name)


def arguments_of(tx: Link) -> dict[str, Any]:
    """The arguments of the call that made a link, defaults included."""
    assert tx.call is not None
    bound = inspect.signature(tx.call.function).bind(*tx.call.args, **tx.call.kwargs)
    bound.apply_defaults()
    return bound.arguments


OF_PLAYERS = {"lola", "sos"}
OURS = {
    name for name, item in vars(optim).items() if getattr(inspect.unwrap(item), "__module__", "").startswith("renga.")
}
OURS |= {"plain_sgd"}
RECORDED = [name for name, build in LINKS.items() if not calls_in(build()) & OURS]
WITH_FLOATS = [name for name, build in LINKS.items() if float in map(type, arguments_of(build()).values())]
NO_LINKS = {
    "link",
    "oracle",
    "eval_params",
    "get_hyperparams",
    "set_hyperparams",
    "to_config",
    "from_config",
    "describe",
}
HIDDEN = {"b": True, "w": True, "c": False}  # "c" is a parameter that the link does not see
SHOWN = jax.tree.map(lambda seen: not seen, HIDDEN)
FREEZE = optax.set_to_zero()
Law = Callable[[Made], None]


def takes_unknown_arguments(made: Made) -> None:
    def update(*args: Any, **extra: Any) -> Any:
        return made.tx.update(*args, **extra, unknown=object())

    tx = optax.GradientTransformationExtraArgs(made.tx.init, update)
    assert_close(two_steps(tx, step=step_with(tx, made.tx)), made.states)


def is_traced_once(made: Made) -> None:
    assert made.traces == 1


def survives_donation(made: Made) -> None:
    donated = two_steps(made.tx, step=made.compiled)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(donated[0].params))
    assert_same(donated[-1], made.states[-1])


def maps_params(made: Made) -> None:
    before = made.states[-1].opt_state
    found = object()
    after = optax.tree.map_params(made.tx, lambda leaf: found, before)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    # A leaf is of a parameter below its name; those that `grouped` lays end to end have none.
    names = {*map(jax.tree_util.DictKey, PARAMS), *map(jax.tree_util.GetAttrKey, ("together", "alone"))}
    of_params = [not names.isdisjoint(path) for path, leaf in jax.tree_util.tree_leaves_with_path(before)]
    assert [leaf is found for leaf in jax.tree.leaves(after)] == of_params


def stands_in_a_mask(made: Made) -> None:
    wrapped = optax.chain(optax.masked(made.tx, HIDDEN), optax.masked(FREEZE, SHOWN))
    assert_params_close(two_steps(wrapped, PARAMS | {"c": C}, step_with(wrapped, made.tx)), with_c(made.states))


def stands_in_a_partition(made: Made) -> None:
    wrapped = optax.partition({True: made.tx, False: FREEZE}, HIDDEN)
    assert_params_close(two_steps(wrapped, PARAMS | {"c": C}, step_with(wrapped, made.tx)), with_c(made.states))


def with_c(states: list[training.TrainState]) -> list[training.TrainState]:
    return [state._replace(params=state.params | {"c": C}) for state in states]


# What Optax's own links do not do, with the error that they end in.
# grad is not masked unless mask_compatible_extra_args=True
PREFIX = r"(?s)(pytree structure error: .*MaskedNode|Expected named tuple)"
DONATED_TWICE = (ValueError, jax.errors.JaxRuntimeError)  # the one from jit's fast path, the other from its slow one
EXCEPTIONS: dict[tuple[Law, str], tuple[type[Exception] | tuple[type[Exception], ...], str]] = {
    (is_traced_once, "lbfgs"): (AssertionError, "assert 2 == 1"),  # weakly typed numbers in its first state
    (takes_unknown_arguments, "lbfgs"): (TypeError, "Unexpected keyword arguments passed to `scale_by_zoom_linesearch"),
    (survives_donation, "lbfgs"): (DONATED_TWICE, "Attempt to donate the same buffer twice"),
    (maps_params, "lbfgs"): (IndexError, "list index out of range"),
    (stands_in_a_mask, "lbfgs"): (ValueError, PREFIX),
    (stands_in_a_partition, "lbfgs"): (ValueError, PREFIX),
    (survives_donation, "prodigy"): (DONATED_TWICE, "Attempt to donate the same buffer twice"),
}


def assert_law(law: Law, made: Made) -> None:
    """Holds the link to the law, or to the exception that is written down for it: it still needs it."""
    if (law, made.name) not in EXCEPTIONS:
        return law(made)
    error, match = EXCEPTIONS[law, made.name]
    with pytest.raises(error, match=match):
        law(made)
    return None


def test_every_public_function_of_optim_but_schedules_is_in_the_registry():
    public = {name for name, item in vars(optim).items() if inspect.isfunction(item)}
    used = set().union(*(calls_in(build()) for build in LINKS.values()))
    assert {"sam", "chain", "nadam", "freeze", "scale_by_rms", "cosine_decay_schedule"} <= public & used
    assert {name for name in public - used if not hasattr(optax.schedules, name)} == NO_LINKS | {
        "agreement",  # whose updates have an axis more
        "by_player",  # whose parameters are of its own players, in test_by_player.py
    }


def test_recorded_constructors_are_optaxs_own_functions():
    recorded = {name: item for name, item in vars(optim).items() if inspect.isfunction(item) and name not in OURS}
    for name in set(recorded) - NO_LINKS:
        function, own = inspect.unwrap(recorded[name]), of_optax(name)
        assert own in (function, getattr(function, "func", None)), name  # nadam is a partial, and has no name itself


def test_a_link_is_an_optax_transformation_with_extra_arguments(made: Made):
    assert isinstance(made.tx, optax.GradientTransformationExtraArgs)
    init, update = made.tx
    assert (init, update) == (made.tx.init, made.tx.update)


def test_the_second_step_is_not_traced_again(made: Made):
    assert_law(is_traced_once, made)


def test_steps_leave_structure_shapes_and_dtypes_of_the_state(made: Made):
    before, *after = map(types, made.states)
    assert after == [before, before]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_parameters_of_half_precision_leave_the_types_of_the_state_alone(made: Made, dtype: str):
    params, batch = jax.tree.map(lambda leaf: leaf.astype(dtype), (PARAMS, BATCH))
    before = jax.eval_shape(lambda: training.init(params, made.tx))
    after, _ = jax.eval_shape(made.step, before, batch)
    assert types(after) == types(before)
    assert {leaf.dtype for leaf in jax.tree.leaves(after.params)} == {jnp.dtype(dtype)}


def test_jit_equals_no_jit(made: Made):
    assert_close(two_steps(made.tx), made.states)


def test_a_step_can_be_scanned(made: Made):
    scan = functools.partial(lax.scan, made.step)  # refuses a carry whose structure, shapes or dtypes change
    assert types(jax.eval_shape(scan, made.states[0], BATCHES)[0]) == types(made.states[0])


def test_a_step_that_a_cond_may_leave_out_compiles(made: Made):
    def perhaps(flag: jax.Array, train_state: training.TrainState) -> training.TrainState:
        return lax.cond(flag, lambda: made.step(train_state, BATCH)[0], lambda: train_state)

    assert types(jax.eval_shape(perhaps, True, made.states[0])) == types(made.states[0])


def test_init_needs_shapes_and_dtypes_only(made: Made):
    shapes = jax.eval_shape(lambda: PARAMS)
    assert types(jax.eval_shape(made.tx.init, shapes)) == types(made.states[0].opt_state)


def test_a_link_stands_in_optaxs_chain(made: Made):
    wrapped = optax.chain(optax.identity(), made.tx, optax.identity())
    assert_params_close(two_steps(wrapped, step=step_with(wrapped, made.tx)), made.states)


def test_a_masked_link_steps_as_if_what_it_sees_were_all_there_is(made: Made):
    assert_law(stands_in_a_mask, made)


def test_a_link_in_a_partition_steps_as_if_what_it_sees_were_all_there_is(made: Made):
    assert_law(stands_in_a_partition, made)


@pytest.mark.parametrize("name", WITH_FLOATS)
def test_floats_may_be_injected(name: str):
    tx = LINKS[name]()
    assert tx.call is not None
    static = {argument for argument, value in arguments_of(tx).items() if type(value) is not float}
    injected = optax.inject_hyperparams(tx.call.function, static)(*tx.call.args, **tx.call.kwargs)
    expected = two_steps(tx)  # to three digits: 1 - b2 loses some in float32
    assert_params_close(
        two_steps(injected, step=step_with(injected, tx)), expected, rtol=1e-3, atol=1e-5
    )  # 1 - b2 loses digits in float32


def test_unknown_arguments_of_update_are_let_through(made: Made):
    assert_law(takes_unknown_arguments, made)


def test_a_link_works_on_donated_parameters_and_state(made: Made):
    assert_law(survives_donation, made)


def test_optax_finds_what_has_the_shape_of_parameters_in_the_state(made: Made):
    assert_law(maps_params, made)


@pytest.mark.parametrize("name", sorted({name for _, name in EXCEPTIONS}))
def test_the_exceptions_are_optaxs_own(name: str):
    own = make(name, optaxs_own(LINKS[name]()))
    for law, (error, match) in [(law, found) for (law, of), found in EXCEPTIONS.items() if of == name]:
        with pytest.raises(error, match=match):
            law(own)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_links_step_bitwise_as_optaxs_own(name: str):
    tx = LINKS[name]()
    assert_same(two_steps(tx), two_steps(optaxs_own(tx)))


def test_a_link_prints_as_the_call_that_made_it(made: Made):
    assert eval(repr(made.tx), vars(optim) | vars(registry)) == made.tx


def test_links_built_alike_are_equal_and_unlike_any_other(made: Made):
    again = LINKS[made.name]()
    assert again == made.tx
    assert hash(again) == hash(made.tx)
    assert [name for name, build in LINKS.items() if build() == made.tx] == [made.name]


def test_a_link_comes_back_from_pickle(made: Made):
    again = pickle.loads(pickle.dumps(made.tx))
    assert type(again) is type(made.tx)
    assert again == made.tx
    assert hash(again) == hash(made.tx)
    assert repr(again) == repr(made.tx)


def test_a_link_built_again_is_not_traced_again(made: Made):
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def update(tx: Link, x: jax.Array) -> jax.Array:
        traced.append(tx)
        return x

    for tx in (made.tx, LINKS[made.name](), pickle.loads(pickle.dumps(made.tx))):
        update(tx, C)
    assert len(traced) == 1


def test_a_step_with_a_link_built_again_is_equal(made: Made):
    if calls_in(made.tx) & OF_PLAYERS:
        pytest.skip("training.step takes one loss")
    again = training.step(loss_fn, LINKS[made.name]())
    assert again == made.step
    assert hash(again) == hash(made.step)
