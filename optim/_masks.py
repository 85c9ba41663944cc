"""Links for some of the parameters, which patterns of paths choose."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import optax

from .._patterns import matching
from ._link import check_link, link
from ._oracle import over_own

Patterns = str | Sequence[str]


@link
def masked(
    inner: optax.GradientTransformation, mask: Any, *, mask_compatible_extra_args: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Applies a link to some parameters; the updates of all others pass as they are.

    What looks elsewhere inside asks for the gradient of its own parameters alone: those that it does not see are filled
    in where they stand. To hold parameters still, use `freeze`.

    Args:
      inner: the link.
      mask: patterns of paths, such as `"**/w"` or `("encoder/**", "head/b")`; or as Optax has it, a tree of bools, of
        which one may stand for all below it, or a function from parameters to that.
      mask_compatible_extra_args: whether extra arguments of the parameters' structure, such as `grad`, are masked too.
    Returns:
      A link with the state of `optax.masked`.
    Raises:
      TypeError: if `inner` is no link.
      ValueError: from `init` and `update`, if a pattern matches no path, with the paths that there are.

    >>> tx = masked(sgd(0.1), "**/w")
    >>> params = {"head": {"w": jnp.array(1.0), "b": jnp.array(1.0)}}
    >>> updates, _ = tx.update(params, tx.init(params), params)
    >>> round(updates["head"]["w"].item(), 3), updates["head"]["b"].item()
    (-0.1, 1.0)
    """
    inner = check_link("masked", "inner", inner)
    chosen = (lambda tree: matching_leaves("masked", tree, mask)) if _are_patterns(mask) else mask
    return _filling(optax.masked(inner, chosen, mask_compatible_extra_args=mask_compatible_extra_args))


@link
def partition(
    transforms: Mapping[Any, optax.GradientTransformation],
    param_labels: Any,
    *,
    mask_compatible_extra_args: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Applies a link of its own to each group of parameters.

    Args:
      transforms: links by label.
      param_labels: labels by pattern of paths, `{"**/b": "plain", "**": "decayed"}`, of which the first that matches
        counts; or as Optax has it, a tree of labels, or a function from parameters to that.
      mask_compatible_extra_args: as for `masked`.
    Returns:
      A link with the state of `optax.partition`.
    Raises:
      TypeError: if a transform is no link.
      ValueError: from `init` and `update`, if a pattern matches no path, a parameter has no label, or a label no link.

    >>> tx = partition({"fast": sgd(1.0), "slow": sgd(0.1)}, {"**/b": "fast", "**": "slow"})
    >>> params = {"head": {"w": jnp.array(1.0), "b": jnp.array(1.0)}}
    >>> updates, _ = tx.update(params, tx.init(params), params)
    >>> round(updates["head"]["w"].item(), 3), updates["head"]["b"].item()
    (-0.1, -1.0)
    """
    made = {label: check_link("partition", f"transforms[{label!r}]", each) for label, each in transforms.items()}
    labels = param_labels
    if _are_labels(param_labels):
        unknown = [label for label in param_labels.values() if label not in made]
        if unknown:
            raise ValueError(f"partition: expected labels of {list(made)}, got {unknown}")
        labels = lambda params: labelled("partition", params, param_labels)  # noqa: E731
    return _filling(optax.partition(made, labels, mask_compatible_extra_args=mask_compatible_extra_args))


@link
def freeze(mask: Any) -> optax.GradientTransformationExtraArgs:
    """Makes the updates of some parameters zero: the last link of a chain.

    Args:
      mask: as for `masked`.
    Returns:
      A link.
    Raises:
      ValueError: from `init` and `update`, if a pattern matches no path, with the paths that there are.

    >>> chain(adam(1e-3), freeze("encoder/**"))
    chain(adam(0.001), freeze('encoder/**'))
    """
    return masked(optax.set_to_zero(), mask)


def matching_leaves(name: str, tree: Any, patterns: Patterns) -> Any:
    """A tree of bools: whether the path of each leaf matches a pattern; holes stay.

    Raises:
      ValueError: if a pattern matches no path, with the paths that there are.
    """
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    paths = _paths(tree)
    # Optax looks for parameters in a state with a stand-in for them, which has no leaves.
    found = matching(paths, patterns, name) if patterns and paths else set[str]()
    return _by_path(tree, lambda path: path in found)


def labelled(name: str, tree: Any, labels: Mapping[str, Any]) -> Any:
    """A tree of labels: that of the first pattern that the path of each leaf matches.

    Raises:
      ValueError: if a pattern matches no path, or a path no pattern.
    """
    paths = _paths(tree)
    chosen: dict[str, Any] = {}
    for pattern, label in reversed(labels.items() if paths else ()):
        chosen |= dict.fromkeys(matching(paths, (pattern,), name), label)
    missed = [path for path in paths if path not in chosen]
    if missed:
        raise ValueError(f"{name}: expected a pattern for every path, got none for {missed}. Add '**' for the rest.")
    return _by_path(tree, lambda path: chosen.get(path))


def _filling(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """The same, with functions of parameters over a link's own."""
    tx = optax.with_extra_args_support(tx)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return tx.update(updates, state, params, **over_own(extra, params))

    return optax.GradientTransformationExtraArgs(tx.init, update)


def _are_patterns(mask: Any) -> bool:
    return isinstance(mask, str) or (isinstance(mask, list | tuple) and all(isinstance(item, str) for item in mask))


def _are_labels(labels: Any) -> bool:
    return type(labels) is dict and any(isinstance(name, str) and ("*" in name or "/" in name) for name in labels)


def _paths(tree: Any) -> list[str]:
    return [_path(path) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _by_path(tree: Any, value: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, leaf: value(_path(path)), tree)


def _path(path: Any) -> str:
    return cast(str, jax.tree_util.keystr(path, simple=True, separator="/"))
