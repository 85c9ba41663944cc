"""Solvers that know a matrix by its products, against the matrix written down."""

import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import optim
from renga.training import conjugate_gradient, implicit, minimize, neumann


@pytest.fixture
def float64() -> Iterator[None]:
    """Everything in double precision."""
    with jax.enable_x64(True):
        yield


RANDOM = np.random.default_rng(0)
ROOTS = RANDOM.normal(size=(8, 8))
MATRIX, B = ROOTS @ ROOTS.T + np.eye(8), RANDOM.normal(size=8)


def product(x: Any) -> Any:
    return jnp.asarray(MATRIX) @ x


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("size", [1, 3, 8])
def test_conjugate_gradients_are_exact_in_as_many_steps_as_unknowns(size: int):
    matrix, b = jnp.asarray(MATRIX[:size, :size]), jnp.asarray(B[:size])
    found = jax.jit(lambda b: conjugate_gradient(size)(lambda x: matrix @ x, b))(b)
    np.testing.assert_allclose(found, np.linalg.solve(matrix, b), rtol=1e-9)


@pytest.mark.usefixtures("float64")
def test_conjugate_gradients_come_closer_with_every_step():
    exact = np.linalg.solve(MATRIX, B)
    found = [conjugate_gradient(steps)(product, jnp.asarray(B)) - exact for steps in range(1, 9)]
    errors = [float(error @ MATRIX @ error) for error in found]
    assert errors == sorted(errors, reverse=True)
    assert errors[6] > 1e-9
    assert errors[7] < 1e-20


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("num_steps", [9, 12, 40])
def test_further_steps_change_nothing(num_steps: int):
    np.testing.assert_allclose(
        conjugate_gradient(num_steps)(product, jnp.asarray(B)), np.linalg.solve(MATRIX, B), rtol=1e-9
    )


@pytest.mark.parametrize("num_steps", [2, 20])
def test_a_solved_system_stays_solved(num_steps: int):
    solver = conjugate_gradient(num_steps)
    np.testing.assert_array_equal(solver(lambda x: 2 * x, jnp.zeros(3)), np.zeros(3))
    np.testing.assert_array_equal(solver(lambda x: 2 * x, jnp.array([2.0, 4.0, 0.0])), [1, 2, 0])


@pytest.mark.usefixtures("float64")
def test_damping_is_added_to_the_diagonal():
    found = conjugate_gradient(8, damping=0.7)(product, jnp.asarray(B))
    np.testing.assert_allclose(found, np.linalg.solve(MATRIX + 0.7 * np.eye(8), B), rtol=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("num_terms", [1, 2, 9])
def test_neumanns_series_is_the_sum_of_its_terms(num_terms: int):
    powers = [np.linalg.matrix_power(np.eye(8) - 0.02 * MATRIX, k) for k in range(num_terms)]
    found = neumann(num_terms, 0.02)(product, jnp.asarray(B))
    np.testing.assert_allclose(found, 0.02 * sum(powers) @ B, rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_neumanns_series_converges_to_the_solution():
    rate = 1 / np.linalg.eigvalsh(MATRIX)[-1]
    found = jax.jit(lambda b: neumann(1500, rate)(product, b))(B)
    np.testing.assert_allclose(found, np.linalg.solve(MATRIX, B), rtol=1e-8)


@pytest.mark.parametrize("solver", [conjugate_gradient(3), neumann(400, 0.2)], ids=["cg", "neumann"])
def test_systems_of_trees_and_several_at_once_are_solved(solver: Any):
    def matvec(x: Any) -> Any:
        return {"a": 2 * x["a"] + x["b"].sum(), "b": 3 * x["b"] + x["a"]}

    matrix = np.array([[2.0, 1, 1], [1, 3, 0], [1, 0, 3]])
    rows = np.array([[1.0, 2, 3], [4, -5, 6], [0, 0, 0]], np.float32)
    found = jax.jit(jax.vmap(lambda row: solver(matvec, {"a": row[0], "b": row[1:]})))(rows)
    expected = np.linalg.solve(matrix, rows.T).T
    np.testing.assert_allclose(np.column_stack([found["a"], found["b"]]), expected, atol=1e-5)


def test_numbers_keep_their_type():
    b = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(3)}
    for solver in (conjugate_gradient(2, damping=0.1), neumann(9, 0.1)):
        found = solver(lambda x: jax.tree.map(lambda leaf: 2 * leaf, x), b)
        assert (found["a"].dtype, found["b"].dtype) == (jnp.bfloat16, jnp.float32)


def test_they_print_and_compare_as_their_calls():
    assert repr(implicit(neumann(3, 0.1))) == "implicit(neumann(3, 0.1))"
    assert {implicit(conjugate_gradient(3))} == {implicit(conjugate_gradient(3, damping=0.0))}


REFUSED: dict[str, tuple[Any, str]] = {
    "no step": (lambda: conjugate_gradient(0), "num_steps to be an integer of at least 1, got 0"),
    "half a step": (lambda: conjugate_gradient(0.5), "num_steps to be an integer of at least 1, got 0.5"),  # pyright: ignore[reportArgumentType]
    "damping": (lambda: conjugate_gradient(3, damping=-0.1), "damping to be at least 0, got -0.1"),
    "no term": (lambda: neumann(0, 0.1), "num_terms to be an integer of at least 1, got 0"),
    "rate": (lambda: neumann(3, 0.0), "learning_rate to be above 0, got 0.0"),
}


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_arguments_out_of_range_are_refused(build: Any, message: str):
    with pytest.raises(ValueError, match=rf"^(conjugate_gradient|neumann): expected {re.escape(message)}$"):
        build()


def test_complex_parameters_are_refused():
    solve = minimize(
        lambda w, *rest: jnp.sum(jnp.abs(w["a"]) ** 2), optim.sgd(0.1), 3, backward=implicit(conjugate_gradient(3))
    )
    message = "implicit: expected real parameters, got complex ones at a. Take unrolled(), or real and imaginary parts"
    with pytest.raises(TypeError, match=f"^{re.escape(message)} apart\\.$"):
        solve({"a": jnp.ones(2, jnp.complex64), "b": jnp.ones(2)}, None)
