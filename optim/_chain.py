"""Links in a row."""

from typing import Any

import optax

from .._names import numbered
from ._link import Link, evaluates_gradient, link


@link
def chain(
    *links: optax.GradientTransformation, **named_links: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """Applies links one after another: the updates of each go to the next.

    Order matters, for a link that looks elsewhere most of all. `chain(clip_by_global_norm(1.0), sam(0.05), sgd(0.1))`
    clips the gradient that SAM climbs along: since SAM takes its direction only, this changes nothing, and
    the step is not bounded. `chain(sam(0.05), clip_by_global_norm(1.0), sgd(0.1))` clips the gradient that SAM
    returns, so that the step that is applied is at most `0.1 * 1.0` long.

    Args:
      *links: links, Optax's own welcome; the state is a tuple of theirs.
      **named_links: further links, after the former; if there are any, the state is a dict by name, and the
        links without names are named after their kind (`sam`, `adam`, `adam_1`).
    Returns:
      A link.
    Raises:
      TypeError: if one of them is no gradient transformation.
      ValueError: if two of them evaluate gradients: the second would discard what the first found. From `update`, if
        the state is that of another number of links.

    >>> chain(sam(0.05), adam(1e-3))
    chain(sam(0.05), adam(0.001))
    >>> tx = chain(sam(0.05), base=sgd(0.1, momentum=0.9))
    >>> sorted(tx.init({"w": jnp.zeros(3)}))
    ['base', 'sam']
    """
    every = [*links, *named_links.values()]
    if not every:
        raise TypeError("chain: expected at least one link, got none")
    for item in every:
        if not isinstance(item, optax.GradientTransformation):
            raise TypeError(f"chain: expected links such as adam(1e-3), got {item!r}")
    looking = [item for item in every if evaluates_gradient(item)]
    if len(looking) > 1:
        raise ValueError(
            f"chain: expected at most one link that evaluates gradients, got {' and '.join(map(repr, looking))}. "
            "The later one would discard what the earlier one found."
        )
    row = optax.named_chain(*_named(links, named_links).items()) if named_links else optax.chain(*links)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        if len(state) != len(every):
            raise ValueError(
                f"chain: expected the state of {len(every)} links, got {len(state)}. "
                "Make the state with this chain's own init(params)."
            )
        return row.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(row.init, update)


def _named(links: tuple, named_links: dict[str, Any]) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for item in links:
        stem = item.call.name if isinstance(item, Link) and item.call else "link"
        names[numbered(stem, names)] = item
    for name, item in named_links.items():
        if name in names:
            raise TypeError(f"chain: expected a name of its own for {item!r}, got {name!r}, that of {names[name]!r}")
        names[name] = item
    return names
