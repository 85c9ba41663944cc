"""Options of the compiler: those that the installed one knows, and the same numbers with them."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, optim, training
from renga.training import _compiler


@pytest.fixture
def _other_options(monkeypatch):
    """Options of a backend that knows one of two."""
    monkeypatch.setattr(_compiler, "_CPU", {"xla_cpu_prefer_vector_width": "256", "xla_cpu_no_such_option": "1"})


def test_every_option_is_taken_by_the_compiler():
    found = jax.jit(jnp.sin, compiler_options=training.compiler_options())(1.0)
    np.testing.assert_allclose(found, np.sin(1.0), rtol=1e-6)


@pytest.mark.usefixtures("_other_options")
def test_an_option_that_the_compiler_does_not_know_is_left_out():
    assert training.compiler_options() == {"xla_cpu_prefer_vector_width": "256"}


@pytest.mark.usefixtures("_other_options")
def test_an_option_in_the_environment_is_left_to_it(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_prefer_vector_width=512")
    assert training.compiler_options() == {}


def test_another_backend_has_none(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert training.compiler_options() == {}


def test_a_step_with_convolutions_has_the_numbers_of_one_without_options():
    net, tx = nets.convnet((4,), 8, 3), optim.adam(1e-2)
    batch = {"x": jax.random.normal(jax.random.key(1), (4, 8, 8, 1)), "y": jnp.arange(4) % 3}

    def loss_fn(params, batch, key):
        return training.cross_entropy(net.apply(params, batch["x"]), batch["y"])

    step, begin = training.step(loss_fn, tx), training.init(net.init(jax.random.key(0), batch["x"]), tx)
    plain, with_options = (
        jax.jit(step, compiler_options=options)(begin, batch)[0].params for options in ({}, training.compiler_options())
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), plain, with_options)


def test_a_loop_reads_an_array_before_it_is_written():
    """XLA's region analysis of copies, which would save a tenth of some steps, writes too early here (jax 0.10)."""

    def both(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.lax.fori_loop(0, 3, lambda i, b: b.at[i].add(a[i]), b), a.at[0].set(b[-1])

    arrays = jnp.arange(7.0), jnp.arange(7.0) * 10
    found = jax.jit(both, compiler_options=training.compiler_options())(*arrays)
    assert [each.tolist() for each in found] == [[0, 11, 22, 30, 40, 50, 60], [60, 1, 2, 3, 4, 5, 6]]


def test_importing_sets_no_option_flag_variable_or_folder():
    program = (
        "import os, jax; before = dict(os.environ), dict(jax.config.values)\n"
        "import renga, renga.nets, renga.optim, renga.training, renga.training.cli\n"
        "assert before == (dict(os.environ), dict(jax.config.values))\n"
        "from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())"
    )
    flags = {"XLA_FLAGS": ""}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=os.environ | flags
    )
    assert (result.stdout, result.stderr) == ("False\n", "")
