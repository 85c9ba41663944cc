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

What follows such a link in the chain works on the gradient that it found. `oracle` hands links all that they may ask
for, Optax's line searches too, and fills the holes that masks make; steps of `renga.training` do so:

>>> found = oracle(loss, params)
>>> updates, opt_state = tx.update(found.grads, tx.init(params), params, **found.extra)

**Sharpness**: `sam`, `asam`, `gsam`, `fisher_sam`, `friendly_sam`, `look_sam`: a perturbation, times a rule.

**Games**, whose loss returns a dict of values and whose parameters are a dict of players: `optimistic_gradient`,
`optimistic_adam`, `extragradient`, `extragradient_plus`, `past_extragradient` and `anchored` look ahead or back;
`consensus`, `symplectic_adjustment`, `lola`, `sos` and `competitive` use the Jacobian, in products with vectors alone;
`negative_momentum` and `lookahead` damp.

>>> game = lambda players: {"x": players["x"] * players["y"], "y": -players["x"] * players["y"]}
>>> players = {"x": jnp.array(1.0), "y": jnp.array(1.0)}
>>> tx = chain(consensus(0.5), sgd(0.1))
>>> found = oracle(game, players)
>>> updates, _ = tx.update(found.grads, tx.init(players), players, **found.extra)
>>> {player: round(update.item(), 2) for player, update in updates.items()}
{'x': -0.15, 'y': 0.05}

**Some of the parameters**, by patterns of paths: `masked`, `partition`, `freeze`, and `exclude=` of `sam` and its kin.

**Around a chain**: `accumulate` takes the mean of micro-batches, `skip_not_finite` leaves out what is not finite,
`ema_params` and `average_params` keep the parameters that `eval_params` returns, `low_bit` keeps any state in 8 bits,
`grouped` lays many small parameters end to end, `differentiable` makes gradients through updates finite where a
gradient is zero. `inject_hyperparams` keeps every number of a chain in its state, at a path, where it can be changed:

>>> tx = inject_hyperparams(chain(sam(0.05), adam(1e-3)))
>>> opt_state = set_hyperparams(tx.init(params), {"adam/learning_rate": 1e-4})
>>> round(get_hyperparams(opt_state)["adam/learning_rate"].item(), 6)
0.0001

**To be learnt**: `scale_by_rates` and `scale_by_step_rates` give each parameter, and each step, a rate of its own.

**As data**: `to_config` and `from_config` say a chain in JSON or TOML, and `describe` prints what it holds and costs.

`link` marks a constructor of your own. The optimizers, clipping, masks and schedules below are Optax's functions,
recorded, under Optax's names.
"""

from ._accumulate import AccumulateState as AccumulateState
from ._accumulate import SkipNotFiniteState as SkipNotFiniteState
from ._accumulate import accumulate as accumulate
from ._accumulate import skip_not_finite as skip_not_finite
from ._agreement import AgreementState as AgreementState
from ._agreement import agreement as agreement
from ._average import AverageParamsState as AverageParamsState
from ._average import LookaheadState as LookaheadState
from ._average import average_params as average_params
from ._average import ema_params as ema_params
from ._average import eval_params as eval_params
from ._average import lookahead as lookahead
from ._by_player import by_player as by_player
from ._chain import chain as chain
from ._clip import clip_by_global_norm as clip_by_global_norm
from ._config import from_config as from_config
from ._config import to_config as to_config
from ._describe import Description as Description
from ._describe import Row as Row
from ._describe import describe as describe
from ._differentiable import differentiable as differentiable
from ._evaluations import Cost as Cost
from ._extragradient import AnchoredState as AnchoredState
from ._extragradient import PastExtragradientState as PastExtragradientState
from ._extragradient import anchored as anchored
from ._extragradient import extragradient as extragradient
from ._extragradient import extragradient_plus as extragradient_plus
from ._extragradient import past_extragradient as past_extragradient
from ._field import ScheduledState as ScheduledState
from ._field import competitive as competitive
from ._field import consensus as consensus
from ._field import lola as lola
from ._field import sos as sos
from ._field import symplectic_adjustment as symplectic_adjustment
from ._games import OptimisticGradientState as OptimisticGradientState
from ._games import negative_momentum as negative_momentum
from ._games import optimistic_adam as optimistic_adam
from ._games import optimistic_gradient as optimistic_gradient
from ._grouped import GroupedState as GroupedState
from ._grouped import Groups as Groups
from ._grouped import grouped as grouped
from ._inject import InjectHyperparamsState as InjectHyperparamsState
from ._inject import get_hyperparams as get_hyperparams
from ._inject import inject_hyperparams as inject_hyperparams
from ._inject import set_hyperparams as set_hyperparams
from ._link import Link as Link
from ._link import link as link
from ._low_bit import Blocks as Blocks
from ._low_bit import Halves as Halves
from ._low_bit import LowBitState as LowBitState
from ._low_bit import low_bit as low_bit
from ._masks import freeze as freeze
from ._masks import masked as masked
from ._masks import partition as partition
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
from ._optax import adopt as adopt
from ._optax import amsgrad as amsgrad
from ._optax import apply_if_finite as apply_if_finite
from ._optax import centralize as centralize
from ._optax import clip as clip
from ._optax import clip_by_block_rms as clip_by_block_rms
from ._optax import constant_schedule as constant_schedule
from ._optax import cosine_decay_schedule as cosine_decay_schedule
from ._optax import cosine_onecycle_schedule as cosine_onecycle_schedule
from ._optax import dadapt_adamw as dadapt_adamw
from ._optax import ema as ema
from ._optax import exponential_decay as exponential_decay
from ._optax import fromage as fromage
from ._optax import identity as identity
from ._optax import join_schedules as join_schedules
from ._optax import lamb as lamb
from ._optax import lars as lars
from ._optax import lbfgs as lbfgs
from ._optax import linear_onecycle_schedule as linear_onecycle_schedule
from ._optax import linear_schedule as linear_schedule
from ._optax import lion as lion
from ._optax import momo as momo
from ._optax import momo_adam as momo_adam
from ._optax import muon as muon
from ._optax import nadam as nadam
from ._optax import nadamw as nadamw
from ._optax import noisy_sgd as noisy_sgd
from ._optax import novograd as novograd
from ._optax import piecewise_constant_schedule as piecewise_constant_schedule
from ._optax import piecewise_interpolate_schedule as piecewise_interpolate_schedule
from ._optax import polyak_sgd as polyak_sgd
from ._optax import polynomial_schedule as polynomial_schedule
from ._optax import prodigy as prodigy
from ._optax import radam as radam
from ._optax import reduce_on_plateau as reduce_on_plateau
from ._optax import rmsprop as rmsprop
from ._optax import rprop as rprop
from ._optax import scale as scale
from ._optax import scale_by_adam as scale_by_adam
from ._optax import scale_by_learning_rate as scale_by_learning_rate
from ._optax import scale_by_rms as scale_by_rms
from ._optax import scale_by_schedule as scale_by_schedule
from ._optax import scale_by_trust_ratio as scale_by_trust_ratio
from ._optax import schedule_free as schedule_free
from ._optax import schedule_free_adamw as schedule_free_adamw
from ._optax import schedule_free_sgd as schedule_free_sgd
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
from ._oracle import Oracle as Oracle
from ._oracle import oracle as oracle
from ._perturbation import SharpnessState as SharpnessState
from ._project import project as project
from ._rates import scale_by_rates as scale_by_rates
from ._rates import scale_by_step_rates as scale_by_step_rates
from ._sharpness import asam as asam
from ._sharpness import fisher_sam as fisher_sam
from ._sharpness import friendly_sam as friendly_sam
from ._sharpness import gsam as gsam
from ._sharpness import look_sam as look_sam
from ._sharpness import sam as sam
from ._soap import SoapMoments as SoapMoments
from ._soap import SoapState as SoapState
from ._soap import soap as soap
