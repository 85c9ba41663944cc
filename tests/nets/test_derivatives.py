"""First and second derivatives against finite differences, in double precision."""

import functools
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

from .kit import KEY, floats, outputs, values, variables
from .made import Made, cast, loss_of, make, over, split
from .registry import FAMILIES, NETS

OTHERS: dict[str, tuple[nets.Net, tuple[int, ...]]] = functools.reduce(
    lambda found, family: found | getattr(family, "DERIVATIVES", {}), FAMILIES, {}
)
STEP = 1e-6
# Those with derivatives of their own, or of roots and ratios; those of all others are JAX's.
WRITTEN_HERE = (
    *(
        "max_pool",
        "large max_pool",
        "overlapping min_pool",
        "adaptive_max_pool",
        "global_max_pool",
        "simple rnn",
        "lstm",
    ),
    *("gru", "gru, reset before", "mgu", "lru", "min_gru", "bidirectional", "conv lstm", "batch_norm", "layer_norm"),
    *(
        "instance_norm",
        "spectral_norm",
        "weight_norm",
        "attention",
        "vector_quantise",
        "remat",
        "frozen",
        "conv over two axes",
    ),
)


def check_derivatives(made: tuple, given: Any, apply: Callable[..., Any], without: Collection[str] = ()) -> None:
    """Compares derivatives along a line through parameters and inputs with central differences.

    Args:
      made: a network's variables. They are moved away from where they begin, so that zeros are none.
      given: its inputs and keywords.
      apply: `(variables, inputs, keywords) -> outputs`.
      without: "forward derivatives", "second derivatives".
    """
    (params, *state), given = cast((made, given), np.float64)
    at, merge = split((params, given))
    at = [x + 0.1 * np.sin(_count(x) + i) for i, x in enumerate(at)]
    along = [np.cos(_count(x) + i) for i, x in enumerate(at)]

    def loss(t: jax.Array) -> jax.Array:
        params, (inputs, arrays) = merge([x + t * v for x, v in zip(at, along, strict=True)])
        return loss_of(apply((params, *state), inputs, arrays))

    @jax.jit
    def reverse(t: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        """The loss and its slope; the slope and its own."""
        if "second derivatives" in without:
            return [jax.value_and_grad(loss)(t)]
        slope, bend = jax.value_and_grad(jax.grad(loss))(t)
        return [(loss(t), slope), (slope, bend)]

    before, here, after = (jax.device_get(reverse(t)) for t in (-STEP, 0.0, STEP))
    for (value, found), (low, _), (high, _) in zip(here, before, after, strict=True):
        assert value.dtype == np.float64 or not at
        np.testing.assert_allclose(found, (high - low) / (2 * STEP), rtol=1e-5, atol=1e-6 * (1 + abs(value)))
    if "forward derivatives" not in without:
        _, forward = jax.jit(lambda t: jax.jvp(loss, (t,), (1.0,)))(0.0)
        np.testing.assert_allclose(forward, here[0][1], rtol=1e-9, atol=1e-9)


def check(made: Made, without: Collection[str]) -> None:
    with jax.enable_x64(True):
        apply = functools.partial(made.run, key=KEY, train=True)
        check_derivatives(made.variables, (made.inputs, made.arrays), apply, without)


@over("derivatives", WRITTEN_HERE)
def test_first_and_second_derivatives_equal_finite_differences(made: Made):
    check(made, made.case.exempt)


def test_forward_and_second_derivatives_fail_where_a_net_is_exempt():
    for name, case in NETS.items():
        for law in {"forward derivatives", "second derivatives"} & set(case.exempt):
            with pytest.raises((AssertionError, TypeError, ValueError, NotImplementedError)):
                check(make(name), set(case.exempt) - {law})


@pytest.mark.parametrize("name", OTHERS)
def test_first_and_second_derivatives_of_other_nets_equal_finite_differences(name: str):
    net, shape = OTHERS[name]
    with jax.enable_x64(True):
        inputs = values(floats(*shape))
        check_derivatives(
            variables(net, KEY, *inputs),
            (inputs, {}),
            lambda made, inputs, _: outputs(net, made, *inputs, key=KEY, train=True),
        )


def test_a_wrong_derivative_is_found():
    @jax.custom_vjp
    def wrong(x: jax.Array) -> jax.Array:
        return x**2

    wrong.defvjp(lambda x: (x**2, x), lambda x, given: (2.001 * x * given,))
    with jax.enable_x64(True), pytest.raises(AssertionError):
        check_derivatives(
            ({},), ((jnp.arange(3.0),), {}), lambda _, inputs, __: wrong(*inputs), ["forward derivatives"]
        )


def _count(x: np.ndarray) -> np.ndarray:
    return np.arange(1.0, x.size + 1).reshape(x.shape)
