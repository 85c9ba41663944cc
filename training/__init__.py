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
any chain on each of them, and `adapt` makes those steps when the parameters are learnt; `imaml` and `reptile` are
losses over tasks as well. Tasks are drawn on the device (`sinusoids`; `episodes` of any labelled arrays, of classes
that `split_classes` keeps apart), so that `loop` makes one program of a whole run, for one seed or under `jax.vmap` for
many. `evaluate_tasks` scores parameters after every inner step, with 95 % intervals and how many tasks diverged:

>>> inner, sample = optim.sgd(0.1), sinusoids(10)
>>> update = step(maml(loss_fn, inner, inner_steps=1), tx)
>>> train = loop(update, lambda key: sample(key, 25), num_steps=200, report_every=100)
>>> train_state, metrics = jax.jit(train)(init(net.init(jax.random.key(0), x), tx), jax.random.key(1))
>>> scores = evaluate_tasks(loss_fn, inner, inner_steps=2)(train_state.params, sample(jax.random.key(2), 600))
>>> scores.mean["loss"].shape, scores.diverged.shape, metrics["loss"].shape
((3,), (3,), (2,))

**Bilevel** problems are the same thing without tasks: `minimize` is where steps of a chain lead, a function that can be
differentiated in whatever shapes the loss, back through the steps (`unrolled`) or from what holds at a minimum
(`implicit`, by `conjugate_gradient` or `neumann`); `bilevel` makes a loss for `step` of it:

>>> ridge = lambda w, penalty, data, key: squared_error(data["x"] @ w, data["y"]) + jnp.exp(penalty) * jnp.sum(w**2)
>>> solve = minimize(ridge, optim.sgd(0.1), 100, backward=implicit(conjugate_gradient(1)))
>>> data = {"x": jnp.ones((4, 1)), "y": jnp.ones(4)}
>>> round(jax.grad(lambda penalty: solve(jnp.zeros(1), penalty, data)[0])(0.0).item(), 3)
-0.25

**The gradient of every example** (`per_example`), its norm without computing it, and sums of clipped ones come from one
backward pass, whatever the loss is made of; `per_example_ways` says how. With noise on top they are differentially
private training, on `poisson_batches`, as `epsilon` accounts for it:

>>> data = {"x": x, "y": jnp.sin(3 * x)}
>>> per_example_norms(loss_fn)(train_state.params, data).shape
(64,)
>>> feed = poisson_batches(data, 0.1, key=jax.random.key(2))
>>> noise = noise_multiplier(3.0, feed.rate, 300, delta=1e-3)
>>> loss = private(loss_fn, 1.0, noise_multiplier=noise, expected_batch_size=feed.expected_size)
>>> train_state = init(train_state.params, tx, key=jax.random.key(3))
>>> train_state, _ = fit(step(loss, tx, has_aux=True), train_state, feed, num_steps=300, progress=False)
>>> round(epsilon(noise, feed.rate, 300, delta=1e-3), 1)
3.0

**Ensembles** are steps over many train states, and go into `fit` as one:

>>> together = training.ensemble(step(loss_fn, tx), 5, batches="shared", metrics="named")
>>> members = join_members([init(net.init(key, x), tx) for key in jax.random.split(jax.random.key(0), 5)])
>>> feed = batches(data, 16, key=jax.random.key(1))
>>> members, history = fit(together, members, feed, num_steps=100, progress=False)
>>> predict_values(jax.vmap(net.apply, (0, None))(members.params, x)).variance.shape
(64, 1)

**Curvature** is functions of a loss or of `apply`: `jacobian`, `hessian`, products (`hvp`, `ggn_vp`, `fisher_vp`), what
products tell (`top_eigenvalues`, `spectral_density`, `diagonal_estimate`), and `ntk`. Gradients that are only
estimated, `forward_gradient` and `evolution_strategies`, are losses like others (`with_gradient`):

>>> params = split_members(members)[0].params
>>> matvec = lambda v: hvp(loss_fn)(params, v, data, None)
>>> top_eigenvalues(matvec, params, jax.random.key(2)).values.shape, ntk(net.apply)(params, x[:3]).shape
((1,), (3, 3, 1, 1))
>>> estimated = step(evolution_strategies(loss_fn, scale=0.1, num_pairs=16), tx)
>>> _, metrics = jax.jit(estimated)(init(params, tx, key=jax.random.key(3)), data)
>>> metrics["loss"].shape
()

**Games** are losses too, of which each player follows its own: `game({...})` or `zero_sum`, played at once by `step`,
in turn by `alternating`, ahead of one another by `unroll_player` and `best_response`, with a link for each
(`optim.by_player`) or links that all take. `field_metrics`, `ritz_values` and `duality_gap` say what a game is like
where it stands; `adversarial` puts any loss under an attack:

>>> value = zero_sum(lambda p, batch, key: p["x"] * p["y"], minimize="x", maximize="y")
>>> players, tx = {"x": jnp.array(1.0), "y": jnp.array(1.0)}, optim.extragradient(optim.sgd(0.1))
>>> train = loop(step(value, tx), lambda key: None, num_steps=1000)
>>> train_state, _ = jax.jit(train)(init(players, tx), jax.random.key(0))
>>> {name: abs(player.item()) < 0.02 for name, player in train_state.params.items()}
{'x': True, 'y': True}

Averages and lookahead go inside `by_player`, to each player, and `optim.eval_params` finds them there:

>>> each = optim.by_player({p: optim.lookahead(optim.sgd(0.1), 20) for p in ("x", "y")})
>>> train = loop(alternating(value, each, {"x": 1, "y": 1}), lambda key: None, num_steps=400)
>>> train_state, _ = jax.jit(train)(init(players, each), jax.random.key(0))
>>> {p: abs(x.item()) < 1e-3 for p, x in optim.eval_params(train_state.opt_state, train_state.params).items()}
{'x': True, 'y': True}

**Runs that are stopped** go on: with `checkpoints`, `fit` saves now and then, at its end, and before it answers to
Ctrl-C or SIGTERM. The same program, run again, takes up the last checkpoint that is whole, and ends with the very
numbers, and the history, of a run that nothing stopped:

>>> import tempfile
>>> feed, begin = batches(data, 16, key=jax.random.key(1)), init(net.init(jax.random.key(0), x), tx)
>>> saved = Checkpoints(tempfile.mkdtemp(), keep=3)
>>> _ = fit(step(loss_fn, tx), begin, feed, num_steps=70, checkpoints=saved, progress=False)
>>> resumed, history = fit(step(loss_fn, tx), begin, feed, num_steps=300, checkpoints=saved, progress=False)
>>> whole, _ = fit(step(loss_fn, tx), begin, feed, num_steps=300, progress=False)
>>> resumed.step.item(), saved.steps, all(map(jnp.array_equal, jax.tree.leaves(resumed), jax.tree.leaves(whole)))
(300, (70, 300), True)

**Guard rails** are a function each. Where NaN may come, `guarded` stops, `optim.skip_not_finite` skips, and `roll_back`
goes back; its help says which to choose. `microbatch` takes a large batch in parts, `loss_scaled` keeps gradients that
float16 would lose, `with_norms` and `with_grad_norms` measure by path, `early_stop` reads a history. Reports go to logs
(`csv_log`, `json_log`, `tensorboard_log`), a window of them under `profile`; `compile_times` says what programs cost
before they run, `compiler_options` speeds up convolutions on CPUs, and `keep_cpu_memory` saves page faults:

>>> half = nets.cast(net, compute="float16", outputs="float32")
>>> loss = loss_scaled(lambda params, batch, key: squared_error(half.apply(params, batch["x"]), batch["y"]))
>>> tx = optim.skip_not_finite(optim.adam(1e-2))
>>> safe = roll_back(step(microbatch(loss, 4, stateful=True), tx, stateful=True), every=50)
>>> begin, rows = with_roll_back(init(net.init(jax.random.key(0), x), tx, state=loss_scale())), []
>>> _ = fit(with_norms(safe), begin, feed, num_steps=300, on_report=logs(Log(rows.append)), progress=False)
>>> rows[-1]["loss"] < rows[0]["loss"], rows[-1]["overflow"], rows[-1]["rolled_back"]
(True, 0.0, 0.0)

**Sweeps** are a run for every combination of values and every seed, one compiled program whose arguments the values
are; other values compile nothing. `renga sweep` does it for configs:

>>> def run(values, key):
...     tx = optim.sgd(values["rate"], momentum=values["momentum"])
...     train = loop(step(lambda w, batch, key: jnp.sum((w - 3) ** 2), tx), lambda key: None, 20)
...     train_state, metrics = train(init(jax.random.normal(key, (2,)), tx), key)
...     return train_state.params, {"loss": metrics["loss"][-1]}
>>> found = sweep(run, {"rate": [0.001, 0.01, 0.1], "momentum": [0.0, 0.5]}, seeds=5)
>>> found.metrics["loss"].shape, round(found.best("loss").values["rate"].item(), 3)
((30,), 0.1)

**Many devices** are a mesh and rules by path, given to `fit`; the step stays as it is, the chain's state lies where its
parameters do, and the numbers are those of one device. `data_parallel` and `fully_sharded` are rules; patterns before
them make tensor parallelism. Of several processes (`initialize_distributed`) each reads its rows (`local_batches`):

>>> mesh, rules = jax.make_mesh((1,), ("data",)), fully_sharded(min_size=1)
>>> tx = optim.adam(1e-2)
>>> begin = init_sharded(lambda: init(net.init(jax.random.key(0), x), tx), mesh, rules)
>>> feed = local_batches(batches(data, 16, key=jax.random.key(1)), mesh, rules)
>>> spread, history = fit(step(loss_fn, tx), begin, feed, num_steps=100, mesh=mesh, rules=rules, progress=False)
>>> jax.tree.leaves(spread.params)[-1].sharding.mesh == mesh
True

**Rollouts** are a policy acting in an environment, one scan that goes on where it stopped. Environments are values with
gymnax's functions; `training.rl` has some, wrappers and bridges to others, and what learners are made of: returns and
advantages that tell a termination from a truncation, minibatches, replay buffers, distributions of actions:

>>> env = rl.normalize_observations(rl.vectorize(rl.cart_pole(), 8))
>>> collect = rollout(env, lambda params, obs, key: (obs @ params > 0).astype(int), 50)
>>> rollout_state, seen = jax.jit(collect)(jnp.ones(4), collect.init(jax.random.key(0), jnp.ones(4)))
>>> returns = rl.discounted_returns(seen.reward, **seen.ends, discount=0.99)
>>> seen.next_obs.shape, returns.shape, rl.observation_statistics(rollout_state).mean.shape
((50, 8, 4), (50, 8), (4,))
"""

from . import rl as rl
from ._accountant import epsilon as epsilon
from ._accountant import noise_multiplier as noise_multiplier
from ._adversarial import adversarial as adversarial
from ._adversarial import fgsm as fgsm
from ._adversarial import pgd as pgd
from ._alternating import alternating as alternating
from ._awp import awp as awp
from ._checkpoints import CheckpointError as CheckpointError
from ._checkpoints import Checkpoints as Checkpoints
from ._checkpoints import CheckpointWarning as CheckpointWarning
from ._checkpoints import Saved as Saved
from ._compile_times import CompileTimes as CompileTimes
from ._compile_times import compile_times as compile_times
from ._compiler import compiler_options as compiler_options
from ._curvature import empirical_fisher_vp as empirical_fisher_vp
from ._curvature import fisher_vp as fisher_vp
from ._curvature import ggn_vp as ggn_vp
from ._curvature import hvp as hvp
from ._data import Batches as Batches
from ._data import batches as batches
from ._diagnostics import RitzValues as RitzValues
from ._diagnostics import duality_gap as duality_gap
from ._diagnostics import field_jvp as field_jvp
from ._diagnostics import field_metrics as field_metrics
from ._diagnostics import ritz_values as ritz_values
from ._diagnostics import tracked as tracked
from ._distributed import initialize_distributed as initialize_distributed
from ._early_stop import early_stop as early_stop
from ._ensemble import ensemble as ensemble
from ._ensemble import join_members as join_members
from ._ensemble import split_members as split_members
from ._environment import Environment as Environment
from ._environment import environment as environment
from ._estimated import with_gradient as with_gradient
from ._estimators import evolution_strategies as evolution_strategies
from ._estimators import forward_gradient as forward_gradient
from ._evaluate import evaluate as evaluate
from ._evaluate_tasks import TaskScores as TaskScores
from ._evaluate_tasks import evaluate_tasks as evaluate_tasks
from ._fit import fit as fit
from ._game import best_response as best_response
from ._game import game as game
from ._game import unroll_player as unroll_player
from ._game import zero_sum as zero_sum
from ._gan import GanLosses as GanLosses
from ._gan import gradient_penalty as gradient_penalty
from ._gan import hinge_gan as hinge_gan
from ._gan import least_squares_gan as least_squares_gan
from ._gan import non_saturating_gan as non_saturating_gan
from ._gan import relativistic_average_gan as relativistic_average_gan
from ._gan import relativistic_gan as relativistic_gan
from ._gan import saturating_gan as saturating_gan
from ._gan import slope_penalty as slope_penalty
from ._gan import wasserstein_gan as wasserstein_gan
from ._guarded import NotFiniteError as NotFiniteError
from ._guarded import guarded as guarded
from ._imaml import imaml as imaml
from ._imaml import proximal as proximal
from ._implicit import conjugate_gradient as conjugate_gradient
from ._implicit import implicit as implicit
from ._implicit import neumann as neumann
from ._jacobian import hessian as hessian
from ._jacobian import jacobian as jacobian
from ._logs import Log as Log
from ._logs import Writer as Writer
from ._logs import csv_log as csv_log
from ._logs import json_log as json_log
from ._logs import logs as logs
from ._logs import tensorboard_log as tensorboard_log
from ._loop import loop as loop
from ._loss_scale import LossScale as LossScale
from ._loss_scale import loss_scale as loss_scale
from ._loss_scale import loss_scaled as loss_scaled
from ._losses import accuracy as accuracy
from ._losses import binary_cross_entropy as binary_cross_entropy
from ._losses import cross_entropy as cross_entropy
from ._losses import squared_error as squared_error
from ._maml import Adapted as Adapted
from ._maml import adapt as adapt
from ._maml import inner_states as inner_states
from ._maml import maml as maml
from ._maml import multi_step_weights as multi_step_weights
from ._memory import CpuMemory as CpuMemory
from ._memory import keep_cpu_memory as keep_cpu_memory
from ._microbatch import microbatch as microbatch
from ._minimize import bilevel as bilevel
from ._minimize import minimize as minimize
from ._minimize import unrolled as unrolled
from ._norms import norms as norms
from ._norms import with_grad_norms as with_grad_norms
from ._norms import with_norms as with_norms
from ._ntk import ntk as ntk
from ._per_example import ClippedSum as ClippedSum
from ._per_example import clipped_sum as clipped_sum
from ._per_example import per_example as per_example
from ._per_example import per_example_norms as per_example_norms
from ._per_example import per_example_ways as per_example_ways
from ._pipeline import pipelined as pipelined
from ._poisson import PoissonBatches as PoissonBatches
from ._poisson import poisson_batches as poisson_batches
from ._predictive import ClassPrediction as ClassPrediction
from ._predictive import ValuePrediction as ValuePrediction
from ._predictive import predict_classes as predict_classes
from ._predictive import predict_values as predict_values
from ._private import noised as noised
from ._private import private as private
from ._profile import profile as profile
from ._reptile import reptile as reptile
from ._roll_back import RollBack as RollBack
from ._roll_back import roll_back as roll_back
from ._roll_back import with_roll_back as with_roll_back
from ._rollout import Rollout as Rollout
from ._rollout import rollout as rollout
from ._samples import Modes as Modes
from ._samples import frechet_distance as frechet_distance
from ._samples import maximum_mean_discrepancy as maximum_mean_discrepancy
from ._samples import modes_found as modes_found
from ._samples import sliced_wasserstein as sliced_wasserstein
from ._sharding import ShardingRules as ShardingRules
from ._sharding import data_parallel as data_parallel
from ._sharding import fully_sharded as fully_sharded
from ._sharding import init_sharded as init_sharded
from ._sharding import shard as shard
from ._sharding import shardings_of as shardings_of
from ._specs import Largest as Largest
from ._spectrum import Eigenpairs as Eigenpairs
from ._spectrum import Spectrum as Spectrum
from ._spectrum import diagonal as diagonal
from ._spectrum import diagonal_estimate as diagonal_estimate
from ._spectrum import spectral_density as spectral_density
from ._spectrum import top_eigenvalues as top_eigenvalues
from ._spectrum import trace_estimate as trace_estimate
from ._spread import LocalBatches as LocalBatches
from ._spread import local_batches as local_batches
from ._state import TrainState as TrainState
from ._state import init as init
from ._statistics import NoiseScale as NoiseScale
from ._statistics import gradient_noise_scale as gradient_noise_scale
from ._statistics import influence as influence
from ._step import step as step
from ._sweep import Sweep as Sweep
from ._sweep import sweep as sweep
from ._tasks import episodes as episodes
from ._tasks import sinusoids as sinusoids
from ._tasks import split_classes as split_classes
from ._trajectory import RolloutState as RolloutState
from ._trajectory import Trajectory as Trajectory
from ._trajectory import episode_metrics as episode_metrics
