"""Every kind of link, by name: the laws of optim hold for all of them, and joining is one line."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from renga import optim
from renga.optim import Link


def matrices(params: Any) -> Any:
    """A mask: whether a parameter has two axes."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def by_rank(params: Any) -> Any:
    """Labels for `partition`: a parameter is a matrix or a vector."""
    return jax.tree.map(lambda leaf: "matrix" if leaf.ndim > 1 else "vector", params)


@optim.link
def plain_sgd(learning_rate: float, *, momentum: float = 0.0) -> optax.GradientTransformation:
    """A link of the user's own."""
    return optax.chain(optax.trace(momentum), optax.scale(-learning_rate))


def centred(params: Any) -> Any:
    """The nearest point of a set: all that have a mean of zero in every array."""
    return jax.tree.map(lambda leaf: leaf - leaf.mean(), params)


BY_PATH = {"**/w": "slow", "**": "fast"}
cosine = optim.cosine_decay_schedule
falling = optim.linear_schedule

# Each entry makes its link anew: called twice, it makes two that are equal.
LINKS: dict[str, Callable[[], Link]] = {
    # Sharpness and games
    "sam": lambda: optim.sam(0.05),
    "sam with a schedule": lambda: optim.sam(falling(0.1, 0.0, 5)),
    "optimistic_gradient": lambda: optim.optimistic_gradient(0.1),
    "optimistic_gradient from zero": lambda: optim.optimistic_gradient(0.1, first_step="zero"),
    "optimistic_gradient with a schedule": lambda: optim.optimistic_gradient(falling(0.1, 0.0, 5)),
    "optimistic_gradient with schedules": lambda: optim.optimistic_gradient(
        falling(0.1, 0.0, 5), alpha=falling(1.0, 0.5, 5), beta=falling(0.5, 1.0, 5)
    ),
    "asam": lambda: optim.asam(0.5, unscaled="b"),
    "fisher_sam": lambda: optim.fisher_sam(0.1),
    "friendly_sam": lambda: optim.friendly_sam(0.1),
    "gsam": lambda: optim.gsam(0.1, alpha=0.3),
    "look_sam": lambda: optim.look_sam(0.1, every=2),
    "sam every other step": lambda: optim.sam(0.1, every=2, exclude="b"),
    "anchored": lambda: optim.anchored(optim.sgd(0.1)),
    "competitive": lambda: optim.competitive(0.1),
    "consensus": lambda: optim.consensus(0.5),
    "consensus with a schedule": lambda: optim.consensus(falling(0.1, 0.0, 5)),
    "extragradient": lambda: optim.extragradient(optim.adam(0.1)),
    "extragradient with one state": lambda: optim.extragradient(optim.sgd(0.1, momentum=0.9), moments="second"),
    "extragradient_plus": lambda: optim.extragradient_plus(optim.sgd(0.1), beta=0.25),
    "lola": lambda: optim.lola(0.1),
    "lola without shaping": lambda: optim.lola(0.1, shaping=False),
    "negative_momentum": lambda: optim.negative_momentum(0.1),
    "optimistic_adam": lambda: optim.optimistic_adam(0.1),
    "past_extragradient": lambda: optim.past_extragradient(optim.adam(0.1)),
    "past_extragradient from the same": lambda: optim.past_extragradient(optim.sgd(0.1), first_step="same"),
    "sos": lambda: optim.sos(0.1),
    "symplectic_adjustment": lambda: optim.symplectic_adjustment(0.5),
    "symplectic_adjustment, not aligned": lambda: optim.symplectic_adjustment(0.5, align=False),
    # Averages, windows and states of fewer bits
    "accumulate": lambda: optim.accumulate(optim.adam(0.1), 2),
    "average_params": lambda: optim.average_params(start=1),
    "ema_params": lambda: optim.ema_params(0.9),
    "ema_params, biased": lambda: optim.chain(optim.sgd(0.1), optim.ema_params(0.9, debias=False)),
    "differentiable": lambda: optim.differentiable(optim.adam(0.1)),
    "inject_hyperparams": lambda: optim.inject_hyperparams(optim.chain(optim.sam(0.05), optim.adam(cosine(0.1, 5)))),
    "grouped": lambda: optim.grouped(optim.adam(0.1)),
    "grouped chain": lambda: optim.grouped(optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(0.1))),
    "lookahead": lambda: optim.lookahead(optim.adam(0.1), 2),
    "low_bit": lambda: optim.low_bit(optim.adam(0.1), key=3, min_size=2, block=4),
    "low_bit of 16": lambda: optim.low_bit(optim.adam(0.1), 16, key=3, min_size=2),
    "skip_not_finite": lambda: optim.skip_not_finite(optim.adam(0.1), most_in_a_row=3),
    "skip_not_finite of sam": lambda: optim.skip_not_finite(optim.chain(optim.sam(0.05), optim.adam(0.1))),
    # Optimizers
    "adabelief": lambda: optim.adabelief(0.1),
    "adadelta": lambda: optim.adadelta(0.1),
    "adafactor": lambda: optim.adafactor(0.1),
    "factored adafactor": lambda: optim.adafactor(0.1, min_dim_size_to_factor=2),
    "adagrad": lambda: optim.adagrad(0.1),
    "adam": lambda: optim.adam(0.1),
    "adam with a schedule": lambda: optim.adam(cosine(0.1, 5)),
    "adam with nesterov": lambda: optim.adam(0.1, b1=0.8, nesterov=True),
    "adamax": lambda: optim.adamax(0.1),
    "adamaxw": lambda: optim.adamaxw(0.1),
    "adamw": lambda: optim.adamw(0.1),
    "adamw with a mask": lambda: optim.adamw(0.1, weight_decay=0.1, mask=matrices),
    "adan": lambda: optim.adan(0.1),
    "amsgrad": lambda: optim.amsgrad(0.1),
    "fromage": lambda: optim.fromage(0.1),
    "lamb": lambda: optim.lamb(0.1),
    "lars": lambda: optim.lars(0.1),
    "lbfgs": lambda: optim.lbfgs(memory_size=2),
    "lion": lambda: optim.lion(0.1),
    "nadam": lambda: optim.nadam(0.1),
    "nadamw": lambda: optim.nadamw(0.1),
    "noisy_sgd": lambda: optim.noisy_sgd(0.1, key=3),
    "novograd": lambda: optim.novograd(0.1),
    "polyak_sgd": lambda: optim.polyak_sgd(),
    "radam": lambda: optim.radam(0.1),
    "rmsprop": lambda: optim.rmsprop(0.1),
    "rmsprop with momentum": lambda: optim.rmsprop(0.1, centered=True, momentum=0.9),
    "rprop": lambda: optim.rprop(0.1),
    "sgd": lambda: optim.sgd(0.1),
    "sgd with momentum": lambda: optim.sgd(0.1, momentum=0.9, nesterov=True),
    "sgd with a schedule": lambda: optim.sgd(cosine(0.1, 5)),
    "sign_sgd": lambda: optim.sign_sgd(0.1),
    "signum": lambda: optim.signum(0.1),
    "sm3": lambda: optim.sm3(0.1),
    "yogi": lambda: optim.yogi(0.1),
    "adopt": lambda: optim.adopt(0.1),
    "dadapt_adamw": lambda: optim.dadapt_adamw(),
    "momo": lambda: optim.momo(),
    "momo_adam": lambda: optim.momo_adam(0.1),
    "muon": lambda: optim.muon(0.1),
    "prodigy": lambda: optim.prodigy(),
    "reduce_on_plateau": lambda: optim.reduce_on_plateau(),
    "schedule_free": lambda: optim.schedule_free(optim.sgd(0.1), 0.1),
    "schedule_free_adamw": lambda: optim.schedule_free_adamw(0.1),
    "schedule_free_sgd": lambda: optim.schedule_free_sgd(0.1),
    "soap": lambda: optim.soap(0.1, precondition_frequency=1, weight_decay=0.1),
    # Clipping
    "adaptive_grad_clip": lambda: optim.adaptive_grad_clip(0.01),
    "clip": lambda: optim.clip(0.01),
    "clip_by_block_rms": lambda: optim.clip_by_block_rms(0.01),
    "clip_by_global_norm": lambda: optim.clip_by_global_norm(0.01),
    "project": lambda: optim.chain(optim.sgd(0.1), optim.project(centred)),
    "zero_nans": lambda: optim.zero_nans(),
    # Parts of optimizers
    "add_decayed_weights": lambda: optim.add_decayed_weights(0.1),
    "add_decayed_weights with a mask": lambda: optim.add_decayed_weights(0.1, mask=matrices),
    "add_noise": lambda: optim.add_noise(0.1, 0.5, key=3),
    "centralize": lambda: optim.centralize(),
    "ema": lambda: optim.ema(0.9),
    "identity": lambda: optim.identity(),
    "scale": lambda: optim.scale(-0.1),
    "scale_by_adam": lambda: optim.scale_by_adam(),
    "scale_by_learning_rate": lambda: optim.scale_by_learning_rate(0.1),
    "scale_by_rates": lambda: optim.scale_by_rates(0.1),
    "scale_by_rms": lambda: optim.scale_by_rms(),
    "scale_by_schedule": lambda: optim.scale_by_schedule(falling(-0.1, 0.0, 5)),
    "scale_by_step_rates": lambda: optim.scale_by_step_rates([0.1, 0.05]),
    "scale_by_trust_ratio": lambda: optim.scale_by_trust_ratio(),
    "set_to_zero": lambda: optim.set_to_zero(),
    "trace": lambda: optim.trace(0.9),
    # Masks, groups and guards
    "apply_if_finite": lambda: optim.apply_if_finite(optim.adam(0.1), 3),
    "freeze": lambda: optim.freeze(matrices),
    "masked": lambda: optim.masked(optim.adam(0.1), matrices),
    "partition": lambda: optim.partition({"matrix": optim.adam(0.1), "vector": optim.sgd(0.1)}, by_rank),
    "apply_if_finite of sam": lambda: optim.apply_if_finite(optim.sam(0.05), 3),
    "masked by path": lambda: optim.masked(optim.adam(0.1), "w"),
    "partition by path": lambda: optim.partition({"slow": optim.sgd(0.1), "fast": optim.adam(0.1)}, BY_PATH),
    "freeze by path": lambda: optim.freeze(["b"]),
    "masked sam": lambda: optim.masked(optim.sam(0.05), matrices),
    "partition with sam": lambda: optim.partition(
        {"matrix": optim.chain(optim.sam(0.05), optim.sgd(0.1)), "vector": optim.adam(0.1)}, by_rank
    ),
    # Chains
    "chain": lambda: optim.chain(optim.clip_by_global_norm(1.0), optim.adamw(cosine(0.1, 5))),
    "chain of one": lambda: optim.chain(optim.adam(0.1)),
    "named chain": lambda: optim.chain(optim.clip(1.0), optim.clip(0.5), base=optim.sgd(0.1, momentum=0.9)),
    "nested chain": lambda: optim.chain(optim.chain(optim.clip(1.0), optim.trace(0.9)), step=optim.scale(-0.1)),
    "chain with sam": lambda: optim.chain(optim.sam(0.05), optim.clip_by_global_norm(1.0), optim.adam(0.1)),
    "named chain with sam": lambda: optim.chain(
        look=optim.sam(falling(0.1, 0.0, 5)), base=optim.optimistic_gradient(0.1)
    ),
    "chain with sam in a mask": lambda: optim.chain(optim.masked(optim.sam(0.05), matrices), optim.sgd(0.1)),
    "link of one's own": lambda: plain_sgd(0.1, momentum=0.9),
}
