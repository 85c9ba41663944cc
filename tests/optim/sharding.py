"""Optax's own tests of sharding over our links, on eight devices: run in a process of its own, by test_sharding."""

import importlib
import inspect
import re
import sys
import types
import unittest
from typing import Any

import jax
import optax

from .registry import LINKS
from .test_laws import OURS, calls_in
from .test_optax_suite import PLAYERS

OWN = OURS - {"chain", "plain_sgd", "masked", "partition", "freeze"}

EXCEPTIONS = {
    "asam": "patterns of paths, which the one array of these tests does not have",
    "sam every other step": "the same",
    "apply_if_finite of sam": "Optax's wrapper makes zeros that are not sharded",
    "competitive": "JAX's conjugate gradients lay arrays flat, which explicit axes refuse",
    "soap": "products over an axis that is sharded, whose outcome explicit axes want to be told",
}


def with_oracle(tx: Any) -> Any:
    """A link that is handed the gradient function of half the sum of squares, which the tests have no argument for."""
    into = (lambda tree: {"all": tree}) if calls_in(tx) & PLAYERS else lambda tree: tree
    back = (lambda tree: tree["all"]) if calls_in(tx) & PLAYERS else lambda tree: tree

    def loss(params: Any) -> Any:
        return into(optax.tree.norm(back(params), squared=True) / 2)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        extra = {"grad_fn": lambda params: params, "value_fn": loss, "value": 1.0}
        updates, state = tx.update(into(updates), state, into(params), **extra)
        return back(updates), state

    return optax.GradientTransformationExtraArgs(lambda params: tx.init(into(params)), update)


def main() -> int:
    """Runs the tests; the exit status says whether all passed."""
    assert jax.device_count() == 8
    ours = {
        name: with_oracle(build())
        for name, build in LINKS.items()
        if calls_in(build()) & OWN and name not in EXCEPTIONS
    }
    source = inspect.getsource(importlib.import_module("optax._src.sharding_test"))
    source, found = re.subn(r"\nOPTIMIZERS = \{\n.*?\n\}\n", "\nOPTIMIZERS = LINKS\n", source, flags=re.DOTALL)
    assert found
    # They compare versions as text, and so skip themselves from 0.10 on.
    source = re.sub(r"if jax.__version__ < '[\d.]+':", "if False:", source)
    module: Any = types.ModuleType("ours")
    module.LINKS = {name.replace(" ", "_"): tx for name, tx in ours.items()}
    exec(compile(source, "optax._src.sharding_test over our links", "exec"), vars(module))
    names = [name for name in unittest.TestLoader().getTestCaseNames(module.ShardingTest) if "microbatch" not in name]
    result = unittest.TextTestRunner(verbosity=0).run(unittest.TestSuite(map(module.ShardingTest, names)))
    print(result.testsRun, "tests over", len(ours), "links")
    return not (result.wasSuccessful() and result.testsRun == 3 * len(ours) and not result.skipped)


if __name__ == "__main__":
    sys.exit(main())
