"""Links: gradient transformations that chain, Optax's own among them.

A link maps updates to updates. It is an `optax.GradientTransformationExtraArgs`, so everything here stands in any
Optax chain or wrapper, and everything of Optax's stands here:

>>> tx = chain(clip_by_global_norm(1.0), adamw(cosine_decay_schedule(1e-3, 1000)))
>>> params = {"w": jnp.ones(3)}
>>> opt_state = tx.init(params)
>>> updates, opt_state = tx.update({"w": jnp.ones(3)}, opt_state, params)

**A link is the call that made it**: it prints, compares, hashes and pickles as that call. Two chains built alike
are equal, and a function that `jax.jit` knows for one is not compiled again for the other:

>>> tx
chain(clip_by_global_norm(1.0), adamw(cosine_decay_schedule(0.001, 1000)))
>>> tx == chain(clip_by_global_norm(1.0), adamw(cosine_decay_schedule(1e-3, 1000)))
True

**Links that look elsewhere**, such as `sam`, ask for the gradient at other parameters. A training step of
`renga.training` hands it to every link; a loop of your own adds one keyword:

>>> tx = chain(sam(0.05), adam(1e-3))
>>> loss = lambda params: jnp.sum(params["w"] ** 2)
>>> updates, opt_state = tx.update(
...     jax.grad(loss)(params), tx.init(params), params, grad_fn=jax.grad(loss)
... )

What follows such a link in the chain works on the gradient that it found. Steps pass Optax's `value`, `grad` and
`value_fn` too, so its line searches work as they are.

**For min-max problems** there is `optimistic_gradient`; more of the kind are to come.

`link` marks a constructor of your own. The optimizers, clipping, masks and schedules below are Optax's functions,
recorded, under Optax's names.
"""

from ._chain import chain as chain
from ._games import OptimisticGradientState as OptimisticGradientState
from ._games import optimistic_gradient as optimistic_gradient
from ._link import Link as Link
from ._link import link as link
from ._optax import adabelief as adabelief
from ._optax import adadelta as adadelta
from ._optax import adafactor as adafactor
from ._optax import adagrad as adagrad
from ._optax import adam as adam
from ._optax import adamax as adamax
from ._optax import adamaxw as adamaxw
from ._optax import adamw as adamw
from ._optax import adan as adan
from ._optax import adaptive_grad_clip as adaptive_grad_clip
from ._optax import add_decayed_weights as add_decayed_weights
from ._optax import add_noise as add_noise
from ._optax import amsgrad as amsgrad
from ._optax import apply_if_finite as apply_if_finite
from ._optax import centralize as centralize
from ._optax import clip as clip
from ._optax import clip_by_block_rms as clip_by_block_rms
from ._optax import clip_by_global_norm as clip_by_global_norm
from ._optax import constant_schedule as constant_schedule
from ._optax import cosine_decay_schedule as cosine_decay_schedule
from ._optax import cosine_onecycle_schedule as cosine_onecycle_schedule
from ._optax import ema as ema
from ._optax import exponential_decay as exponential_decay
from ._optax import freeze as freeze
from ._optax import fromage as fromage
from ._optax import identity as identity
from ._optax import join_schedules as join_schedules
from ._optax import lamb as lamb
from ._optax import lars as lars
from ._optax import lbfgs as lbfgs
from ._optax import linear_onecycle_schedule as linear_onecycle_schedule
from ._optax import linear_schedule as linear_schedule
from ._optax import lion as lion
from ._optax import masked as masked
from ._optax import nadam as nadam
from ._optax import nadamw as nadamw
from ._optax import noisy_sgd as noisy_sgd
from ._optax import novograd as novograd
from ._optax import partition as partition
from ._optax import piecewise_constant_schedule as piecewise_constant_schedule
from ._optax import piecewise_interpolate_schedule as piecewise_interpolate_schedule
from ._optax import polyak_sgd as polyak_sgd
from ._optax import polynomial_schedule as polynomial_schedule
from ._optax import radam as radam
from ._optax import rmsprop as rmsprop
from ._optax import rprop as rprop
from ._optax import scale as scale
from ._optax import scale_by_adam as scale_by_adam
from ._optax import scale_by_learning_rate as scale_by_learning_rate
from ._optax import scale_by_rms as scale_by_rms
from ._optax import scale_by_schedule as scale_by_schedule
from ._optax import scale_by_trust_ratio as scale_by_trust_ratio
from ._optax import set_to_zero as set_to_zero
from ._optax import sgd as sgd
from ._optax import sgdr_schedule as sgdr_schedule
from ._optax import sign_sgd as sign_sgd
from ._optax import signum as signum
from ._optax import sm3 as sm3
from ._optax import trace as trace
from ._optax import warmup_constant_schedule as warmup_constant_schedule
from ._optax import warmup_cosine_decay_schedule as warmup_cosine_decay_schedule
from ._optax import warmup_exponential_decay_schedule as warmup_exponential_decay_schedule
from ._optax import yogi as yogi
from ._optax import zero_nans as zero_nans
from ._sharpness import SamState as SamState
from ._sharpness import sam as sam
