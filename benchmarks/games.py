"""One step of a GAN, both players at once: optimistic Adam, batch norm in both, computed in bfloat16.

    pip install -e '.[bench]'
    python benchmarks/games.py             # networks of 64-256-256-64 and 64-256-256-1, batches of 128

Both sides do the same arithmetic from parameters kept in float32: the non-saturating losses, statistics of the batch
norms moved along, one direction of Adam and the one before. In JAX each is one compiled function whose buffers are
donated. Torch is eager, under its autocast, in a process of its own.
"""

import importlib.util
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from runner import Promise, Round, apart, comparison, main

from renga import nets, optim, training

LATENTS, PIXELS, UNITS, BATCH = 64, 64, 256, 128
RATE, BETA1, BETA2, EPS = 2e-4, 0.5, 0.999, 1e-8
DECAY, NORM_EPS, SLOPE = 0.9, 1e-5, 0.2
COMPUTE = "bfloat16"
NUM_STEPS = 20


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Images and latents."""
    draw = np.random.default_rng(0)
    return draw.uniform(-1, 1, (BATCH, PIXELS)).astype("f"), draw.normal(size=(BATCH, LATENTS)).astype("f")


def weights() -> dict[str, Any]:
    """Parameters of both players, layer by layer."""
    draw = np.random.default_rng(1)

    def layers(*sizes: int) -> list[dict[str, np.ndarray]]:
        pairs = itertools.pairwise(sizes)
        made = [{"w": draw.normal(0, i**-0.5, (i, o)).astype("f"), "b": np.zeros(o, "f")} for i, o in pairs]
        for layer in made[:-1]:
            layer |= {"scale": np.ones_like(layer["b"]), "offset": np.zeros_like(layer["b"])}
        return made

    return {"generator": layers(LATENTS, UNITS, UNITS, PIXELS), "critic": layers(PIXELS, UNITS, UNITS, 1)}


def statistics() -> dict[str, Any]:
    """Running statistics of both players' norms, layer by layer."""
    return {
        player: [{"mean": np.zeros_like(layer["b"]), "var": np.ones_like(layer["b"])} for layer in layers[:-1]]
        for player, layers in weights().items()
    }


def repeated(step: Callable[[Any, Any], Any], carry: Any) -> Round:
    """A round of steps of `(carry, (images, latents)) -> carry`."""
    step, batch = jax.jit(step, donate_argnums=0), jax.tree.map(jnp.asarray, arrays())
    held = [jax.tree.map(jnp.array, carry)]

    def run() -> int:
        for _ in range(NUM_STEPS):
            held[0] = step(held[0], batch)
        jax.block_until_ready(held[0])
        return NUM_STEPS

    run.held = held  # pyright: ignore[reportFunctionMemberAccess] - for the test that all do the same
    return run


def network(outputs: int, activation: Callable[[jax.Array], jax.Array], last: Callable[[jax.Array], jax.Array]) -> Any:
    """One of the players."""
    hidden = [each for _ in range(2) for each in (nets.linear(UNITS), nets.batch_norm(), activation)]
    return nets.cast(nets.serial(*hidden, nets.linear(outputs), last), compute=COMPUTE, outputs="float32")


def leaky(x: jax.Array) -> jax.Array:
    """The critic's activation."""
    return jax.nn.leaky_relu(x, SLOPE)


def renga(*, apart: bool = False) -> Round:
    """Ours: both losses from one pass, or a loss of each player's own as `training.game` takes them."""
    generator, critic = network(PIXELS, jax.nn.relu, jnp.tanh), network(1, leaky, lambda x: x[..., 0])

    def losses(players: Any, state: Any, batch: Any, key: Any) -> Any:
        real, latents = batch
        fake, of_generator = generator.apply(players["generator"], state["generator"], latents, train=True)
        on_real, of_critic = critic.apply(players["critic"], state["critic"], real, train=True)
        on_fake, of_critic = critic.apply(players["critic"], of_critic, fake, train=True)
        found = training.non_saturating_gan(on_real, on_fake)._asdict()
        return found, ({"generator": of_generator, "critic": of_critic}, {})

    def of(player: str) -> Callable[..., Any]:
        def loss(*args: Any) -> Any:
            found, beside = losses(*args)
            return found[player], beside

        return loss

    field = training.game({player: of(player) for player in ("generator", "critic")}, stateful=True)
    tx = optim.optimistic_adam(RATE, BETA1, BETA2, EPS, first_step="same")
    step = training.step(field if apart else losses, tx, stateful=True)
    params = {player: _named(layers, ("w", "b", "scale", "offset")) for player, layers in weights().items()}
    state = {player: _named(layers, ("mean", "var")) for player, layers in statistics().items()}
    return repeated(lambda carry, batch: step(carry, batch)[0], training.init(params, tx, state=state))


def _named(layers: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    """Arrays of layers under the names that `nets.serial` gives them."""
    found: dict[str, Any] = {}
    for place, layer in enumerate(layers):
        suffix = f"_{place}" if place else ""
        linear = {name: layer[name] for name in ("w", "b") if name in layer and name in names}
        norm = {name: layer[name] for name in layer if name not in ("w", "b") and name in names}
        found |= {f"linear{suffix}": linear} if linear else {}
        found |= {f"batch_norm{suffix}": norm} if norm else {}
    return found


def by_hand() -> Round:
    """What one would write without a library, of links Optax's."""

    def normed(layer: Any, stats: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        wide = x.astype(jnp.float32)
        mean = wide.mean(0)
        var = jnp.square(wide - mean).mean(0)
        moved = {"mean": mean, "var": var}
        stats = jax.tree.map(lambda old, new: DECAY * old + (1 - DECAY) * new, stats, moved)
        scale = jax.lax.rsqrt(var + NORM_EPS) * layer["scale"].astype(jnp.float32)
        return ((wide - mean) * scale + layer["offset"].astype(jnp.float32)).astype(x.dtype), stats

    def forward(layers: Any, stats: Any, x: jax.Array, activation: Any) -> tuple[jax.Array, Any]:
        layers, x = jax.tree.map(lambda leaf: leaf.astype(COMPUTE), (layers, x))
        moved = []
        for layer, old in zip(layers[:-1], stats, strict=True):
            x, new = normed(layer, old, x @ layer["w"] + layer["b"])
            moved.append(new)
            x = activation(x)
        return x @ layers[-1]["w"] + layers[-1]["b"], moved

    def generate(params: Any, stats: Any, latents: jax.Array) -> tuple[jax.Array, Any]:
        x, stats = forward(params, stats, latents, jax.nn.relu)
        return jnp.tanh(x).astype(jnp.float32), stats

    def tell(params: Any, stats: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        x, stats = forward(params, stats, x, leaky)
        return x[..., 0].astype(jnp.float32), stats

    def generator_loss(params: Any, critic: Any, stats: Any, latents: jax.Array) -> tuple[jax.Array, Any]:
        fake, moved = generate(params, stats["generator"], latents)
        on_fake, _ = tell(critic, stats["critic"], fake)
        return jax.nn.softplus(-on_fake).mean(), (fake, moved)

    def critic_loss(params: Any, stats: Any, real: jax.Array, fake: jax.Array) -> tuple[jax.Array, Any]:
        on_real, moved = tell(params, stats["critic"], real)
        on_fake, moved = tell(params, moved, fake)
        return jax.nn.softplus(-on_real).mean() + jax.nn.softplus(on_fake).mean(), moved

    adam = optax.chain(optax.scale_by_adam(BETA1, BETA2, EPS), optax.scale_by_optimistic_gradient(), optax.scale(-RATE))

    def step(carry: Any, batch: Any) -> Any:
        params, stats, opt_state = carry
        real, latents = batch
        generator_grad, critic_grad = (jax.grad(loss, has_aux=True) for loss in (generator_loss, critic_loss))
        of_generator, (fake, moved) = generator_grad(params["generator"], params["critic"], stats, latents)
        of_critic, told = critic_grad(params["critic"], stats, real, fake)
        updates, opt_state = adam.update({"generator": of_generator, "critic": of_critic}, opt_state, params)
        return optax.apply_updates(params, updates), {"generator": moved, "critic": told}, opt_state

    return repeated(step, (weights(), statistics(), adam.init(weights())))


def torch(num_steps: int) -> Round:
    """Torch, as its documentation writes a GAN, with optimistic Adam by hand over all parameters at once."""
    import torch as th

    many: Any = th  # its operations on lists are there, and named as if private
    from torch import nn

    def network(inputs: int, outputs: int, activation: Any, last: Any) -> Any:
        def hidden(size: int) -> list[Any]:
            return [nn.Linear(size, UNITS), nn.BatchNorm1d(UNITS, NORM_EPS, 1 - DECAY), activation]

        return nn.Sequential(*hidden(inputs), *hidden(UNITS), nn.Linear(UNITS, outputs), last)

    generator = network(LATENTS, PIXELS, nn.ReLU(), nn.Tanh())
    critic = network(PIXELS, 1, nn.LeakyReLU(SLOPE), nn.Flatten(0))
    params = [*generator.parameters(), *critic.parameters()]
    split = len(list(generator.parameters()))
    real, latents = map(th.from_numpy, arrays())
    means, squares, before = ([th.zeros_like(param) for param in params] for _ in range(3))
    softplus, count = nn.functional.softplus, 0

    def step() -> None:
        nonlocal count, before
        with th.autocast("cpu", dtype=th.bfloat16):
            fake = generator(latents)
            on_real, on_fake = critic(real).float(), critic(fake).float()
            critic_loss = softplus(-on_real).mean() + softplus(on_fake).mean()
            generator_loss = softplus(-on_fake).mean()
        grads = th.autograd.grad(generator_loss, params[:split], retain_graph=True)
        grads += th.autograd.grad(critic_loss, params[split:])
        count += 1
        with th.no_grad():
            many._foreach_lerp_(means, grads, 1 - BETA1)
            many._foreach_mul_(squares, BETA2)
            many._foreach_addcmul_(squares, grads, grads, 1 - BETA2)
            sizes = many._foreach_sqrt(many._foreach_div(squares, 1 - BETA2**count))
            now = many._foreach_div(many._foreach_div(means, 1 - BETA1**count), many._foreach_add(sizes, EPS))
            many._foreach_add_(params, now, alpha=-2 * RATE)
            many._foreach_add_(params, before, alpha=RATE)
            before = now

    def run() -> int:
        for _ in range(num_steps):
            step()
        return num_steps

    return run


@comparison(
    "gan",
    "one step of a GAN, both players, bfloat16",
    "JAX + Optax by hand",
    num_rounds=25,
    promises=[Promise("renga", "JAX + Optax by hand", 1.05)],
)
def cases() -> Mapping[str, Round]:
    """Ours, JAX by hand, and torch where it is installed."""
    found = {"JAX + Optax by hand": by_hand(), "renga": renga(), "renga, a loss each": renga(apart=True)}
    if importlib.util.find_spec("torch"):
        found["torch, eager"] = apart(torch, NUM_STEPS)
    return found


if __name__ == "__main__":
    main()
