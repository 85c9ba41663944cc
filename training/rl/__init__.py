"""Reinforcement learning: environments, returns, replay and policies, the parts of a learner that fits on a page.

**Environments** are values: `cart_pole()`, `pendulum()`, `recall(num_cues, delay)`, `navigation()`. Those of gymnax
need no bridge; `from_gymnasium` runs one on the host, `from_brax` takes brax's interface. Wrappers are functions of
them, around or inside of `vectorize`, that keep truncation apart from termination, and the final observation.
Statistics that run along are part of the state, to be read out of it and held fast in evaluation:

>>> env = normalize_observations(time_limit(vectorize(cart_pole(), 8), 200))
>>> collect = training.rollout(env, lambda params, obs, key: (obs @ params > 0).astype(int), 50)
>>> rollout_state, trajectory = jax.jit(collect)(jnp.ones(4), collect.init(jax.random.key(0), jnp.ones(4)))
>>> learnt = observation_statistics(rollout_state)
>>> evaluated = normalize_observations(cart_pole(), statistics=learnt, update=False)
>>> trajectory.next_obs.shape, learnt.mean.shape, evaluated.action_space()
((50, 8, 4), (4,), Discrete(2))
"""

from ._brax import from_brax as from_brax
from ._cart_pole import CartPoleParams as CartPoleParams
from ._cart_pole import CartPoleState as CartPoleState
from ._cart_pole import cart_pole as cart_pole
from ._distributions import Categorical as Categorical
from ._distributions import Distribution as Distribution
from ._distributions import Normal as Normal
from ._distributions import categorical as categorical
from ._distributions import normal as normal
from ._evaluate_policy import Episodes as Episodes
from ._evaluate_policy import evaluate_policy as evaluate_policy
from ._frame_stack import FrameStackState as FrameStackState
from ._frame_stack import frame_stack as frame_stack
from ._gymnasium import GymnasiumState as GymnasiumState
from ._gymnasium import from_gymnasium as from_gymnasium
from ._memory import RecallState as RecallState
from ._memory import recall as recall
from ._n_step import NStep as NStep
from ._n_step import n_step as n_step
from ._n_step import take_step as take_step
from ._navigation import NavigationParams as NavigationParams
from ._navigation import NavigationState as NavigationState
from ._navigation import navigation as navigation
from ._navigation import navigation_tasks as navigation_tasks
from ._normalize import NormalizedObservationsState as NormalizedObservationsState
from ._normalize import NormalizedRewardsState as NormalizedRewardsState
from ._normalize import normalize_observations as normalize_observations
from ._normalize import normalize_rewards as normalize_rewards
from ._normalize import observation_statistics as observation_statistics
from ._normalize import reward_statistics as reward_statistics
from ._off_policy import retrace as retrace
from ._off_policy import vtrace as vtrace
from ._packing import Packed as Packed
from ._packing import chunks as chunks
from ._packing import minibatches as minibatches
from ._packing import pack_episodes as pack_episodes
from ._packing import sequence_minibatches as sequence_minibatches
from ._pendulum import PendulumParams as PendulumParams
from ._pendulum import PendulumState as PendulumState
from ._pendulum import pendulum as pendulum
from ._prioritized import PrioritizedReplay as PrioritizedReplay
from ._prioritized import PrioritizedSample as PrioritizedSample
from ._prioritized import PrioritizedState as PrioritizedState
from ._prioritized import prioritized_replay as prioritized_replay
from ._replay import Replay as Replay
from ._replay import ReplayState as ReplayState
from ._replay import replay as replay
from ._returns import Estimates as Estimates
from ._returns import discounted_returns as discounted_returns
from ._returns import gae as gae
from ._returns import lambda_returns as lambda_returns
from ._returns import n_step_returns as n_step_returns
from ._running import RunningStatistics as RunningStatistics
from ._spaces import Box as Box
from ._spaces import Discrete as Discrete
from ._tanh_normal import TanhNormal as TanhNormal
from ._tanh_normal import tanh_normal as tanh_normal
from ._wrappers import TimeLimitState as TimeLimitState
from ._wrappers import clip_actions as clip_actions
from ._wrappers import scale_actions as scale_actions
from ._wrappers import time_limit as time_limit
from ._wrappers import transform_observations as transform_observations
from ._wrappers import transform_rewards as transform_rewards
from ._wrappers import vectorize as vectorize
