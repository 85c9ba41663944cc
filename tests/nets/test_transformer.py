"""Transformers: caches, causality, shapes, and the tokens they generate."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

from .kit import KEY, floats, integers, values

GPT = nets.transformer(11, 8, num_layers=3, num_heads=2, max_length=12)
LLAMA = nets.transformer(
    11,
    8,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    window=4,
    rope=nets.rotary(),
    norm=nets.rms_norm(),
    mlp=nets.swiglu(12),
    bias=False,
    head=nets.linear(11, bias=False),
)
(IDS,) = values(integers(2, 7))
SHAPES = {"gpt": (GPT, GPT.init(KEY, IDS)), "llama": (LLAMA, LLAMA.init(KEY, IDS))}


def assert_close(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, theirs)


@pytest.mark.parametrize("name", SHAPES)
def test_the_blocks_are_a_stack_and_all_else_is_there_once(name: str):
    _, params = SHAPES[name]
    extra = {"positions"} if name == "gpt" else {"head"}
    assert set(params) == {"tokens", "blocks", "norm"} | extra
    assert set(params["blocks"]) == {"attn_norm", "attn", "mlp_norm", "mlp"}
    assert {leaf.shape[0] for leaf in jax.tree.leaves(params["blocks"])} == {3 if name == "gpt" else 2}
    has_bias = "b" in params["blocks"]["attn"]["q"]
    assert has_bias == (name == "gpt")


@pytest.mark.parametrize("name", SHAPES)
def test_a_transformer_equals_its_parts_in_turn(name: str):
    net, params = SHAPES[name]
    options: dict = {"causal": True}
    if name == "llama":
        options |= {"num_kv_heads": 2, "window": 4, "rope": nets.rotary(), "norm": nets.rms_norm()}
        options |= {"mlp": nets.swiglu(12), "bias": False}
    block = nets.transformer_block(4 if name == "llama" else 2, **options)
    x = params["tokens"]["w"][IDS] + (params["positions"]["w"][:7] if name == "gpt" else 0)
    for of_block in nets.unstack(params["blocks"]):
        x = block.apply(of_block, x)
    norm = nets.rms_norm() if name == "llama" else nets.layer_norm()
    x = norm.apply(params["norm"], x)
    head = params["tokens"]["w"].T if name == "gpt" else params["head"]["w"]
    assert_close(net.apply(params, IDS), x @ head)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("chunks", [[1] * 7, [3, 1, 3], [7]])
def test_reading_through_caches_equals_reading_at_once(name: str, chunks: list[int]):
    net, params = SHAPES[name]
    caches: Any = 9
    found = []
    for chunk in jnp.split(IDS, np.cumsum(chunks)[:-1], -1):
        logits, caches = net.apply(params, chunk, cache=caches)
        found.append(logits)
    assert_close(jnp.concatenate(found, -2), net.apply(params, IDS))
    assert (caches.length == 7).all()
    assert caches.keys.shape == ((3, 2, 9, 2, 4) if name == "gpt" else (2, 2, 9, 2, 2))


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"max_length": 7}, jnp.tril(jnp.ones((7, 7)))),
        ({"rope": nets.rotary(), "num_kv_heads": 1}, jnp.tril(jnp.ones((7, 7)))),
        ({"window": 2}, jnp.tril(jnp.ones((7, 7))) - jnp.tril(jnp.ones((7, 7)), -3)),
        ({"causal": False}, jnp.ones((7, 7))),
    ],
)
def test_a_decoder_is_causal_by_gradient_and_an_encoder_sees_all(options: dict, seen: jax.Array):
    net = nets.transformer(7, 8, num_layers=2, num_heads=2, head=nets.linear(3), **options)
    ids = jnp.arange(7)
    params = net.init(KEY, ids)

    def outputs(vectors: jax.Array) -> jax.Array:
        return net.apply(params | {"tokens": {"w": vectors}}, ids)

    influence = jnp.abs(jax.jacobian(outputs)(params["tokens"]["w"])).sum((1, 3))
    assert ((influence > 0) == (seen > 0)).all()


def test_an_encoder_takes_a_mask_of_padding_and_gives_what_its_head_gives():
    net = nets.transformer(11, 8, num_layers=2, num_heads=2, rope=nets.rotary(), causal=False, head=nets.linear(3))
    params = net.init(KEY, IDS)
    lengths = jnp.array([7, 4])
    mask = (jnp.arange(7) < lengths[:, None])[:, None, None]
    y = net.apply(params, IDS, mask=mask)
    assert y.shape == (2, 7, 3)
    assert_close(y[1, :4], net.apply(params, IDS[1, :4]))


def test_without_positions_an_encoder_follows_a_permutation():
    net = nets.transformer(11, 8, num_layers=2, num_heads=2, causal=False, head=nets.serial())
    params, order = net.init(KEY, IDS), jax.random.permutation(KEY, 7)
    assert_close(net.apply(params, IDS[:, order]), net.apply(params, IDS)[:, order])


def test_the_program_of_a_transformer_does_not_grow_with_its_depth():
    def size(num_layers: int) -> int:
        net = nets.transformer(11, 8, num_layers=num_layers, num_heads=2)
        params = jax.eval_shape(net.init, KEY, IDS)
        return str(jax.make_jaxpr(jax.grad(lambda params: net.apply(params, IDS).sum()))(params)).count(" = ")

    assert size(64) == size(4)


def test_remat_changes_nothing():
    plain, again = (nets.transformer(11, 8, num_layers=3, num_heads=2, max_length=12, remat=r) for r in (False, True))
    params = SHAPES["gpt"][1]
    losses = [jax.grad(lambda params, net=net: jnp.sum(net.apply(params, IDS) ** 2))(params) for net in (plain, again)]
    assert_close(*losses)
    assert_close(again.apply(params, IDS, cache=8)[0], plain.apply(params, IDS))


def test_training_needs_a_key_and_drops_differently_in_every_layer_and_step():
    net = nets.transformer(11, 8, num_layers=2, num_heads=2, drop_rate=0.5)
    params = net.init(KEY, IDS)
    with pytest.raises(nets.NetError, match="a key in training"):
        net.apply(params, IDS, train=True)
    one, two = (net.apply(params, IDS, key=jax.random.key(seed), train=True) for seed in (1, 2))
    assert (one != two).any()


@pytest.mark.parametrize("name", SHAPES)
def test_greedy_tokens_are_the_most_likely_of_full_passes(name: str):
    net, params = SHAPES[name]
    params = jax.tree.map(lambda leaf: 3 * leaf, params)
    found = jax.jit(lambda params, ids: nets.generate(net, params, ids, 5, temperature=0))(params, IDS)
    ids = IDS
    for _ in range(5):
        ids = jnp.concatenate([ids, net.apply(params, ids)[:, -1:].argmax(-1)], -1)
    assert found.dtype == jnp.int32
    assert (found == ids[:, 7:]).all()
    assert len(np.unique(found)) > 1


def test_one_prompt_and_one_token_are_enough_and_examples_may_be_mapped():
    params = SHAPES["gpt"][1]
    one = nets.generate(GPT, params, IDS[0, :1], 1, temperature=0)
    assert one.shape == (1,)
    keys = jax.random.split(KEY, 2)
    mapped = jax.vmap(lambda ids, key: nets.generate(GPT, params, ids, 4, key=key))(IDS, keys)
    alone = [nets.generate(GPT, params, ids, 4, key=key) for ids, key in zip(IDS, keys, strict=True)]
    assert (mapped == jnp.stack(alone)).all()


@pytest.mark.parametrize(
    "temperature", [np.float32(0), jnp.float32(0), 1e-45, np.float32(1e-45), 1e-38, 1e-20], ids=repr
)
def test_a_temperature_of_zero_or_nearly_is_greedy_whatever_its_type(temperature: Any):
    net, params = SHAPES["gpt"]
    greedy = nets.generate(net, params, IDS, 5, temperature=0)
    assert (nets.generate(net, params, IDS, 5, key=KEY, temperature=temperature) == greedy).all()
    traced = jax.jit(lambda t: nets.generate(net, params, IDS, 5, key=KEY, temperature=t, top_k=5))
    assert (traced(temperature) == greedy).all()


def test_a_traced_top_p_of_zero_takes_the_most_likely_token():
    net, params = SHAPES["gpt"]
    found = jax.jit(lambda top_p: nets.generate(net, params, IDS, 5, key=KEY, top_p=top_p))(0.0)
    assert (found == nets.generate(net, params, IDS, 5, temperature=0)).all()


def test_the_last_token_needs_no_position():
    net, params = SHAPES["gpt"]
    full = nets.generate(net, params, IDS, 6, temperature=0)
    assert (nets.generate(net, params, IDS, 5, temperature=0, max_length=IDS.shape[-1] + 4) == full[:, :5]).all()


def constant(logits: Any) -> nets.Net:
    """A language model that does not listen."""

    def apply(params: dict, ids: jax.Array, *, cache: Any = None) -> Any:
        return jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (*ids.shape, len(logits))), jnp.zeros(())

    return nets.Net(None, apply)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.2, 0.3, 0.4]),
        ({"temperature": 0.5}, [0.01 / 0.3, 0.04 / 0.3, 0.09 / 0.3, 0.16 / 0.3]),
        ({"temperature": jnp.float32(1.0)}, [0.1, 0.2, 0.3, 0.4]),
        ({"temperature": 0}, [0, 0, 0, 1]),
        ({"top_k": 1}, [0, 0, 0, 1]),
        ({"top_k": 2}, [0, 0, 3 / 7, 4 / 7]),
        ({"top_k": 9}, [0.1, 0.2, 0.3, 0.4]),
        ({"top_p": 0.35}, [0, 0, 0, 1]),
        ({"top_p": 0.5}, [0, 0, 3 / 7, 4 / 7]),
        ({"top_p": 1.0}, [0.1, 0.2, 0.3, 0.4]),
        ({"top_k": 3, "top_p": 0.5}, [0, 0, 3 / 7, 4 / 7]),
    ],
)
def test_tokens_are_drawn_with_their_probabilities(options: dict, expected: list[float]):
    net = constant(np.log([0.1, 0.2, 0.3, 0.4]))
    tokens = nets.generate(net, {}, jnp.zeros((50, 1), int), 100, key=KEY, **options)
    shares = np.bincount(np.asarray(tokens).ravel(), minlength=4) / tokens.size
    np.testing.assert_allclose(shares, expected, atol=0.03)
    assert all(share == 0 for share, wanted in zip(shares, expected, strict=True) if wanted == 0)


def test_an_id_that_is_none_is_seen_in_every_token_after_it():
    tokens = nets.generate(GPT, SHAPES["gpt"][1], IDS.at[0, 2].set(11), 3, temperature=0)
    assert (tokens[0] == -1).all()
    assert (tokens[1] >= 0).all()


def test_bfloat16_may_be_computed_in_and_generated_with():
    net, params = nets.cast(LLAMA, compute="bfloat16"), SHAPES["llama"][1]
    assert net.apply(params, IDS).dtype == jnp.bfloat16
    assert nets.generate(net, params, IDS, 3, key=KEY).shape == (2, 3)


def test_blocks_of_any_floats_make_an_encoder_of_patches():
    (x,) = values(floats(2, 3, 5, 6))
    net = nets.repeat(nets.transformer_block(2), 2)
    assert net.apply(net.init(KEY, x), x).shape == x.shape
