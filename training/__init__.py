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

**Meta-learning** is a transform of losses: `maml` makes of a loss one over tasks, whose gradient goes through steps of
any chain on each of them, and `adapt` makes those steps when the parameters are learnt:

>>> meta_loss = maml(loss_fn, optim.sgd(0.1), inner_steps=1)
>>> tasks = {part: {"x": jnp.ones((4, 10, 1)), "y": jnp.ones((4, 10, 1))} for part in ("support", "query")}
>>> train_state, metrics = jax.jit(step(meta_loss, tx))(init(train_state.params, tx), tasks)
>>> task = jax.tree.map(lambda leaf: leaf[0], tasks)
>>> adapt(loss_fn, optim.sgd(0.1), inner_steps=3)(train_state.params, task["support"]).losses.shape
(3,)
"""

from ._curvature import empirical_fisher_vp as empirical_fisher_vp
from ._curvature import fisher_vp as fisher_vp
from ._curvature import ggn_vp as ggn_vp
from ._curvature import hvp as hvp
from ._data import Batches as Batches
from ._data import batches as batches
from ._ensemble import ensemble as ensemble
from ._ensemble import join_members as join_members
from ._ensemble import split_members as split_members
from ._estimated import with_gradient as with_gradient
from ._estimators import evolution_strategies as evolution_strategies
from ._estimators import forward_gradient as forward_gradient
from ._evaluate import evaluate as evaluate
from ._fit import fit as fit
from ._imaml import imaml as imaml
from ._imaml import proximal as proximal
from ._implicit import conjugate_gradient as conjugate_gradient
from ._implicit import implicit as implicit
from ._implicit import neumann as neumann
from ._jacobian import hessian as hessian
from ._jacobian import jacobian as jacobian
from ._losses import accuracy as accuracy
from ._losses import binary_cross_entropy as binary_cross_entropy
from ._losses import cross_entropy as cross_entropy
from ._losses import squared_error as squared_error
from ._maml import Adapted as Adapted
from ._maml import adapt as adapt
from ._maml import inner_states as inner_states
from ._maml import maml as maml
from ._maml import multi_step_weights as multi_step_weights
from ._minimize import bilevel as bilevel
from ._minimize import minimize as minimize
from ._minimize import unrolled as unrolled
from ._ntk import ntk as ntk
from ._predictive import ClassPrediction as ClassPrediction
from ._predictive import ValuePrediction as ValuePrediction
from ._predictive import predict_classes as predict_classes
from ._predictive import predict_values as predict_values
from ._reptile import reptile as reptile
from ._spectrum import Eigenpairs as Eigenpairs
from ._spectrum import Spectrum as Spectrum
from ._spectrum import diagonal as diagonal
from ._spectrum import diagonal_estimate as diagonal_estimate
from ._spectrum import spectral_density as spectral_density
from ._spectrum import top_eigenvalues as top_eigenvalues
from ._spectrum import trace_estimate as trace_estimate
from ._state import TrainState as TrainState
from ._state import init as init
from ._step import step as step
