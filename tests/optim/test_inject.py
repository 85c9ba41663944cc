"""Numbers of a chain in its state: their paths, what they do, and that nothing else changes."""

import functools
import inspect
import pickle
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import lax

from renga import optim
from renga.optim import InjectHyperparamsState, get_hyperparams, inject_hyperparams, set_hyperparams

from .registry import LINKS
from .test_pairs import ALONE
from .trees import assert_close, assert_same, shown, types

PARAMS = {"b": jnp.array([0.3, -0.2]), "w": jnp.array([[0.3, 0.9], [-0.2, -0.9], [0.4, 0.8]])}
FALLING = optim.linear_schedule(0.4, 0.0, 4)


def loss(params: Any) -> jax.Array:
    return jnp.sum(jnp.square(jnp.tanh(params["w"]))) + jnp.sum(jnp.square(params["b"] - 0.1))


def game(params: Any) -> dict[str, jax.Array]:
    """The same as a loss of every player."""
    return dict.fromkeys(params, loss(params))


def stepped(tx: Any, state: Any, params: Any, loss: Any = loss) -> tuple[Any, Any]:
    """Parameters and state after one step."""
    found = optim.oracle(loss, params)
    updates, state = optax.with_extra_args_support(tx).update(found.grads, state, params, **found.extra)
    return optax.apply_updates(params, updates), state


def after(tx: Any, state: Any = None, params: Any = PARAMS, num_steps: int = 3, loss: Any = loss) -> tuple[Any, Any]:
    """Parameters and state after some steps."""
    state = tx.init(params) if state is None else state
    for _ in range(num_steps):
        params, state = stepped(tx, state, params, loss)
    return params, state


def paths_of(tx: Any, patterns: Any = "**") -> list[str]:
    return sorted(get_hyperparams(inject_hyperparams(tx, patterns).init(PARAMS)))


@pytest.mark.parametrize(
    ("tx", "paths"),
    [
        (optim.sgd(0.1), ["sgd/learning_rate"]),
        (optim.sgd(0.1, momentum=0.9), ["sgd/learning_rate", "sgd/momentum"]),
        (optim.chain(optim.sam(0.1), optim.sgd(0.1)), ["sam/rho", "sgd/learning_rate"]),
        (optim.chain(optim.scale(0.1), optim.scale(0.2)), ["scale/step_size", "scale_1/step_size"]),
        (optim.chain(optim.scale(0.1), last=optim.scale(0.2)), ["last/step_size", "scale/step_size"]),
        (
            optim.chain(optim.scale(1.0), optim.chain(optim.scale(0.1), optim.scale(0.2))),
            ["chain/scale/step_size", "chain/scale_1/step_size", "scale/step_size"],
        ),
        (
            optim.extragradient(optim.chain(optim.scale(0.1), optim.scale(0.2))),
            ["extragradient/scale/step_size", "extragradient/scale_1/step_size", "extragradient/stretch"],
        ),
        (
            optim.partition({"fast": optim.sgd(1.0), "slow": optim.sgd(0.1)}, {"**/b": "fast", "**": "slow"}),
            ["partition/fast/learning_rate", "partition/slow/learning_rate"],
        ),
        (optim.sgd(optim.constant_schedule(0.1)), ["sgd/learning_rate", "sgd/learning_rate/value"]),
        (
            optim.sgd(optim.join_schedules([optim.constant_schedule(0.1), optim.constant_schedule(0.2)], [3])),
            ["sgd/learning_rate", "sgd/learning_rate/schedules/0/value", "sgd/learning_rate/schedules/1/value"],
        ),
        (optim.sgd(optax.constant_schedule(0.1)), ["sgd/learning_rate"]),
        (optim.identity(), []),
        (optim.scale(2), []),
        (optim.chain(optax.sgd(0.1), optim.sgd(0.1)), ["sgd/learning_rate"]),
        (optim.accumulate(optim.sgd(0.1), 2), ["accumulate/sgd/learning_rate"]),
    ],
    ids=shown,
)
def test_every_number_has_one_path(tx: Any, paths: list[str]):
    assert paths_of(tx) == paths


def test_defaults_have_paths_too():
    assert paths_of(optim.adam(0.1)) == ["adam/b1", "adam/b2", "adam/eps", "adam/eps_root", "adam/learning_rate"]


@optim.link
def signed(rate: float, threshold: float) -> optax.GradientTransformation:
    """A link that decides in Python."""
    return optax.scale(-rate if threshold > 0 else rate)


def test_a_number_that_a_constructor_needs_in_python_stays_as_it_is():
    tx = signed(0.1, 0.5)
    assert paths_of(tx) == ["signed/rate"]
    assert_close(after(inject_hyperparams(tx))[0], after(tx)[0])


def test_patterns_choose_the_numbers_that_are_kept():
    tx = optim.chain(optim.sam(0.1), optim.adam(0.1))
    assert paths_of(tx, "**/learning_rate") == ["adam/learning_rate"]
    assert paths_of(tx, ["sam/*", "adam/b?"]) == ["adam/b1", "adam/b2", "sam/rho"]
    with pytest.raises(ValueError, match=r"^inject_hyperparams: .* got '\*\*/rate'\. There are 'adam/learning_rate', "):
        inject_hyperparams(tx, "**/rate")
    with pytest.raises(ValueError, match=r"^inject_hyperparams: expected tx without another one inside, got chain\("):
        inject_hyperparams(optim.chain(optim.sam(0.1), inject_hyperparams(optim.sgd(0.1))))
    groups = {"a/b": optim.sgd(0.1), "a": optim.chain(b=optim.sgd(0.2))}
    with pytest.raises(ValueError, match=r"a path for each number, got 'partition/a/b/learning_rate' for two\. Give"):
        inject_hyperparams(optim.partition(groups, {"b": "a/b", "**": "a"}))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ALONE else pytest.mark.long)
        for name in LINKS
        if name != "inject_hyperparams"
    ],
)
def test_a_chain_steps_as_it_does_without(name: str):
    tx, of = LINKS[name](), game if name.split()[0] in ("lola", "sos") else loss
    (plain, own), (params, state) = (after(each, num_steps=2, loss=of) for each in (tx, inject_hyperparams(tx)))
    assert_close(params, plain, rtol=1e-3, atol=1e-5)  # 1 - b2 loses digits in float32
    assert types(state.inner) == types(own)


@pytest.mark.parametrize("name", ["adam", "adamw", "lamb", "novograd", "clip_by_global_norm", "chain with sam"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_updates_and_states_keep_their_dtypes(name: str, dtype: str):
    tx, params = LINKS[name](), jax.tree.map(lambda leaf: leaf.astype(dtype), PARAMS)
    (plain, own) = jax.eval_shape(lambda: after(tx, params=params, num_steps=2))
    (found, state) = jax.eval_shape(lambda: after(inject_hyperparams(tx), params=params, num_steps=2))
    weak = [[leaf.weak_type for leaf in jax.tree.leaves(tree)] for tree in ((plain, own), (found, state.inner))]
    assert (types(found), types(state.inner)) == (types(plain), types(own))
    assert weak[0] == weak[1]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["adam", "adam with a schedule", "chain with sam", "rmsprop with momentum"])
def test_where_jax_has_64_bits_nothing_is_rounded(name: str):
    tx, params = LINKS[name](), jax.tree.map(lambda leaf: leaf.astype("float64"), PARAMS)
    state = inject_hyperparams(tx).init(params)
    assert {value.dtype.name for value in get_hyperparams(state).values()} == {"float64"}
    assert_close(after(inject_hyperparams(tx), params=params)[0], after(tx, params=params)[0], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("sgd/learning_rate", 0.01, optim.chain(optim.sam(0.1), optim.sgd(0.01, momentum=0.9))),
        ("sgd/momentum", 0.5, optim.chain(optim.sam(0.1), optim.sgd(0.1, momentum=0.5))),
        ("sam/rho", 0.3, optim.chain(optim.sam(0.3), optim.sgd(0.1, momentum=0.9))),
    ],
)
def test_a_number_that_is_set_is_the_one_that_counts(path: str, value: float, expected: Any):
    tx = inject_hyperparams(optim.chain(optim.sam(0.1), optim.sgd(0.1, momentum=0.9)))
    state = set_hyperparams(tx.init(PARAMS), {path: value})
    assert get_hyperparams(state)[path].item() == jnp.float32(value)
    assert_close(after(tx, state)[0], after(expected)[0])


def test_a_number_is_changed_without_compiling_again():
    tx, traced = inject_hyperparams(optim.chain(optim.sam(0.1), optim.adam(FALLING))), []

    @jax.jit
    def step(state: Any, params: Any) -> Any:
        traced.append(params)
        return stepped(tx, state, params)

    state, params = tx.init(PARAMS), PARAMS
    for value in (0.1, 2, jnp.float32(0.3), jnp.float16(0.4)):
        state = set_hyperparams(state, {"sam/rho": value, "adam/learning_rate/init_value": value})
        params, state = step(state, params)
    assert len(traced) == 1


def test_a_schedule_is_shown_at_its_path_and_its_numbers_below():
    tx = inject_hyperparams(optim.sgd(FALLING))
    params, state, seen = PARAMS, tx.init(PARAMS), []
    for _ in range(4):
        seen.append(get_hyperparams(state)["sgd/learning_rate"].item())
        params, state = stepped(tx, state, params)
    assert seen == pytest.approx([0.4, 0.4, 0.3, 0.2])  # before the first update it is that of the first
    higher = set_hyperparams(tx.init(PARAMS), {"sgd/learning_rate/init_value": 0.8})
    assert_close(after(tx, higher)[0], after(optim.sgd(optim.linear_schedule(0.8, 0.0, 4)))[0])


def test_a_sweep_is_one_vmap():
    tx, rates = inject_hyperparams(optim.chain(optim.sam(0.1), optim.adam(FALLING))), jnp.array([0.1, 0.2, 0.4])
    first = tx.init(PARAMS)
    states = jax.vmap(lambda rate: set_hyperparams(first, {"adam/learning_rate/init_value": rate}))(rates)
    found, _ = jax.vmap(lambda state: after(tx, state))(states)
    for index, rate in enumerate((0.1, 0.2, 0.4)):
        alone, _ = after(optim.chain(optim.sam(0.1), optim.adam(optim.linear_schedule(rate, 0.0, 4))))
        assert_close(jax.tree.map(lambda leaf, index=index: leaf[index], found), alone, rtol=1e-4, atol=1e-5)


def test_a_step_can_be_scanned_and_stands_in_optaxs_wrappers():
    tx = inject_hyperparams(optim.chain(optim.sam(0.1), optim.adam(FALLING)))
    plain, state = after(tx)
    (scanned, last), _ = lax.scan(
        lambda carry, _: (stepped(tx, *carry[::-1]), None), (PARAMS, tx.init(PARAMS)), None, 3
    )
    assert_close((scanned, last), (plain, state))
    for wrapped in (optax.apply_if_finite(tx, 3), optax.chain(optax.identity(), tx), optax.masked(tx, True)):
        params, state = after(wrapped)
        assert_close(params, plain)
        assert get_hyperparams(state)["sam/rho"].item() == jnp.float32(0.1)


def test_gradients_pass_through_the_numbers():
    tx = inject_hyperparams(optim.sgd(0.1))

    def last(rate: Any) -> jax.Array:
        return loss(after(tx, set_hyperparams(tx.init(PARAMS), {"sgd/learning_rate": rate}))[0])

    slope = (last(0.1 + 1e-2) - last(0.1 - 1e-2)) / 2e-2
    assert jax.grad(last)(0.1) == pytest.approx(slope.item(), rel=1e-2)


def test_a_scalar_array_keeps_its_dtype():
    tx = inject_hyperparams(optim.sgd(jnp.bfloat16(0.5)))  # pyright: ignore[reportArgumentType]
    state = tx.init(PARAMS)
    assert get_hyperparams(state)["sgd/learning_rate"].dtype == jnp.bfloat16
    assert_same(after(tx)[0], after(optim.sgd(jnp.bfloat16(0.5)))[0])  # pyright: ignore[reportArgumentType]


def test_a_chain_that_looks_elsewhere_is_still_known_to():
    assert inject_hyperparams(optim.chain(optim.sam(0.1), optim.sgd(0.1))).evaluates_gradient
    assert not inject_hyperparams(optim.sgd(0.1)).evaluates_gradient
    with pytest.raises(ValueError, match="at most one link that evaluates gradients"):
        optim.chain(inject_hyperparams(optim.sam(0.1)), optim.sam(0.1))


def test_it_prints_compares_hashes_and_pickles_as_its_call():
    build = functools.partial(inject_hyperparams, optim.chain(optim.sam(0.1), optim.adam(FALLING)))
    tx = build()
    assert repr(tx) == "inject_hyperparams(chain(sam(0.1), adam(linear_schedule(0.4, 0.0, 4))))"
    assert (tx, hash(tx), pickle.loads(pickle.dumps(tx))) == (build(), hash(build()), tx)


@pytest.mark.parametrize("tx", [optax.sgd(0.1), 0.1, optim.Link(*optax.sgd(0.1))])
def test_a_link_that_knows_no_call_is_refused(tx: Any):
    with pytest.raises(TypeError, match=r"expected a link that is the call that made it, such as optim.adam"):
        inject_hyperparams(tx)


def test_what_is_not_in_the_state_cannot_be_set():
    state = inject_hyperparams(optim.chain(optim.sam(0.1), optim.sgd(FALLING))).init(PARAMS)
    for path, value, message in [
        ("sgd/rho", 0.1, "set_hyperparams: expected a path of the state, got 'sgd/rho'. There are 'sam/rho', "),
        ("sgd/learning_rate", 0.1, "which follows a schedule. Set the schedule's own numbers. There are 'sgd/learning"),
        ("sam/rho", jnp.ones(2), "set_hyperparams: expected 'sam/rho' of shape (), got (2,)"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            set_hyperparams(state, {path: value})


@pytest.mark.parametrize("function", [get_hyperparams, lambda state: set_hyperparams(state, {"sgd/learning_rate": 1})])
def test_a_state_without_numbers_or_with_two_of_one_path_is_refused(function: Any):
    one = inject_hyperparams(optim.sgd(0.1)).init(PARAMS)
    assert isinstance(one, InjectHyperparamsState)
    with pytest.raises(ValueError, match=r"expected the state of a chain with inject_hyperparams, got none\. Wrap"):
        function(optim.sgd(0.1).init(PARAMS))
    with pytest.raises(ValueError, match=r"got \['sgd/learning_rate'\] of two\. Put one around the whole chain"):
        function((one, one))


@pytest.mark.parametrize(
    "constructor", [inject_hyperparams, optim.sam, optim.adam, optim.negative_momentum, optim.ema_params]
)
def test_optaxs_own_injection_takes_our_constructors(constructor: Any):
    if constructor is inject_hyperparams:
        made = inject_hyperparams(optim.sgd(0.1))
        tx, plain = optax.inject_hyperparams(lambda rate: optim.chain(made, optim.scale(rate)))(0.5), optim.sgd(0.05)
    else:  # integers stay integers where they are named
        static = {"every"} & set(inspect.signature(constructor).parameters)
        tx, plain = optax.inject_hyperparams(constructor, static)(0.1), constructor(0.1)
    assert_close(after(tx)[0], after(plain)[0], rtol=1e-4, atol=1e-5)
