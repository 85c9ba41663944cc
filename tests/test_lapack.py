"""Batches of factorizations: what one program may hold of them, on which backend."""

import functools
import itertools
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets, optim, training
from renga._lapack import after, in_turn

KEYS = jax.random.split(jax.random.key(0), 3)
ORTHOGONAL = {"orthogonal": (4, 4), "delta_orthogonal": (3, 4, 4)}

ENSEMBLES = """
import jax, jax.numpy as jnp
from renga import nets
net = nets.rnn(nets.lstm_cell(128))
init = jax.jit(jax.vmap(lambda key: net.init(key, jnp.zeros((2, 4)))))
for seed in range(60):
    jax.block_until_ready(init(jax.random.split(jax.random.key(seed), 4)))
"""


def batches(fn, *args, platform):
    """The numbers of axes of all that is factorized in the program of a function."""
    text = jax.jit(fn).trace(*args).lower(lowering_platforms=(platform,)).as_text()
    found = re.findall(r"call @(?:qr|eigh)\w*\(%\w+\) : \(tensor<([\dx]+)xf32>\)", text)
    return {len(shape.split("x")) for shape in found}


def symmetric(*shape):
    x = jax.random.normal(jax.random.key(1), shape)
    return x + x.mT


@pytest.mark.parametrize("name", ORTHOGONAL)
def test_matrices_of_an_ensemble_are_drawn_in_turn_on_cpus_and_at_once_elsewhere(name):
    def draw(keys):
        return jax.vmap(lambda key: getattr(nets, name)()(key, ORTHOGONAL[name]))(keys)

    assert batches(draw, KEYS, platform="cpu") == {2}
    assert batches(draw, KEYS, platform="cuda") == {3}


def test_soap_of_an_ensemble_takes_its_bases_in_turn_on_cpus_and_at_once_elsewhere():
    tx = optim.soap(0.1)
    params = {"w": jnp.ones((3, 4, 5))}
    state = jax.vmap(tx.init)(params)
    assert batches(jax.vmap(tx.update), params, state, params, platform="cpu") == {2}
    assert batches(jax.vmap(tx.update), params, state, params, platform="cuda") == {3}


@pytest.mark.parametrize("name", ORTHOGONAL)
def test_batches_of_initializers_draw_what_jax_draws(name):
    shape, theirs = ORTHOGONAL[name], getattr(jax.nn.initializers, name)(2.0, dtype=jnp.float32)
    ours, keys = getattr(nets, name)(2.0, dtype=jnp.float32), jax.random.split(jax.random.key(1), (2, 3))
    np.testing.assert_array_equal(ours(KEYS[0], list(shape)), theirs(KEYS[0], shape))
    for draw in (jax.vmap, lambda fn: jax.jit(jax.vmap(fn))):
        found, known = (draw(jax.vmap(lambda key, init=init: init(key, shape)))(keys) for init in (ours, theirs))
        np.testing.assert_allclose(found, known, rtol=1e-6)


def test_the_scale_of_an_orthogonal_initializer_has_a_derivative_and_may_be_traced():
    slope = jax.jit(jax.grad(lambda scale: jax.vmap(lambda key: nets.orthogonal(scale)(key, (4, 4)))(KEYS).sum()))(2.0)
    assert slope == pytest.approx(jax.vmap(lambda key: nets.orthogonal()(key, (4, 4)))(KEYS).sum().item(), rel=1e-5)


@pytest.mark.parametrize(("outer", "inner"), [*itertools.product([(0, 0), (0, None), (None, 0)], repeat=2)])
def test_batches_in_turn_are_those_at_once_whichever_arguments_have_them(outer, inner):
    def fn(x, y):
        return {"values": jnp.linalg.eigh(x).eigenvalues + y, "x": x}

    shapes = ([size for size, axes in ((2, outer), (3, inner)) if axes[each] == 0] for each in range(2))
    args = [symmetric(*shape, 4, 4)[(..., *part)] for shape, part in zip(shapes, ((), (0, 0)), strict=True)]
    found, known = (jax.vmap(jax.vmap(each, inner), outer)(*args) for each in (in_turn(fn), fn))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5), found, known)


@pytest.mark.parametrize("spec", [jax.P("members"), jax.P(None, "members"), jax.P("members", None)])
def test_batches_spread_over_devices_under_explicit_axes_stay_spread(spec):
    mesh = jax.make_mesh((1,), ("members",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        keys = jax.device_put(jax.random.split(KEYS[0], (2, 3)[: len(spec)]), spec)
        draw = functools.reduce(lambda fn, _: jax.vmap(fn), spec, lambda key: nets.orthogonal()(key, (4, 4)))
        assert jax.typeof(jax.jit(draw)(keys)).sharding.spec == jax.P(*spec, None, None)


def test_the_distance_of_frechet_factorizes_one_set_after_the_other():
    x = jax.random.normal(jax.random.key(0), (2, 6, 3))
    program, waits, later = jax.make_jaxpr(training.frechet_distance)(*x).jaxpr, [], set()
    for eqn in program.eqns:
        follows = any(id(place) in later for place in eqn.invars)
        factorizes = eqn.params.get("name") == "qr"
        waits += [follows] * factorizes
        later |= {id(place) for place in eqn.outvars} if follows or factorizes else set()
    assert waits == [False, True]


def test_what_waits_for_another_is_itself_and_passes_derivatives():
    x, other = jnp.arange(3.0), jnp.ones((2, 2))
    np.testing.assert_array_equal(after(x, other), x)
    assert jnp.isnan(after(x, jnp.full((1,), jnp.nan))).all()
    slopes = jax.grad(lambda x, other: (after(x, other) ** 2).sum(), (0, 1))(x, other)
    np.testing.assert_array_equal(slopes[0], 2 * x)
    np.testing.assert_array_equal(slopes[1], 0)
    assert after(x.astype(jnp.bfloat16), other).dtype == jnp.bfloat16


@pytest.mark.slow
def test_ensembles_of_recurrent_networks_begin_on_every_number_of_cores():
    subprocess.run([sys.executable, "-c", ENSEMBLES], check=True, timeout=120)
