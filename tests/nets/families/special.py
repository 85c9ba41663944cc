"""Squeeze and excitation, mixtures of experts, quantisers, moving averages."""

import jax

from renga import nets

from ..kit import Case, floats


@nets.layer
def first(net: nets.Net) -> nets.Net:
    """The first of what a network returns."""

    @nets.define
    def body(*inputs, net=net):
        return net(*inputs)[0]

    return body


@nets.define
def centred(x: jax.Array, *, mean=nets.ema(0.9)):
    """The input less the moving average of its mean over the batch."""
    return x - mean(x.reshape(-1, x.shape[-1]).mean(0))


def experts(expert: nets.Net, **options: object) -> nets.Net:
    return first(nets.mixture_of_experts(expert, 4, **options))  # pyright: ignore[reportArgumentType]


STRAIGHT = {"derivatives": "gradients pass straight through to the input, as if it had not been replaced"}
noisy_expert = nets.serial(nets.linear(6), nets.dropout(0.5), nets.linear(3))
counting_expert = nets.serial(nets.linear(3), nets.batch_norm())

CASES: dict[str, Case] = {
    "squeeze_excite": Case(lambda: nets.squeeze_excite(2), floats(2, 3, 4, 4)),
    "squeeze_excite of a sequence": Case(
        lambda: nets.squeeze_excite(hidden=3, num_axes=1, activation=jax.nn.silu), floats(2, 5, 4), long=True),
    "squeeze_excite of a volume": Case(lambda: nets.squeeze_excite(num_axes=3), floats(2, 2, 3, 2, 4), long=True),
    "mixture_of_experts": Case(lambda: experts(nets.linear(3)), floats(6, 5)),
    "mixture_of_experts over tokens": Case(lambda: experts(nets.mlp(6, 3), top_k=3), floats(2, 3, 5), long=True),
    "mixture_of_experts with one choice": Case(
        lambda: experts(nets.linear(3), top_k=1, gates="all"), floats(6, 5), long=True
    ),
    "mixture_of_experts with capacity": Case(
        lambda: experts(nets.linear(3), gates="all", capacity_factor=1.0), floats(2, 6, 5), long=True
    ),
    "mixture_of_experts with noise": Case(lambda: experts(noisy_expert), floats(6, 5), draws=True, long=True),
    "mixture_of_experts with noise and capacity": Case(
        lambda: experts(noisy_expert, capacity_factor=2.0), floats(2, 6, 5), draws=True, long=True),
    "mixture_of_experts with state": Case(lambda: experts(counting_expert), floats(6, 5), long=True),
    "vector_quantise": Case(lambda: first(nets.vector_quantise(6)), floats(4, 3, 2), exempt=STRAIGHT),
    "vector_quantise_ema": Case(
        lambda: first(nets.vector_quantise_ema(6)), floats(4, 3, 2), exempt=STRAIGHT, long=True
    ),
    "ema": Case(lambda: centred, floats(4, 3), constant=True),
}  # fmt: skip
