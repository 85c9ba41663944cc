"""Where a train state lies on a mesh of devices: rules by path for its parameters, which all else follows."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ._checks import check_count
from ._follow import following
from ._put import put
from ._specs import Axes, Largest, Spec, specs_of
from ._state import TrainState


@dataclasses.dataclass(frozen=True)
class ShardingRules:
    """Which axes of parameters, and of batches, are spread over which axes of a mesh.

    Whatever the state of the chain keeps of a parameter, at its path and of its shape, lies as the parameter does; all
    else is whole on every device. The rules change where numbers are, not which: XLA moves them to where they are
    needed. `data_parallel` and `fully_sharded` are rules with a default.

    Args:
      patterns: `{"blocks/mlp/up/w": PartitionSpec(None, None, "model"), "**": PartitionSpec()}`: of the patterns that
        match a parameter's path the first counts. In the place of a spec, `Largest("data")` takes the largest axis that
        the mesh's `data` divides.
      batch: the mesh's axes that rows of batches are spread over.
    Raises:
      TypeError: for a spec that is none.
      ValueError: when used, for a pattern that matches no path, a parameter that no pattern matches, an axis that the
        mesh or the parameter does not have or that comes twice, or one that cannot be divided.

    >>> from jax.sharding import PartitionSpec as P
    >>> rules = ShardingRules({"**/w": P(None, "model"), "**": P()})
    >>> mesh = jax.make_mesh((1, 1), ("data", "model"))
    >>> train_state = init({"head": {"w": jnp.ones((2, 4)), "b": jnp.ones(4)}}, optim.adam(1e-3))
    >>> shardings = shardings_of(train_state, mesh, rules)
    >>> shardings.params["head"]["w"].spec, shardings.opt_state[0].mu["head"]["w"].spec
    (P(None, 'model'), P(None, 'model'))
    """

    patterns: Any
    batch: Axes = "data"

    def __post_init__(self) -> None:
        for pattern, spec in self._pairs():
            if not isinstance(spec, PartitionSpec | Largest):
                raise TypeError(
                    f"ShardingRules: expected a PartitionSpec for {pattern!r}, got {spec!r}. "
                    "Write PartitionSpec(None, 'model'), say."
                )
        object.__setattr__(self, "patterns", self._pairs())

    def _pairs(self) -> tuple[tuple[str, Spec], ...]:
        return tuple(self.patterns.items() if isinstance(self.patterns, Mapping) else self.patterns)


def data_parallel(patterns: Mapping[str, Spec] = {}, *, batch: Axes = "data") -> ShardingRules:
    """Rules by which each device has all parameters, and its share of every batch.

    Args:
      patterns: of parameters that lie otherwise, as for `ShardingRules`: with them it is tensor parallelism.
      batch: the mesh's axes that rows of batches are spread over.
    Returns:
      Rules.

    >>> train_state = init(jnp.ones((8, 4)), optim.sgd(0.1))
    >>> shardings_of(train_state, jax.make_mesh((1,), ("data",)), data_parallel()).params.spec
    P()
    """
    return _with_rest(patterns, PartitionSpec(), batch)


def fully_sharded(
    patterns: Mapping[str, Spec] = {}, *, axes: Axes = "data", batch: Axes = "data", min_size: int = 4096
) -> ShardingRules:
    """Rules by which each device has its share of every large parameter, of the chain's state, and of every batch.

    Source: Rajbhandari, Rasley, Ruwase, He 2020, https://arxiv.org/abs/1910.02054, as XLA's partitioner does it.

    Args:
      patterns: of parameters that lie otherwise, as for `ShardingRules`.
      axes: the mesh's axes that the largest axis of a parameter is spread over.
      batch: the mesh's axes that rows of batches are spread over.
      min_size: parameters with fewer numbers are whole on every device, since to gather them costs more than to hold
        them.
    Returns:
      Rules.
    Raises:
      ValueError: for a `min_size` below 1.

    >>> train_state = init(jnp.ones((8, 4)), optim.sgd(0.1))
    >>> shardings_of(train_state, jax.make_mesh((1,), ("data",)), fully_sharded(min_size=1)).params.spec
    P('data',)
    """
    check_count("fully_sharded", "min_size", min_size, at_least=1)
    return _with_rest(patterns, Largest(axes, min_size), batch)


def _with_rest(patterns: Mapping[str, Spec], rest: Spec, batch: Axes) -> ShardingRules:
    return ShardingRules(patterns if "**" in patterns else {**patterns, "**": rest}, batch)


def shardings_of(train_state: TrainState, mesh: Mesh, rules: ShardingRules) -> TrainState:
    """Where each array of a train state lies by the rules.

    Args:
      train_state: arrays or `jax.ShapeDtypeStruct`s.
      mesh: the devices.
      rules: for the parameters.
    Returns:
      The train state's structure, of `NamedSharding`s.
    Raises:
      ValueError: as `ShardingRules` says.

    >>> train_state = init({"w": jnp.ones((8, 4))}, optim.adam(1e-3))
    >>> shardings = shardings_of(train_state, jax.make_mesh((1,), ("data",)), fully_sharded(min_size=1))
    >>> shardings.opt_state[0].mu["w"].spec, shardings.step.spec
    (P('data',), P())
    """
    specs = specs_of(train_state.params, mesh, rules.patterns)
    whole = NamedSharding(mesh, PartitionSpec())
    placed = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=_is_spec)
    others = jax.tree.map(lambda leaf: whole, train_state)
    opt_state = following(train_state.opt_state, train_state.params, placed, whole)
    return others._replace(params=placed, opt_state=opt_state)


def shard(train_state: TrainState, mesh: Mesh, rules: ShardingRules) -> TrainState:
    """A train state laid out over devices.

    Arrays that lie there already may be shared with the train state that is given: before either is donated, copy.

    Args:
      train_state: the same in every process.
      mesh: the devices, of all processes.
      rules: for the parameters.
    Returns:
      The train state, each array where `shardings_of` says.
    Raises:
      ValueError: as `ShardingRules` says.

    >>> train_state = init({"w": jnp.ones((8, 4))}, optim.adam(1e-3))
    >>> shard(train_state, jax.make_mesh((1,), ("data",)), fully_sharded(min_size=1)).params["w"].sharding.spec
    P('data',)
    """
    return jax.tree.map(put, train_state, shardings_of(train_state, mesh, rules))


def init_sharded(make: Callable[[], TrainState], mesh: Mesh, rules: ShardingRules) -> TrainState:
    """A train state made where it will lie, which no device ever holds whole.

    Args:
      make: `() -> train_state`, pure: `lambda: init(net.init(key, x), tx)`. It is compiled; the numbers are those of
        `shard(make(), ...)`, up to rounding.
      mesh: the devices, of all processes.
      rules: for the parameters.
    Returns:
      The train state, each array where `shardings_of` says.
    Raises:
      ValueError: as `ShardingRules` says.

    >>> net, tx, key = nets.linear(4), optim.adam(1e-3), jax.random.key(0)
    >>> mesh = jax.make_mesh((1,), ("data",))
    >>> train_state = init_sharded(lambda: init(net.init(key, jnp.ones(8)), tx), mesh, fully_sharded(min_size=1))
    >>> train_state.opt_state[0].nu["w"].sharding.spec
    P('data', None)
    """
    shardings = shardings_of(jax.eval_shape(make), mesh, rules)
    with jax.set_mesh(mesh):
        return jax.jit(laid_out(make, mesh, shardings))()


def laid_out(function: Callable[..., Any], mesh: Mesh, shardings: Any) -> Callable[..., Any]:
    """A function of arrays on a mesh, in which XLA decides what lies where, with results laid out as asked for.

    Explicit axes are automatic inside: with sharded parameters they would ask the author of a network where every
    product is to lie, and these rules are for networks that say nothing of it.
    """
    specs = jax.tree.map(lambda sharding: sharding.spec, shardings)
    if AxisType.Explicit in mesh.axis_types:
        return jax.sharding.auto_axes(function, out_sharding=specs)
    return lambda *args: jax.lax.with_sharding_constraint(function(*args), shardings)


def _is_spec(value: Any) -> bool:
    return isinstance(value, PartitionSpec)
