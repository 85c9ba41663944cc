"""Optax's own optimizers, clipping, masks and schedules, recorded: each is the call that made it."""

import functools
from typing import Any

import optax
import optax.contrib

from .._call import recording
from ._link import link


def _named(name: str) -> Any:
    """One of Optax's functions that is a `functools.partial`, and so has no name of its own."""
    function = getattr(optax, name)
    named = functools.partial(function)
    vars(named).update(__name__=name, __qualname__=name, __doc__=function.__doc__)
    return named


# Optimizers
adabelief = link(optax.adabelief, __name__)
adadelta = link(optax.adadelta, __name__)
adafactor = link(optax.adafactor, __name__)
adagrad = link(optax.adagrad, __name__)
adam = link(optax.adam, __name__)
adamax = link(optax.adamax, __name__)
adamaxw = link(optax.adamaxw, __name__)
adamw = link(optax.adamw, __name__)
adan = link(optax.adan, __name__)
amsgrad = link(optax.amsgrad, __name__)
fromage = link(optax.fromage, __name__)
lamb = link(optax.lamb, __name__)
lars = link(optax.lars, __name__)
lbfgs = link(optax.lbfgs, __name__)
lion = link(optax.lion, __name__)
nadam = link(_named("nadam"), __name__)
nadamw = link(_named("nadamw"), __name__)
noisy_sgd = link(optax.noisy_sgd, __name__)
novograd = link(optax.novograd, __name__)
polyak_sgd = link(optax.polyak_sgd, __name__)
radam = link(optax.radam, __name__)
rmsprop = link(optax.rmsprop, __name__)
rprop = link(optax.rprop, __name__)
sgd = link(optax.sgd, __name__)
sign_sgd = link(optax.sign_sgd, __name__)
signum = link(optax.signum, __name__)
sm3 = link(optax.sm3, __name__)
yogi = link(optax.yogi, __name__)

# Optimizers of optax.contrib
adopt = link(optax.contrib.adopt, __name__)
dadapt_adamw = link(optax.contrib.dadapt_adamw, __name__)
momo = link(optax.contrib.momo, __name__)
momo_adam = link(optax.contrib.momo_adam, __name__)
muon = link(optax.contrib.muon, __name__)
prodigy = link(optax.contrib.prodigy, __name__)
reduce_on_plateau = link(optax.contrib.reduce_on_plateau, __name__)
schedule_free = link(optax.contrib.schedule_free, __name__)
schedule_free_adamw = link(optax.contrib.schedule_free_adamw, __name__)
schedule_free_sgd = link(optax.contrib.schedule_free_sgd, __name__)

# Clipping
adaptive_grad_clip = link(optax.adaptive_grad_clip, __name__)
clip = link(optax.clip, __name__)
clip_by_block_rms = link(optax.clip_by_block_rms, __name__)
zero_nans = link(optax.zero_nans, __name__)

# Parts of optimizers
add_decayed_weights = link(optax.add_decayed_weights, __name__)
add_noise = link(optax.add_noise, __name__)
centralize = link(optax.centralize, __name__)
ema = link(optax.ema, __name__)
identity = link(optax.identity, __name__)
scale = link(optax.scale, __name__)
scale_by_adam = link(optax.scale_by_adam, __name__)
scale_by_learning_rate = link(optax.scale_by_learning_rate, __name__)
scale_by_rms = link(optax.scale_by_rms, __name__)
scale_by_schedule = link(optax.scale_by_schedule, __name__)
scale_by_trust_ratio = link(optax.scale_by_trust_ratio, __name__)
set_to_zero = link(optax.set_to_zero, __name__)
trace = link(optax.trace, __name__)

# Masks, groups and guards
apply_if_finite = link(optax.apply_if_finite, __name__)

# Schedules: functions of the step
constant_schedule = recording(optax.constant_schedule, home=__name__)
cosine_decay_schedule = recording(optax.cosine_decay_schedule, home=__name__)
cosine_onecycle_schedule = recording(optax.cosine_onecycle_schedule, home=__name__)
exponential_decay = recording(optax.exponential_decay, home=__name__)
join_schedules = recording(optax.join_schedules, home=__name__)
linear_onecycle_schedule = recording(optax.linear_onecycle_schedule, home=__name__)
linear_schedule = recording(optax.linear_schedule, home=__name__)
piecewise_constant_schedule = recording(optax.piecewise_constant_schedule, home=__name__)
piecewise_interpolate_schedule = recording(optax.piecewise_interpolate_schedule, home=__name__)
polynomial_schedule = recording(optax.polynomial_schedule, home=__name__)
sgdr_schedule = recording(optax.sgdr_schedule, home=__name__)
warmup_constant_schedule = recording(optax.warmup_constant_schedule, home=__name__)
warmup_cosine_decay_schedule = recording(optax.warmup_cosine_decay_schedule, home=__name__)
warmup_exponential_decay_schedule = recording(optax.warmup_exponential_decay_schedule, home=__name__)
