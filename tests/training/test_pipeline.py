"""Pipelines: what `repeat` gives, and what is refused."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, training

ROOT = Path(__file__).parents[2]
BLOCK = nets.residual(nets.linear(4))
NET, X = nets.repeat(BLOCK, 2), jnp.ones((4, 4))


def made(**options: Any) -> Any:
    given: dict[str, Any] = {"num_microbatches": 2} | options
    return training.pipelined(BLOCK, jax.make_mesh((1,), ("stage",)), **given)


def test_over_four_devices_and_two_by_two_it_is_repeat_with_two_derivatives_and_a_run_of_fit():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    program = [sys.executable, "-m", "tests.training.over_stages"]
    result = subprocess.run(program, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | flags)
    assert (result.returncode, result.stdout) == (0, ""), result.stdout + result.stderr[-3000:]


def test_pipelines_made_alike_are_equal():
    assert made() == made()
    assert hash(made()) == hash(made())
    assert made() != made(num_microbatches=4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: made(axis="model"), "pipelined: expected axes of the mesh, ('stage',), got 'model'."),
        (lambda: made(batch="data"), "pipelined: expected axes of the mesh, ('stage',), got 'data'."),
        (
            lambda: made(batch="stage"),
            "pipelined: expected axis and batch to be different axes, got 'stage' and 'stage'.",
        ),
        (lambda: made(num_microbatches=0), "pipelined: expected num_microbatches to be"),
        (
            lambda: made(num_microbatches=3)(NET.init(jax.random.key(0), X), X),
            "pipelined: expected x to have a multiple of 3 rows, for 3 microbatches over 1 parts of the mesh, "
            "got shape (4, 4).",
        ),
        (lambda: made()(NET.init(jax.random.key(0), X), X[:0]), "pipelined: expected x to have a multiple of 2 rows"),
        (
            lambda: made()({"w": jnp.ones((2, 4)), "b": jnp.ones(3)}, X),
            "pipelined: expected params with a leading axis of blocks, a multiple of 1, the stages, got 2, 3.",
        ),
    ],
)
def test_what_cannot_be_dealt_out_is_refused(make: Any, message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        make()


@pytest.mark.parametrize("block", [nets.batch_norm(), jnp.tanh])
def test_a_block_with_state_is_refused(block: Any):
    with pytest.raises(TypeError, match=r"^pipelined: expected block to be a network without state, got "):
        training.pipelined(block, jax.make_mesh((1,), ("stage",)), num_microbatches=2)


def test_dropout_draws_for_every_block_and_microbatch():
    net, x = nets.repeat(nets.residual(nets.linear(100), nets.dropout(0.5)), 2), jnp.ones((4, 100))
    params = net.init(jax.random.key(0), x)
    mesh = jax.make_mesh((1,), ("stage",))
    apply = training.pipelined(nets.residual(nets.linear(100), nets.dropout(0.5)), mesh, num_microbatches=2)
    np.testing.assert_allclose(apply(params, x), net.apply(params, x), rtol=1e-5)
    y = apply(params, x, key=jax.random.key(1), train=True)
    kept = np.asarray(y[0] == y[1])
    assert not kept.all()
    np.testing.assert_array_equal(y, apply(params, x, key=jax.random.key(1), train=True))


def test_a_transformers_blocks_can_be_dealt_out():
    block = nets.serial(nets.residual(nets.attention(2, causal=True)), nets.residual(nets.feed_forward(8)))
    net, x = nets.repeat(block, 2), jnp.sin(jnp.arange(4 * 3 * 4.0)).reshape(4, 3, 4)
    params = net.init(jax.random.key(0), x)
    apply = training.pipelined(block, jax.make_mesh((1,), ("stage",)), num_microbatches=2)
    np.testing.assert_allclose(jax.jit(apply)(params, x), net.apply(params, x), rtol=1e-5, atol=1e-6)
