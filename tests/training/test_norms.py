"""Norms by path against NumPy's, of gradients and of steps."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from renga import nets, optim, training
from renga.training import norms, with_grad_norms, with_norms

from ..optim.trees import assert_close

X = np.sin(np.arange(24.0, dtype=np.float32)).reshape(8, 3)
NET = nets.mlp(4, 1, activation=jnp.tanh)
PARAMS = NET.init(jax.random.key(0), X)
TX = optim.chain(optim.sam(0.1), optim.adam(0.1))


def loss_fn(params: Any, batch: Any, key: Any) -> jax.Array:
    return jnp.mean(NET.apply(params, batch) ** 2)


def expected(tree: Any) -> dict[str, Any]:
    return {
        f"layers/{number}/{name}": np.linalg.norm(tree["layers"][number][name]) for number in (0, 1) for name in "bw"
    } | {"": optax.tree.norm(tree)}


def test_every_array_and_all_of_them_have_a_norm():
    assert_close(jax.jit(norms)(PARAMS), expected(PARAMS))


def test_patterns_choose_arrays_and_the_whole_stays_the_whole():
    found = norms(PARAMS, "**/w", "layers/1/b")
    assert list(found) == ["layers/0/w", "layers/1/b", "layers/1/w", ""]
    assert_close(found[""], optax.tree.norm(PARAMS))


def test_a_single_array_and_complex_half_precision_and_empty_trees_have_norms():
    assert norms(jnp.array([3.0, 4.0])) == {"": 5.0}
    assert norms({"z": jnp.array([3.0 + 4.0j])})["z"] == 5
    half = norms({"h": jnp.full(4, 300.0, "float16")})["h"]  # whose squares are beyond float16
    assert (half, half.dtype) == (600, jnp.float32)
    assert norms({}) == {"": 0.0}


def test_the_gradients_norms_are_those_of_the_first_pass_and_the_step_is_the_same():
    step = jax.jit(training.step(with_grad_norms(loss_fn), TX, has_aux=True))
    found, metrics = step(training.init(PARAMS, TX), X)
    plain, _ = jax.jit(training.step(loss_fn, TX))(training.init(PARAMS, TX), X)
    assert_close(found, plain)
    grads = expected(jax.grad(loss_fn)(PARAMS, X, None))
    assert_close(metrics["grad_norm"], grads.pop(""))
    assert_close({path: metrics[f"grad_norm/{path}"] for path in grads}, grads)


def test_losses_with_metrics_and_state_keep_them():
    stateful = lambda w, state, x, key: (w * x * state, (state + 1, {"x": x}))  # noqa: E731
    loss, (state, metrics) = with_grad_norms(stateful, stateful=True)(2.0, 3.0, 5.0)
    assert (float(loss), float(state)) == (30, 4)
    assert {name: float(value) for name, value in metrics.items()} == {"x": 5, "grad_norm": 15}
    with_aux = lambda w, x, key: (w * x, {"x": x})  # noqa: E731
    _, metrics = with_grad_norms(with_aux, has_aux=True)(2.0, 5.0)
    assert {name: float(value) for name, value in metrics.items()} == {"x": 5, "grad_norm": 5}


def test_a_step_says_how_far_it_went():
    begin = training.init(PARAMS, TX)
    found, metrics = jax.jit(with_norms(training.step(loss_fn, TX), "layers/0/*"))(begin, X)
    moved = expected(jax.tree.map(jnp.subtract, found.params, PARAMS))
    names = {"update_norm/layers/0/b": moved["layers/0/b"], "update_norm/layers/0/w": moved["layers/0/w"]}
    names |= {"update_norm": moved[""], "params_norm": expected(PARAMS)[""], "loss": loss_fn(PARAMS, X, None)}
    assert_close(metrics, names)


def test_both_go_through_fit_and_several_steps_a_call():
    step = with_norms(training.step(with_grad_norms(loss_fn, "**/w"), TX, has_aux=True), "**/b")
    _, history = training.fit(step, training.init(PARAMS, TX), [X] * 4, num_steps=4, report_every=2, progress=False)
    assert sorted(history[0]) == [
        "grad_norm", "grad_norm/layers/0/w", "grad_norm/layers/1/w", "loss", "params_norm", "step",
        "update_norm", "update_norm/layers/0/b", "update_norm/layers/1/b",
    ]  # fmt: skip


def test_they_print_compare_and_hash_as_their_calls():
    steps = [with_norms(training.step(loss_fn, TX), "**/w") for _ in range(2)]
    losses = [with_grad_norms(loss_fn, "**/w") for _ in range(2)]
    assert steps[0] == steps[1]
    assert losses[0] == losses[1]
    assert hash(steps[0]) == hash(steps[1])
    assert repr(losses[0]) == "with_grad_norms(loss_fn, '**/w')"


def test_patterns_that_match_nothing_and_vectors_for_losses_are_refused():
    message = (
        "norms: expected a pattern that matches a path, got '**/weight'. "
        "There are 'layers/0/w', 'layers/1/w', 'layers/0/b', 'layers/1/b'."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        norms(PARAMS, "**/weight")
    message = "with_grad_norms: expected loss_fn to return a scalar loss, got shape (2,). Take its mean."
    with pytest.raises(TypeError, match=f"(?m)^{re.escape(message)}$"):
        with_grad_norms(lambda w, x, key: w * x)(1.0, jnp.ones(2))
