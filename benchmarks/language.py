"""A train step of a small language model in every library: 4 layers, width 256, 128 tokens, batch 16, Adam.

The shape of GPT-2: learned positions, norms before attention of 4 heads and before a gelu network of 1,024 units.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from runner import Promise, Round, Work, apart, comparison, installed, main
from steps import cross_entropy, equinox_step, jax_step, torch_step

from renga import nets

VOCABULARY, LENGTH, BATCH = 256, 128, 16
LAYERS, WIDTH, HEADS = 4, 256, 4
IDS = jax.random.randint(jax.random.key(0), (BATCH, LENGTH), 0, VOCABULARY)
TARGETS = jnp.roll(IDS, -1, -1)


def renga() -> Round:
    """`nets.transformer`."""
    net = nets.transformer(VOCABULARY, WIDTH, num_layers=LAYERS, num_heads=HEADS, max_length=LENGTH)
    params = net.init(jax.random.key(0), IDS)
    return jax_step(lambda params, x, y: cross_entropy(net.apply(params, x), y), params, IDS, TARGETS)


def haiku() -> Round:
    """Haiku."""
    import haiku as hk

    mask = jnp.tril(jnp.ones((1, 1, LENGTH, LENGTH), bool))
    w_init = hk.initializers.VarianceScaling(1.0)

    def norm(x: jax.Array) -> jax.Array:
        return hk.LayerNorm(-1, True, True)(x)

    def body(ids: jax.Array) -> jax.Array:
        x = hk.Embed(VOCABULARY, WIDTH)(ids) + hk.get_parameter("positions", (LENGTH, WIDTH), init=jnp.zeros)
        for _ in range(LAYERS):
            h = norm(x)
            x = x + hk.MultiHeadAttention(HEADS, WIDTH // HEADS, w_init=w_init)(h, h, h, mask)
            x = x + hk.Linear(WIDTH)(jax.nn.gelu(hk.Linear(4 * WIDTH)(norm(x))))
        return hk.Linear(VOCABULARY, with_bias=False)(norm(x))

    net = hk.without_apply_rng(hk.transform(body))
    params = net.init(jax.random.key(0), IDS)
    return jax_step(lambda params, x, y: cross_entropy(net.apply(params, x), y), params, IDS, TARGETS)


def flax() -> Round:
    """Flax linen."""
    from flax import linen

    class Net(linen.Module):
        @linen.compact
        def __call__(self, ids: jax.Array) -> jax.Array:
            positions = self.param("positions", linen.initializers.zeros, (LENGTH, WIDTH))
            x = linen.Embed(VOCABULARY, WIDTH)(ids) + positions
            mask = linen.make_causal_mask(ids)
            for _ in range(LAYERS):
                x = x + linen.MultiHeadDotProductAttention(HEADS)(linen.LayerNorm()(x), mask=mask)
                x = x + linen.Dense(WIDTH)(linen.gelu(linen.Dense(4 * WIDTH)(linen.LayerNorm()(x))))
            return linen.Dense(VOCABULARY, use_bias=False)(linen.LayerNorm()(x))

    net = Net()
    params = net.init(jax.random.key(0), IDS)
    loss = lambda params, x, y: cross_entropy(jnp.asarray(net.apply(params, x)), y)  # noqa: E731
    return jax_step(loss, params, IDS, TARGETS)


def equinox() -> Round:
    """Equinox: one example under `vmap`."""
    import equinox as eqx

    mask = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))

    class Block(eqx.Module):
        norms: list
        attention: eqx.nn.MultiheadAttention
        up: eqx.nn.Linear
        down: eqx.nn.Linear

        def __init__(self, key: jax.Array):
            keys = jax.random.split(key, 3)
            self.norms = [eqx.nn.LayerNorm(WIDTH), eqx.nn.LayerNorm(WIDTH)]
            bias = dict.fromkeys(("use_query_bias", "use_key_bias", "use_value_bias", "use_output_bias"), True)
            self.attention = eqx.nn.MultiheadAttention(HEADS, WIDTH, **bias, key=keys[0])
            self.up = eqx.nn.Linear(WIDTH, 4 * WIDTH, key=keys[1])
            self.down = eqx.nn.Linear(4 * WIDTH, WIDTH, key=keys[2])

        def __call__(self, x: jax.Array) -> jax.Array:
            h = jax.vmap(self.norms[0])(x)
            x = x + self.attention(h, h, h, mask)
            return x + jax.vmap(lambda h: self.down(jax.nn.gelu(self.up(self.norms[1](h)))))(x)

    class Net(eqx.Module):
        tokens: eqx.nn.Embedding
        positions: jax.Array
        blocks: list
        norm: eqx.nn.LayerNorm
        head: eqx.nn.Linear

        def __init__(self, key: jax.Array):
            keys = jax.random.split(key, LAYERS + 2)
            self.tokens, self.positions = eqx.nn.Embedding(VOCABULARY, WIDTH, key=keys[0]), jnp.zeros((LENGTH, WIDTH))
            self.blocks = [Block(key) for key in keys[2:]]
            self.norm = eqx.nn.LayerNorm(WIDTH)
            self.head = eqx.nn.Linear(WIDTH, VOCABULARY, use_bias=False, key=keys[1])

        def __call__(self, ids: jax.Array) -> jax.Array:
            x = jax.vmap(self.tokens)(ids) + self.positions
            for block in self.blocks:
                x = block(x)
            return jax.vmap(lambda h: self.head(self.norm(h)))(x)

    def loss(model: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return cross_entropy(jax.vmap(model)(x), y)

    return equinox_step(loss, Net(jax.random.key(0)), IDS, TARGETS)


def torch(*, compiled: bool) -> Round:
    """Torch's encoder layers under a causal mask, eager or compiled."""
    import numpy as np
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(VOCABULARY, WIDTH)
            self.positions = nn.Parameter(torch.zeros(LENGTH, WIDTH))
            layer = nn.TransformerEncoderLayer(
                *(WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu"), batch_first=True, norm_first=True
            )
            self.blocks = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
            self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
            self.mask = nn.Transformer.generate_square_subsequent_mask(LENGTH)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.blocks(self.tokens(ids) + self.positions, self.mask, is_causal=True))

    net = Net()
    x, y = (torch.tensor(np.asarray(ids, np.int64)) for ids in (IDS, TARGETS))
    loss = lambda x, y: nn.functional.cross_entropy(net(x).flatten(0, 1), y.flatten())  # noqa: E731
    return torch_step(torch.compile(loss) if compiled else loss, net, x, y)


def cases() -> dict[str, Round]:
    """Every case whose library is installed."""
    found = {"renga": renga()}
    peers: dict[str, dict[str, Callable[[], Round]]] = {
        "haiku": {"Haiku": haiku},
        "flax": {"Flax linen": flax},
        "equinox": {"Equinox": equinox},
    }
    found |= installed(peers)
    if importlib.util.find_spec("torch"):
        found["torch, eager"] = apart(torch, compiled=False)
        found["torch, compiled"] = apart(torch, compiled=True)
    return found


_OF_TOKEN = LAYERS * (12 * WIDTH**2 + 2 * LENGTH * WIDTH) + VOCABULARY * WIDTH  # multiplications forward

comparison(
    "transformer",
    "a train step of a language model",
    "renga",
    promises=[Promise("renga", ("Haiku", "Flax linen", "Equinox", "torch, eager", "torch, compiled"), 1)],
    work=Work(flops=6 * BATCH * LENGTH * _OF_TOKEN),
)(cases)

if __name__ == "__main__":
    main()
