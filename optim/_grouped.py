"""Many small parameters as a few long ones."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from ._link import Link, check_count, check_link, link
from ._masks import matching_leaves

Patterns = str | Sequence[str]

_TOGETHER = 64  # XLA compiles a row of 64 arrays in a third of the time that it takes for one of 3,000
_NOT_BY_ELEMENT = {
    "adafactor", "adaptive_grad_clip", "centralize", "clip_by_block_rms", "fromage", "lamb", "lars", "lbfgs", "muon",
    "normalize", "novograd", "project", "scale_by_trust_ratio", "sm3", "soap",
}  # fmt: skip
_BY_PATH = {"freeze", "masked", "partition"}
_WITH_A_VIEW = {
    "average_params", "ema_params", "lookahead", "past_extragradient", "schedule_free", "schedule_free_adamw",
    "schedule_free_sgd",
}  # fmt: skip


class GroupedState(NamedTuple):
    """State of `grouped`.

    Attributes:
      inner: of the chain, whose parameters are `Groups`.
    """

    inner: Any


@jax.tree_util.register_pytree_with_keys_class
class Groups:
    """The leaves of a tree, small ones end to end.

    Attributes:
      together: `[numbers]` each, the leaves of a group.
      alone: all other leaves, as they are.
      layout: for each group, which leaves of the tree it is.
    """

    def __init__(self, together: Any, alone: Any, layout: tuple[tuple[int, ...], ...]):
        self.together, self.alone, self.layout = together, alone, layout

    def __repr__(self) -> str:
        return f"Groups({self.together!r}, {self.alone!r}, {self.layout})"

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        """Groups and other leaves by name."""
        name = jax.tree_util.GetAttrKey
        return ((name("together"), self.together), (name("alone"), self.alone)), self.layout

    @classmethod
    def tree_unflatten(cls, layout: Any, children: Any) -> "Groups":
        """The inverse."""
        together, alone = children
        return cls(together, alone, layout)


@link
def grouped(
    tx: optax.GradientTransformation, *, max_size: int = 16384, exclude: Patterns = ()
) -> optax.GradientTransformationExtraArgs:
    """Applies an element-wise chain to small parameters in groups of 64, laid end to end.

    A chain makes some thirty operations of every leaf, and a model of 3,000 small ones takes XLA longer to compile than
    to train for a while. Of a group they are made once; what is left for each leaf is to be copied there and back. The
    state stays grouped. Large leaves are handed on as they are, and so are those that are sharded: nothing is moved
    between devices. In a state that is made under `jax.jit` shardings over automatic axes are not seen; make it
    outside, or name those leaves in `exclude`.

    `tx` must treat every number by itself, but for norms over all of them (`clip_by_global_norm`). What treats a leaf
    as a whole, looks at paths, or keeps parameters to evaluate with, stands around it:
    `partition({"a": grouped(adam(1e-3)), ...}, ...)`, `chain(adaptive_grad_clip(0.01), grouped(adam(1e-3)))`. Noise is
    drawn for a group at a time.

    Args:
      tx: the chain. Links that are ours and known not to be element-wise are refused; others cannot be told.
      max_size: leaves with more numbers stay alone.
      exclude: paths of leaves that stay alone.
    Returns:
      A link.
    Raises:
      ValueError: if `tx` holds a link that is not element-wise or that evaluates gradients, or `max_size` is below 1;
        from `init`, if a pattern matches no path; from `update`, if the updates are not those of the state.
      TypeError: if `tx` is no link.

    >>> tx = grouped(adam(1e-3))
    >>> params = {"b": jnp.ones(3), "w": jnp.ones((2, 3))}
    >>> state = tx.init(params)
    >>> state.inner[0].mu.together[0].shape
    (9,)
    >>> updates, state = tx.update(params, state, params)
    >>> updates["w"].shape
    (2, 3)
    """
    tx = check_link(
        "grouped", "tx", tx, evaluates=False, remedy="Put it before: chain(sam(0.05), grouped(adam(1e-3)))."
    )
    check_count("grouped", "max_size", max_size)
    init_groups: Any = tx.init
    update_groups: Any = tx.update
    for each in tx.inside:
        _check_by_element(each)

    def init(params: Any) -> GroupedState:
        if not jax.tree.leaves(params):
            return GroupedState(tx.init(params))  # the placeholder of `optax.tree.map_params` stays one
        params = jax.tree.map(_array, params)
        excluded = matching_leaves("grouped", params, exclude)
        return GroupedState(init_groups(_group(params, _layout(params, excluded, max_size))))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        excluded = matching_leaves("grouped", updates, exclude)
        layout = _layout_of(state)
        layout = _layout(updates, excluded, max_size) if layout is None else layout
        leaves, structure = jax.tree.flatten(updates)
        if any(index >= len(leaves) for group in layout for index in group):
            raise ValueError(
                f"grouped: expected updates of the parameters that the state was made for, got {len(leaves)} leaves. "
                "Make the state with this link's own init(params)."
            )
        given = None if params is None else _group(params, layout)
        steps, inner = update_groups(_group(updates, layout), state.inner, given, **extra)
        return jax.tree.unflatten(structure, _ungroup(steps, leaves)), GroupedState(inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _array(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)


def _layout(tree: Any, excluded: Any, max_size: int) -> tuple[tuple[int, ...], ...]:
    """Which leaves go together: those of one dtype and placement."""
    kinds: dict[Any, list[int]] = {}
    for index, (leaf, out) in enumerate(zip(jax.tree.leaves(tree), jax.tree.leaves(excluded), strict=True)):
        placement = _placement(leaf)
        if leaf.size <= max_size and not out and placement is not None:
            kinds.setdefault((jnp.result_type(leaf), placement), []).append(index)
    groups = [kind[start : start + _TOGETHER] for kind in kinds.values() for start in range(0, len(kind), _TOGETHER)]
    return tuple(tuple(group) for group in groups if len(group) > 1)


def _placement(leaf: Any) -> Any:
    """The devices that hold a whole leaf; None if it is spread over several."""
    traced = isinstance(leaf, Tracer) or not hasattr(leaf, "devices")
    sharding = getattr(jax.typeof(leaf) if traced else leaf, "sharding", None)
    if sharding is None:
        return ()
    if traced:
        return () if all(axis is None for axis in sharding.spec) else None
    return tuple(sorted(device.id for device in sharding.device_set)) if sharding.is_fully_replicated else None


def _layout_of(state: Any) -> Any:
    """The layout of the first groups that a state holds; None if it holds none."""
    found = [leaf for leaf in jax.tree.leaves(state, is_leaf=_is_groups) if _is_groups(leaf)]
    return found[0].layout if found else None


def _is_groups(leaf: Any) -> bool:
    return isinstance(leaf, Groups)


def _group(tree: Any, layout: tuple[tuple[int, ...], ...]) -> Groups:
    leaves = jax.tree.leaves(tree)
    inside = {index for group in layout for index in group}
    together = tuple(jnp.concatenate([jnp.ravel(leaves[index]) for index in group]) for group in layout)
    return Groups(together, tuple(leaf for index, leaf in enumerate(leaves) if index not in inside), layout)


def _ungroup(groups: Groups, leaves: list[Any]) -> list[Any]:
    """The leaves of groups, in the shapes of others."""
    parts = {}
    for group, numbers in zip(groups.layout, groups.together, strict=True):
        rows = jax.lax.split(numbers, [leaves[index].size for index in group])
        parts |= {index: row.reshape(leaves[index].shape) for index, row in zip(group, rows, strict=True)}
    alone = iter(groups.alone)
    return [parts[index] if index in parts else next(alone) for index in range(len(leaves))]


def _check_by_element(held: Link) -> None:
    if held.call is None:
        return
    name, mask = held.call.name, held.call.kwargs.get("mask")
    if name == "grouped":
        raise ValueError(f"grouped: expected links that are not grouped already, got {held!r}. Once is enough.")
    if name in _NOT_BY_ELEMENT:
        raise ValueError(
            f"grouped: expected links that treat every number by itself, got {held!r}, which treats a leaf as a "
            f"whole. Put it before or after: chain({held!r}, grouped(adam(1e-3)))."
        )
    if name in _BY_PATH or mask is not None:
        raise ValueError(
            f"grouped: expected links that treat all parameters alike, got {held!r}. "
            'Put grouped inside: partition({"a": grouped(adamw(1e-3)), "b": grouped(adam(1e-3))}, labels).'
        )
    if name in _WITH_A_VIEW:
        raise ValueError(
            f"grouped: expected links that keep no parameters to evaluate with, got {held!r}. "
            "Put it around: chain(grouped(adam(1e-3)), ema_params(0.999)), lookahead(grouped(sgd(0.1)), 5)."
        )
