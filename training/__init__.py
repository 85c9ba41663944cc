"""Losses to gradients to steps to loops, each a function of the one before.

A loss is a function of parameters, a batch and a key. A step is made from a loss and a chain, and is pure:

>>> net = nets.mlp(32, 1)
>>> def loss_fn(params, batch, key):
...     return squared_error(net.apply(params, batch["x"]), batch["y"])
>>> tx = optim.chain(optim.sam(0.05), optim.adam(1e-2))
>>> update = step(loss_fn, tx)

It takes a `TrainState`, one pytree of all that training carries, and a batch, and returns the next state and
metrics. So it can stand under `jax.jit`, in a scan of yours, under `jax.vmap` for many seeds at once, or in `fit`:

>>> x = jnp.linspace(-1, 1, 64)[:, None]
>>> train_state = init(net.init(jax.random.key(0), x), tx)
>>> feed = batches({"x": x, "y": jnp.sin(3 * x)}, 16, key=jax.random.key(1))
>>> train_state, history = fit(update, train_state, feed, num_steps=300, progress=False)
>>> history[-1]["loss"] < history[0]["loss"]
True

`fit` runs several steps a dispatch and hands on metrics only at reports. `evaluate` takes means over a data set.
A loss that returns metrics is announced by `has_aux=True`, one that carries the state of a network by
`stateful=True`; keys come from the train state, one a step. The losses here are Optax's, as means over a batch.
"""

from ._data import Batches as Batches
from ._data import batches as batches
from ._evaluate import evaluate as evaluate
from ._fit import fit as fit
from ._losses import accuracy as accuracy
from ._losses import binary_cross_entropy as binary_cross_entropy
from ._losses import cross_entropy as cross_entropy
from ._losses import squared_error as squared_error
from ._state import TrainState as TrainState
from ._state import init as init
from ._step import step as step
