"""Optax's own tests, which ship in its wheel, over our links: what they ask of every optimizer of theirs.

Their sources are read, and the table of optimizers in them is replaced by ours. A link that looks elsewhere is handed
the gradient function of the test's own objective, which the tests have no argument for.
"""

import importlib
import inspect
import re
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from renga import optim

pytestmark = pytest.mark.long  # four minutes in all

sgd, adam = optim.sgd, optim.adam
# A link with settings that get to the minimum of their test functions within their numbers of steps.
LINKS: dict[str, tuple[Callable[..., Any], dict[str, float]]] = {
    "sam": (lambda learning_rate, rho: optim.chain(optim.sam(rho), adam(learning_rate)), {"rho": 1e-3}),
    "asam": (lambda learning_rate, rho: optim.chain(optim.asam(rho), adam(learning_rate)), {"rho": 1e-3}),
    "gsam": (lambda learning_rate, rho: optim.chain(optim.gsam(rho, alpha=0.1), adam(learning_rate)), {"rho": 1e-3}),
    "fisher_sam": (lambda learning_rate, rho: optim.chain(optim.fisher_sam(rho), adam(learning_rate)), {"rho": 1e-3}),
    "friendly_sam": (
        lambda learning_rate, rho: optim.chain(optim.friendly_sam(rho), adam(learning_rate)),
        {"rho": 1e-3},
    ),
    "look_sam": (
        lambda learning_rate, rho: optim.chain(optim.look_sam(rho, every=2, alpha=0.05), adam(learning_rate)),
        {"rho": 1e-3, "learning_rate": 1e-2},
    ),
    "optimistic_gradient": (
        lambda learning_rate: optim.optimistic_gradient(learning_rate, alpha=0.7, beta=0.1),
        {"learning_rate": 2e-3},
    ),
    "optimistic_adam of the paper": (optim.optimistic_adam, {"learning_rate": 1e-2}),
    "extragradient": (lambda learning_rate: optim.extragradient(adam(learning_rate)), {}),
    "extragradient_plus": (
        lambda learning_rate: optim.extragradient_plus(adam(learning_rate)),
        {"learning_rate": 1e-2},
    ),
    "past_extragradient": (
        lambda learning_rate: optim.past_extragradient(adam(learning_rate)),
        {"learning_rate": 1e-2},
    ),
    "anchored": (lambda learning_rate: optim.anchored(adam(learning_rate)), {"learning_rate": 1e-2}),
    "consensus": (
        lambda learning_rate, gamma: optim.chain(optim.consensus(gamma), adam(learning_rate)),
        {"gamma": 1e-3, "learning_rate": 1e-2},
    ),
    "symplectic_adjustment": (
        lambda learning_rate, strength: optim.chain(optim.symplectic_adjustment(strength), adam(learning_rate)),
        {"strength": 1.0},
    ),
    "lola": (lambda learning_rate, alpha: optim.chain(optim.lola(alpha), adam(learning_rate)), {"alpha": 0.1}),
    "sos": (lambda learning_rate, alpha: optim.chain(optim.sos(alpha), adam(learning_rate)), {"alpha": 0.1}),
    "competitive": (lambda learning_rate: optim.competitive(learning_rate), {"learning_rate": 1e-3}),
    "negative_momentum": (optim.negative_momentum, {"learning_rate": 1e-3}),
    "lookahead": (lambda learning_rate: optim.lookahead(adam(learning_rate), 5), {}),
    "accumulate": (lambda learning_rate: optim.accumulate(adam(learning_rate), 2), {}),
    "skip_not_finite": (lambda learning_rate: optim.skip_not_finite(adam(learning_rate)), {}),
    "ema_params": (lambda learning_rate: optim.chain(adam(learning_rate), optim.ema_params(0.9)), {}),
    "average_params": (lambda learning_rate: optim.chain(adam(learning_rate), optim.average_params()), {}),
    "low_bit": (lambda learning_rate: optim.low_bit(adam(learning_rate), key=0, min_size=1), {"learning_rate": 1e-2}),
    "low_bit of 16": (
        lambda learning_rate: optim.low_bit(adam(learning_rate), 16, key=0, min_size=1),
        {"learning_rate": 1e-2},
    ),
    "masked": (lambda learning_rate: optim.masked(optim.chain(optim.sam(1e-3), adam(learning_rate)), "**"), {}),
    "partition": (
        lambda learning_rate: optim.partition(
            {"one": optim.chain(optim.sam(1e-3), adam(learning_rate)), "other": sgd(0.1)}, {"**": "one"}
        ),
        {},
    ),
    "chain": (
        lambda learning_rate: optim.chain(optim.clip_by_global_norm(10.0), base=adam(learning_rate)),
        {"learning_rate": 1e-2},
    ),
}
ENTRIES = tuple(
    {"opt_name": name, "opt_kwargs": {"learning_rate": 0.1} | kwargs} for name, (_, kwargs) in LINKS.items()
)
PLAYERS = {"lola", "sos", "competitive"}  # over a dict of players: here of one

# Which tests a link does not pass, by words in their order in a test's name and arguments, and why.
FAILS: dict[str, tuple[str, str]] = {
    "optimistic_gradient": ("rosenbrock.*complex", "as slow there as Optax's own, which is skipped"),
    "negative_momentum": ("rosenbrock.*complex", "plain descent is too slow there"),
    "competitive": ("rosenbrock.*complex", "of one player it is plain descent, which is too slow there"),
    "low_bit": ("inject_hyperparams.*wrapper_name", "the test compares states by NumPy, which has no keys"),
    "low_bit of 16": ("inject_hyperparams.*wrapper_name", "the test compares states by NumPy, which has no keys"),
}

OBJECTIVE: list[Any] = [None, None]  # the test's own, and the shapes of its parameters


def recorded(initial: Any, final: Any, objective: Any) -> Any:
    """What a test starts from; its objective is noted."""
    OBJECTIVE[:] = [objective, jax.eval_shape(lambda: initial)]
    return initial, final, objective


def squares(params: Any) -> jax.Array:
    """The objective of the tests that set none up."""
    return sum(jnp.sum(jnp.abs(leaf) ** 2) for leaf in jax.tree.leaves(params))  # pyright: ignore[reportReturnType]


def with_oracle(name: str, factory: Callable[..., Any]) -> Callable[..., Any]:
    """The factory of a link whose `update` knows the gradient function of the test at hand."""
    into = (lambda tree: {"all": tree}) if name in PLAYERS else lambda tree: tree
    back = (lambda tree: tree["all"]) if name in PLAYERS else lambda tree: tree

    def loss(params: Any) -> Any:
        own = back(params)
        value = (OBJECTIVE[0] if jax.eval_shape(lambda: own) == OBJECTIVE[1] else squares)(own)
        return into(value)

    def grad_fn(params: Any) -> Any:
        return jax.tree.map(jnp.conj, jax.grad(lambda params: back(loss(params)))(params))

    def make(*args: Any, **kwargs: Any) -> Any:
        tx = factory(*args, **kwargs)

        def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
            extra = extra | {"grad_fn": grad_fn, "value_fn": loss}
            updates, state = tx.update(into(updates), state, into(params), **extra)
            return back(updates), state

        return optax.GradientTransformationExtraArgs(lambda params: tx.init(into(params)), update)

    make.__signature__ = with_schedules(inspect.signature(factory))  # pyright: ignore[reportFunctionMemberAccess]
    return make


def with_schedules(signature: inspect.Signature) -> inspect.Signature:
    """Says of a learning rate without annotation, a lambda's, that it may be a schedule; a constructor's stays."""
    rate = signature.parameters["learning_rate"]
    if rate.annotation is not rate.empty:
        return signature
    annotated = rate.replace(annotation=optax.ScalarOrSchedule)
    return signature.replace(parameters=list((dict(signature.parameters) | {"learning_rate": annotated}).values()))


OURS = types.SimpleNamespace(**{name: with_oracle(name, factory) for name, (factory, _) in LINKS.items()})


def theirs(module: str, tables: dict[str, Any]) -> Any:
    """A module of Optax's tests with other tables of optimizers."""
    source = inspect.getsource(importlib.import_module(module))
    for table in tables:
        given = re.compile(rf"\n{table} = ([(\[]\n.*?\n[)\]])\n", re.DOTALL)
        source, found = given.subn(f"\n{table} = OURS['{table}']\n", source, count=1)
        assert found, f"{module} has no {table}"
        source = re.sub(rf"\n{table} \+= \[\n.*?\n\]\n", "\n", source, flags=re.DOTALL)
    source = re.sub(r"return (initial_params, final_params, \w+)", r"return RECORDED(\1)", source)
    made: Any = types.ModuleType(f"{__name__}_{module.split('.')[-1]}")
    vars(made).update(OURS=tables, RECORDED=recorded)
    exec(compile(source, f"{module} over our links", "exec"), vars(made))
    made.alias = types.SimpleNamespace(**vars(OURS), sgd=sgd, adam=adam, adamw=optim.adamw)  # for explicit dtypes
    made.contrib = types.SimpleNamespace()
    return made


def cases(case: Any) -> list[Any]:
    """All tests of a class; those that fail are marked, and have to."""
    return [
        pytest.param(case, test, id=f"{test}-{_named(case, test)}", marks=_marks(case, test))
        for test in dir(case)
        if test.startswith("test_")
    ]


def _marks(case: Any, test: str) -> Any:
    words, reason = FAILS.get(_named(case, test), ("", ""))
    return pytest.mark.xfail(strict=True, reason=reason) if words and re.search(words, _text(case, test)) else ()


def _text(case: Any, test: str) -> str:
    return f"{test} {getattr(getattr(case, test), '__x_params_repr__', '')}"


def _named(case: Any, test: str) -> str:
    name = re.search(r"opt_name='([^']*)'", _text(case, test))
    return name[1] if name else ""


ALIAS = theirs("optax._src.alias_test", {"_OPTIMIZERS_UNDER_TEST": ENTRIES})
COMMON = theirs(
    "optax.contrib._common_test", {"_MAIN_OPTIMIZERS_UNDER_TEST": [*map(dict, ENTRIES)], "_BASE_OPTIMIZERS": []}
)


@pytest.mark.parametrize(("case", "test"), [*cases(ALIAS.AliasTest), *cases(COMMON.ContribTest)])
def test_optaxs_own_tests_pass_over_our_links(case: Any, test: str):
    result = case(test).run()
    for _, traceback in (*result.failures, *result.errors):
        pytest.fail(traceback)
    assert not result.skipped
