"""Recorded calls: what makes two of them equal, and what cannot change one."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from renga import nets


@nets.layer
def tower(sizes: list[int], options: dict | None = None) -> nets.Net:
    return nets.mlp(*sizes)


def test_a_list_that_its_owner_changes_later_does_not_change_the_network():
    sizes, options = [4, 3], {"a": [1]}
    net = tower(sizes, options)
    sizes.append(9)
    options["a"].append(2)
    assert net == tower([4, 3], {"a": [1]})
    assert repr(net) == "tower([4, 3], options={'a': [1]})"


def test_integers_of_numpy_are_integers():
    count: Any = np.int64
    assert nets.linear(count(6)) == nets.linear(6)
    assert repr(nets.conv(count(3), count(5))) == "conv(3, 5)"


def test_a_dtype_is_the_same_however_it_is_written():
    written = ["bfloat16", jnp.bfloat16, jnp.dtype("bfloat16")]
    made = [nets.cast(nets.linear(3), compute=dtype) for dtype in written]
    assert made[0] == made[1] == made[2]
    assert len(set(map(hash, made))) == 1
    assert made[0] != nets.cast(nets.linear(3), compute="float16")
