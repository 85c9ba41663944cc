"""Arithmetic of parameter trees, in at least single precision, and safe to differentiate at zero."""

from typing import Any

import jax
import jax.numpy as jnp


def dot(tree: Any, other: Any) -> jax.Array:
    """The inner product of two trees, `[]` of float32 or wider."""
    products = jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(jnp.conj(wide(a)) * wide(b)).real, tree, other))
    return sum(products, start=jnp.zeros((), jnp.float32))


def square(tree: Any) -> jax.Array:
    """The square of a tree's l2 norm, `[]` of float32 or wider."""
    squares = [jnp.sum(squared(wide(leaf))) for leaf in jax.tree.leaves(tree)]
    return sum(squares, start=jnp.zeros((), jnp.float32))


def squared(leaf: Any) -> jax.Array:
    """The squares of sizes; its derivative at zero is zero for complex numbers too."""
    return (leaf * jnp.conj(leaf)).real


def over(numerator: Any, denominator: Any) -> jax.Array:
    """A quotient; zero, with a zero derivative, where the denominator is."""
    somewhere = denominator != 0
    return jnp.where(somewhere, numerator / jnp.where(somewhere, denominator, 1), 0)


def root(square: Any) -> jax.Array:
    """A square root whose derivative at zero is zero."""
    somewhere = square > 0
    return jnp.where(somewhere, jnp.sqrt(jnp.where(somewhere, square, 1)), 0)


def add(tree: Any, step: Any, factor: Any = 1) -> Any:
    """`tree + factor * step`, in the dtypes of `tree`."""
    return jax.tree.map(lambda a, b: (a + factor * b).astype(jnp.result_type(a)), tree, step)


def combine(function: Any, first: Any, *others: Any) -> Any:
    """A function of the leaves of trees, in the dtypes of the first."""
    return jax.tree.map(lambda a, *rest: jnp.asarray(function(a, *rest)).astype(jnp.result_type(a)), first, *others)


def conjugate(tree: Any) -> Any:
    """A tree's conjugate: JAX's gradients with respect to complex numbers are those of directions uphill."""
    return jax.tree.map(lambda leaf: jnp.conj(leaf) if jnp.iscomplexobj(leaf) else leaf, tree)


def select(which: Any, yes: Any, no: Any) -> Any:
    """One of two trees of equal types: bools, integers and keys too."""
    return jax.tree.map(lambda a, b: jnp.where(which, a, b), yes, no)


def wide(leaf: Any) -> jax.Array:
    """In at least single precision."""
    return leaf.astype(jnp.promote_types(jnp.result_type(leaf), jnp.float32))


def all_finite(tree: Any) -> jax.Array:
    """Whether every number of a tree is finite, `[]` of bool."""
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    # What is not finite, less itself, is NaN, and so is the sum. XLA on CPUs would hold an array of bools.
    return jnp.all(jnp.array([jnp.isfinite(jnp.sum(leaf - leaf)) for leaf in floats])) if floats else jnp.asarray(True)
