"""Any link's state in fewer bits."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ._average import AverageParamsState, LookaheadState
from ._extragradient import AnchoredState, PastExtragradientState
from ._link import check_count, check_link, link

_LEVELS, _LEVELS_OF_ONE_SIGN = 127, 255
_ONE = 0x3F800000  # the pattern of 1.0
_SMALLEST = 2.0**-126  # normal number of float32: the inverse of a smaller one is infinite
_PARAMETERS: dict[type, str] = {  # where a state holds parameters, and where its own
    AverageParamsState: "average",
    LookaheadState: "slow",
    AnchoredState: "anchor",
    PastExtragradientState: "ahead",
    optax.contrib.ScheduleFreeState: "z",
}


class LowBitState(NamedTuple):
    """State of `low_bit`.

    Attributes:
      inner: of the chain; its large arrays of float32 are `Blocks`, or `Halves`.
      key: of the random numbers that round the next one.
    """

    inner: Any
    key: jax.Array


@jax.tree_util.register_pytree_with_keys_class
class Blocks:
    """An array of float32 as blocks of 8-bit codes, each with a scale.

    A code is a sign and one of 127 levels, or zero; in a block without negative numbers, one of 255 levels. A level
    stands for about the fourth power of its share of the highest, or in a block of one sign the eighth: the upper half
    are 3 to 6 % apart, and the smallest is `4e-9` of the largest, or `6e-20`. So second moments may stand in one block
    though the gradients differ a millionfold; one that is rounded to zero would let Adam make a step of any length. The
    powers are taken of the floats' patterns, as if they were logarithms: their inverse is exact, and costs a shift.

    Attributes:
      codes: `[blocks, size]` of int8, or of uint8's bits; the last block is filled up with zeros.
      scales: the largest size of each block, `[blocks]` of float32; negative where no number of the block is.
      shape: of the array.
    """

    def __init__(self, codes: Any, scales: Any, shape: tuple[int, ...]):
        self.codes, self.scales, self.shape = codes, scales, shape

    def __repr__(self) -> str:
        return f"Blocks({self.codes!r}, {self.scales!r}, {self.shape})"

    def tree_flatten_with_keys(self) -> tuple[Any, Any]:
        """Codes and scales by name."""
        name = jax.tree_util.GetAttrKey
        return ((name("codes"), self.codes), (name("scales"), self.scales)), self.shape

    @classmethod
    def tree_unflatten(cls, shape: tuple[int, ...], children: Any) -> "Blocks":
        """The inverse."""
        codes, scales = children
        return cls(codes, scales, shape)


class Halves(NamedTuple):
    """An array of float32 as bfloat16.

    Attributes:
      values: of the array's shape, bfloat16.
    """

    values: jax.Array


@link
def low_bit(
    tx: optax.GradientTransformation, bits: int = 8, *, key: jax.Array | int, block: int = 256, min_size: int = 4096
) -> optax.GradientTransformationExtraArgs:
    """Keeps the large float32 arrays of a chain's state in 8 or 16 bits.

    8 bits are blocks of codes with a scale each, 16 bits are bfloat16. Both are rounded up or down at random so that
    the mean is exact: a moving average that changes by less than a step a time still arrives. Adam's two moments
    take 2.03 bytes a parameter instead of 8. Parameters that a state keeps, as `ema_params` and `lookahead` do, stay as
    they are: rounded they would wander. Derivatives do not pass through the arrays that are rounded.

    The saving is between steps. An update unpacks the arrays, and XLA on a CPU holds one or two of them in float32
    until they are rounded; 8 bits take 10 times, 16 bits twice the time of Adam's own update there.

    Source: Dettmers, Lewis, Shleifer, Zettlemoyer 2022, https://arxiv.org/abs/2110.02861, block-wise quantisation, with
    levels of our own.

    Args:
      tx: the chain.
      bits: 8 or 16.
      key: a JAX random key, or an integer to make one of.
      block: numbers that share a scale, at least 1.
      min_size: arrays with fewer numbers stay as they are.
    Returns:
      A link.
    Raises:
      ValueError: if the chain holds another `low_bit`, `bits` is neither 8 nor 16, or `block` or `min_size` below 1.
      TypeError: if `tx` is no link.

    >>> tx = low_bit(adam(1e-3), key=0)
    >>> state = tx.init({"w": jnp.zeros((64, 64)), "b": jnp.zeros(64)})
    >>> moments = state.inner[0].mu
    >>> moments["w"].codes.dtype, moments["b"].dtype
    (dtype('int8'), dtype('float32'))
    """
    tx = check_link("low_bit", "tx", tx)
    if bits not in (8, 16):
        raise ValueError(f"low_bit: expected bits to be 8 or 16, got {bits!r}")
    if tx.holds("low_bit"):
        raise ValueError(f"low_bit: expected tx without low_bit inside, got {tx!r}")
    check_count("low_bit", "block", block)
    check_count("low_bit", "min_size", min_size)

    def pack(state: Any, like: list[bool], key: jax.Array) -> Any:
        leaves, structure = jax.tree.flatten(state)
        words = jax.random.bits(key, (len(leaves), 2), jnp.uint32)
        packed = [
            _narrow(leaf, bits, block, word) if large else leaf
            for leaf, large, word in zip(leaves, like, words, strict=True)
        ]
        return jax.tree.unflatten(structure, packed)

    def init(params: Any) -> LowBitState:
        state = tx.init(params)
        first = jax.random.key(key) if isinstance(key, int) else jnp.copy(key)
        return LowBitState(pack(state, jax.tree.leaves(_large(state, min_size)), first), first)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        now, after = jax.random.split(state.key)
        large = [_is_packed(leaf) for leaf in jax.tree.leaves(state.inner, is_leaf=_is_packed)]
        wide = jax.tree.map(lambda leaf: _widen(leaf) if _is_packed(leaf) else leaf, state.inner, is_leaf=_is_packed)
        updates, inner = tx.update(updates, wide, params, **extra)
        return updates, LowBitState(pack(inner, large, now), after)

    return optax.GradientTransformationExtraArgs(init, update)


def _large(state: Any, min_size: int) -> Any:
    """For each array of a state, whether it is rounded."""

    def one(node: Any) -> Any:
        whole = _PARAMETERS.get(type(node))
        if whole is None:
            return getattr(node, "dtype", None) == jnp.float32 and node.size >= min_size
        parts = {name: _large(part, min_size) for name, part in node._asdict().items()}
        return node._replace(**parts | {whole: jax.tree.map(lambda leaf: False, getattr(node, whole))})

    return jax.tree.map(one, state, is_leaf=lambda node: type(node) in _PARAMETERS)


def _is_packed(leaf: Any) -> bool:
    return isinstance(leaf, Blocks | Halves)


def _narrow(x: jax.Array, bits: int, block: int, words: jax.Array) -> Any:
    return _encoded(x, block, words) if bits == 8 else Halves(_to_bfloat16(x, words))


def _widen(packed: Any) -> jax.Array:
    return _decoded(packed) if isinstance(packed, Blocks) else packed.values.astype(jnp.float32)


def _noise(words: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random bits of uint32 for each number, from two random words.

    They hash the number's index, element by element (the finaliser of MurmurHash3, twice), so that no array of them
    has to be held: `jax.random.bits` would take more memory than the states that are made smaller.
    """
    index = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        index = index * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    for word in words:
        index = (index ^ word) * jnp.uint32(0x9E3779B1)
        index = (index ^ (index >> 16)) * jnp.uint32(0x85EBCA6B)
        index = (index ^ (index >> 13)) * jnp.uint32(0xC2B2AE35)
        index = index ^ (index >> 16)
    return index


def _to_bfloat16(x: jax.Array, words: jax.Array) -> jax.Array:
    """Rounded up or down at random: noise below the digits that stay carries into them."""
    pattern = jax.lax.bitcast_convert_type(x, jnp.uint32)
    carried = pattern + (_noise(words, x.shape) >> 16)
    kept = jax.lax.bitcast_convert_type(carried & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(x), kept, x).astype(jnp.bfloat16)


def _encoded(x: jax.Array, block: int, words: jax.Array) -> Blocks:
    blocks = math.ceil(x.size / block)
    rows = jnp.pad(x.reshape(-1), (0, blocks * block - x.size)).reshape(blocks, block)
    least = rows.min(-1)
    scales, one_sign = jnp.maximum(rows.max(-1), -least), least >= 0
    share = jnp.abs(rows) * jnp.where(scales > _SMALLEST, 1 / scales, 0)[:, None]
    root = _float(((_pattern(share) - _ONE) >> _power(one_sign)) + _ONE)
    level = jnp.clip(jnp.floor(root * _levels(one_sign)).astype(jnp.int32), 0, _levels(one_sign) - 1)
    low, high = _share(level, one_sign), _share(level + 1, one_sign)
    noise = (_noise(words, rows.shape) >> 8).astype(jnp.float32) / 2**24
    level += noise * (high - low) < share - low
    return Blocks(jnp.where(rows < 0, -level, level).astype(jnp.int8), jnp.where(one_sign, -scales, scales), x.shape)


def _decoded(packed: Blocks) -> jax.Array:
    codes, one_sign = packed.codes.astype(jnp.int32), packed.scales < 0
    codes = jnp.where(one_sign[:, None], codes & 0xFF, codes)
    share = _share(jnp.abs(codes), one_sign)
    rows = jnp.where(codes < 0, -share, share) * jnp.abs(packed.scales)[:, None]
    return rows.reshape(-1)[: math.prod(packed.shape)].reshape(packed.shape)


def _levels(one_sign: jax.Array) -> jax.Array:
    return jnp.where(one_sign, _LEVELS_OF_ONE_SIGN, _LEVELS)[:, None]


def _power(one_sign: jax.Array) -> jax.Array:
    """Of 2, that a level's share of the highest is raised to."""
    return jnp.where(one_sign, 3, 2)[:, None]


def _share(level: jax.Array, one_sign: jax.Array) -> jax.Array:
    """The share of a block's largest number that a level stands for."""
    root = level * jnp.where(one_sign, jnp.float32(1 / _LEVELS_OF_ONE_SIGN), jnp.float32(1 / _LEVELS))[:, None]
    return jnp.where(level > 0, _float(((_pattern(root) - _ONE) << _power(one_sign)) + _ONE), 0)


def _pattern(x: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(x, jnp.int32)


def _float(pattern: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(pattern, jnp.float32)
