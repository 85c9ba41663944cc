"""Products of curvature matrices with vectors: of Hessians, Gauss-Newton and Fisher matrices, never written out."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from .._call import recording
from ._checks import path_of
from ._returned import scalar

Vector = Any
Product = Callable[..., Vector]


@recording
def hvp(loss_fn: Callable[..., jax.Array]) -> Product:
    """Products of the Hessian of a loss with vectors, forward over reverse: about two gradients' time, and memory.

    Source: Pearlmutter 1994, https://doi.org/10.1162/neco.1994.6.1.147.

    Args:
      loss_fn: `loss_fn(params, *args) -> loss`, a scalar.
    Returns:
      `(params, vector, *args) -> H @ vector`. `vector` has the structure, shapes and dtypes of `params`, and so has the
      product.
    Raises:
      ValueError: when called, if `vector` is not like `params`.
      TypeError: when called, if the loss is no scalar.

    >>> loss_fn = lambda params: params["a"] ** 2 * params["b"]
    >>> params, vector = {"a": jnp.array(3.0), "b": jnp.array(5.0)}, {"a": 1.0, "b": 0.0}
    >>> jax.tree.map(float, hvp(loss_fn)(params, vector))
    {'a': 10.0, 'b': 6.0}
    """

    def product(params: Any, vector: Vector, *args: Any) -> Vector:
        vector = like("hvp", params, vector)
        grad_fn = jax.grad(lambda params: scalar("hvp", loss_fn(params, *args)))
        return jax.jvp(grad_fn, (params,), (vector,))[1]

    return product


@recording
def ggn_vp(outputs_fn: Callable[..., Any], output_loss: Callable[..., jax.Array]) -> Product:
    """Products of the generalised Gauss-Newton matrix `J.T @ H @ J` with vectors.

    `J` is the Jacobian of the outputs with respect to the parameters, `H` the Hessian of the loss with respect to the
    outputs. With a convex `output_loss` no eigenvalue is negative.

    Source: Schraudolph 2002, https://doi.org/10.1162/08997660260028683, section 3.

    Args:
      outputs_fn: `outputs_fn(params, *args) -> outputs`, any tree of arrays.
      output_loss: `output_loss(outputs, *args) -> loss`, a scalar.
    Returns:
      `(params, vector, *args) -> (J.T @ H @ J) @ vector`, like `params`, as `vector` is.
    Raises:
      ValueError: when called, if `vector` is not like `params`.
      TypeError: when called, if the loss is no scalar.

    >>> net = nets.linear(1)
    >>> outputs_fn = lambda params, batch: net.apply(params, batch["x"])
    >>> output_loss = lambda outputs, batch: squared_error(outputs, batch["y"])
    >>> batch = {"x": jnp.ones((4, 2)), "y": jnp.zeros((4, 1))}
    >>> params = net.init(jax.random.key(0), batch["x"])
    >>> ggn_vp(outputs_fn, output_loss)(params, jax.tree.map(jnp.ones_like, params), batch)["b"].tolist()
    [6.0]
    """

    def product(params: Any, vector: Vector, *args: Any) -> Vector:
        def curve(outputs: Any, tangent: Any) -> Any:
            return hvp(lambda outputs: scalar("ggn_vp", output_loss(outputs, *args)))(outputs, tangent)

        return _through("ggn_vp", lambda params: outputs_fn(params, *args), curve, params, vector)

    return product


@recording
def fisher_vp(
    outputs_fn: Callable[..., jax.Array], family: Literal["categorical", "bernoulli", "normal"] = "categorical"
) -> Product:
    """Products of the Fisher information matrix with vectors: the expectation over what the model itself would draw.

    The mean over all leading axes of the outputs, as the losses take it. For these families it is the Gauss-Newton
    matrix of the cross entropy, of the binary one times the size of the last axis, and of the squared error times half
    that size.

    Source: Martens 2014, https://arxiv.org/abs/1412.1193, sections 5 and 9.

    Args:
      outputs_fn: `outputs_fn(params, *args) -> outputs`, `[..., outputs]`.
      family: what the last axis of the outputs parameterises: the logits of a class; the logit of an independent bit
        each; the means of independent normal numbers of variance 1.
    Returns:
      `(params, vector, *args) -> F @ vector`, like `params`, as `vector` is.
    Raises:
      ValueError: for another family; when called, if `vector` is not like `params`.

    >>> apply = lambda w, x: x * w
    >>> fisher_vp(apply, "normal")(jnp.array([1.0]), jnp.array([1.0]), jnp.array([[1.0], [3.0]])).tolist()
    [5.0]
    """
    if family not in _INFORMATION:
        raise ValueError(f"fisher_vp: expected family to be one of {sorted(_INFORMATION)}, got {family!r}.")

    def product(params: Any, vector: Vector, *args: Any) -> Vector:
        def inform(outputs: jax.Array, tangent: jax.Array) -> jax.Array:
            return _INFORMATION[family](outputs, tangent) / (outputs.size // outputs.shape[-1])

        return _through("fisher_vp", lambda params: outputs_fn(params, *args), inform, params, vector)

    return product


@recording
def empirical_fisher_vp(loss_fn: Callable[..., jax.Array]) -> Product:
    """Products of the mean of `g @ g.T` with vectors, `g` being the gradient of the loss of one example.

    The per-example gradients are never written out. Their labels are those of the batch: at a distance from a minimum
    this is neither the Fisher matrix nor near a Hessian (Kunstner, Balles, Hennig 2019,
    https://arxiv.org/abs/1905.12558).

    Args:
      loss_fn: `loss_fn(params, batch, *args) -> loss`, a scalar, for a batch of one example too.
    Returns:
      `(params, vector, batch, *args) -> F @ vector`, like `params`, as `vector` is. `batch` is a tree of arrays
      `[examples, ...]`.
    Raises:
      ValueError: when called, if `vector` is not like `params`.
      TypeError: when called, if the loss is no scalar.

    >>> loss_fn = lambda w, x: jnp.mean(x * w)
    >>> empirical_fisher_vp(loss_fn)(jnp.array(1.0), jnp.array(1.0), jnp.array([1.0, 3.0])).item()
    5.0
    """

    def product(params: Any, vector: Vector, batch: Any, *args: Any) -> Vector:
        def losses(params: Any) -> jax.Array:
            def alone(example: Any) -> jax.Array:
                one = jax.tree.map(lambda leaf: leaf[None], example)
                return scalar("empirical_fisher_vp", loss_fn(params, one, *args))

            return jax.vmap(alone)(batch)

        return _through("empirical_fisher_vp", losses, lambda _, slopes: slopes / len(slopes), params, vector)

    return product


def like(name: str, params: Any, vector: Vector) -> Vector:
    """The vector, in the dtypes of `params`.

    Raises:
      ValueError: if its structure, or a shape, is another.
    """
    wanted, given = ({path_of(path): jnp.shape(leaf) for path, leaf in _leaves(tree)} for tree in (params, vector))
    for path in [*wanted, *given]:
        if wanted.get(path) != given.get(path):
            expected, got = (_shown(shapes.get(path)) for shapes in (wanted, given))
            raise ValueError(
                f"{name}: expected a vector like params, with {expected} at {path!r}, got {got}. "
                "Make it with jax.tree.map over params."
            )
    if jax.tree.structure(params) != jax.tree.structure(vector):
        raise ValueError(
            f"{name}: expected a vector like params, {jax.tree.structure(params)}, got {jax.tree.structure(vector)}. "
            "Make it with jax.tree.map over params."
        )
    return jax.tree.map(lambda leaf, part: jnp.asarray(part, jnp.result_type(leaf)), params, vector)


def _through(name: str, outputs_fn: Callable[[Any], Any], middle: Callable, params: Any, vector: Vector) -> Vector:
    """`J.T @ middle(J @ vector)`, from one pass through `outputs_fn`."""
    outputs, push = jax.linearize(outputs_fn, params)
    tangent = push(like(name, params, vector))
    (product,) = jax.linear_transpose(push, params)(middle(outputs, tangent))
    return product


def _softmax_information(logits: jax.Array, tangent: jax.Array) -> jax.Array:
    probs = jax.nn.softmax(logits)
    return probs * (tangent - jnp.sum(probs * tangent, -1, keepdims=True))


def _bit_information(logits: jax.Array, tangent: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(logits) * jax.nn.sigmoid(-logits) * tangent


_INFORMATION: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "categorical": _softmax_information,
    "bernoulli": _bit_information,
    "normal": lambda outputs, tangent: tangent,
}


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _shown(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else f"shape {shape}"
