"""Transformers hold the weights of models of torch and give their logits; collected where torch is installed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from renga import nets

from .kit import integers, values

VOCAB, WIDTH, LAYERS, HEADS, KV_HEADS, LENGTH = 23, 16, 3, 4, 2, 12
(IDS,) = values(integers(2, 9))


class Gpt2Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.c_attn(x).split(WIDTH, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).flatten(2))


class Gpt2Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Gpt2Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(WIDTH, eps=1e-5), Gpt2Attention()
        self.ln_2, self.mlp = nn.LayerNorm(WIDTH, eps=1e-5), Gpt2Mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Gpt2(nn.Module):
    """GPT-2's layout; its own file keeps weights of linear maps as `[in, out]`, here they are torch's `[out, in]`."""

    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCAB, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.h, self.ln_f = nn.ModuleList([Gpt2Block() for _ in range(LAYERS)]), nn.LayerNorm(WIDTH, eps=1e-5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[-1]))
        for block in self.h:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.T


def gpt2_params(state: dict[str, np.ndarray]) -> dict:
    def norm(name: str) -> dict:
        return {"scale": state[f"{name}.weight"], "offset": state[f"{name}.bias"]}

    def linear(name: str) -> dict:
        return {"w": state[f"{name}.weight"].T, "b": state[f"{name}.bias"]}

    def attn(name: str) -> dict:
        joined = linear(f"{name}.c_attn")
        ws = (w.reshape(WIDTH, HEADS, -1) for w in np.split(joined["w"], 3, -1))
        bs = (b.reshape(HEADS, -1) for b in np.split(joined["b"], 3))
        heads = {part: {"w": w, "b": b} for part, w, b in zip("qkv", ws, bs, strict=True)}
        out = linear(f"{name}.c_proj")
        return {**heads, "out": {"w": out["w"].reshape(HEADS, -1, WIDTH), "b": out["b"]}}

    blocks = [
        {
            "attn_norm": norm(f"h.{i}.ln_1"),
            "attn": attn(f"h.{i}.attn"),
            "mlp_norm": norm(f"h.{i}.ln_2"),
            "mlp": {"up": linear(f"h.{i}.mlp.c_fc"), "down": linear(f"h.{i}.mlp.c_proj")},
        }
        for i in range(LAYERS)
    ]
    return {
        "tokens": {"w": state["wte.weight"]},
        "positions": {"w": state["wpe.weight"]},
        "blocks": nets.stack(blocks),
        "norm": norm("ln_f"),
    }


class RmsNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


def turned(x: torch.Tensor) -> torch.Tensor:
    """Rotary positions by halves, `[batch, heads, time, size]`."""
    half = x.shape[-1] // 2
    frequencies = 10_000.0 ** (-torch.arange(half) / half)
    angles = torch.arange(x.shape[-2])[:, None] * torch.cat([frequencies, frequencies])
    swapped = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * angles.cos() + swapped * angles.sin()


class LlamaAttention(nn.Module):
    def __init__(self):
        super().__init__()
        size = WIDTH // HEADS
        self.q_proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(WIDTH, KV_HEADS * size, bias=False) for _ in range(2))
        self.o_proj = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (to(x).unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2) for to in maps)
        k, v = (part.repeat_interleave(HEADS // KV_HEADS, 1) for part in (turned(k), v))
        y = F.scaled_dot_product_attention(turned(q), k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).flatten(2))


class LlamaMlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(WIDTH, 40, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(40, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.input_layernorm, self.self_attn = RmsNorm(), LlamaAttention()
        self.post_attention_layernorm, self.mlp = RmsNorm(), LlamaMlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens, self.norm = nn.Embedding(VOCAB, WIDTH), RmsNorm()
        self.layers = nn.ModuleList([LlamaBlock() for _ in range(LAYERS)])
        self.lm_head = nn.Linear(WIDTH, VOCAB, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed_tokens(ids)
        for block in self.layers:
            x = block(x)
        return self.lm_head(self.norm(x))


def llama_params(state: dict[str, np.ndarray]) -> dict:
    def linear(name: str, *sizes: int) -> dict:
        w = state[f"{name}.weight"].T
        return {"w": w.reshape(sizes) if sizes else w}

    def block(name: str) -> dict:
        attn = {part: linear(f"{name}.self_attn.{part}_proj", WIDTH, -1, WIDTH // HEADS) for part in "qkv"}
        mlp = {part: linear(f"{name}.mlp.{part}_proj") for part in ("gate", "up", "down")}
        return {
            "attn_norm": {"scale": state[f"{name}.input_layernorm.weight"]},
            "attn": attn | {"out": linear(f"{name}.self_attn.o_proj", HEADS, -1, WIDTH)},
            "mlp_norm": {"scale": state[f"{name}.post_attention_layernorm.weight"]},
            "mlp": mlp,
        }

    return {
        "tokens": {"w": state["embed_tokens.weight"]},
        "blocks": nets.stack([block(f"layers.{i}") for i in range(LAYERS)]),
        "norm": {"scale": state["norm.weight"]},
        "head": linear("lm_head"),
    }


GPT2 = nets.transformer(VOCAB, WIDTH, num_layers=LAYERS, num_heads=HEADS, max_length=LENGTH)
LLAMA = nets.transformer(
    VOCAB,
    WIDTH,
    num_layers=LAYERS,
    num_heads=HEADS,
    num_kv_heads=KV_HEADS,
    rope=nets.rotary(),
    norm=nets.rms_norm(),
    mlp=nets.swiglu(40),
    bias=False,
    head=nets.linear(VOCAB, bias=False),
)


@pytest.mark.parametrize(
    ("net", "module", "convert"), [(GPT2, Gpt2, gpt2_params), (LLAMA, Llama, llama_params)], ids=["gpt2", "llama"]
)
def test_logits_gradients_and_generated_tokens_are_those_of_torch(net: nets.Net, module: Any, convert: Any):
    torch.manual_seed(0)
    peer = module()
    for weights in peer.parameters():
        nn.init.normal_(weights, 0.3 if weights.ndim == 1 else 0.0, 0.3)
    params = convert({name: tensor.detach().numpy() for name, tensor in peer.state_dict().items()})
    params = jax.tree.map(jnp.asarray, params)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, jax.eval_shape(net.init, jax.random.key(0), IDS))

    theirs = peer(torch.tensor(np.asarray(IDS)))
    ours = net.apply(params, IDS)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-4)

    weights = np.sin(np.arange(ours.size, dtype=np.float32)).reshape(ours.shape)
    (theirs * torch.tensor(weights)).sum().backward()
    torch_grads = convert({name: weights.grad.numpy() for name, weights in peer.named_parameters()})
    grads = jax.jit(jax.grad(lambda params: (net.apply(params, IDS) * weights).sum()))(params)
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(torch_grads))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * scale), grads, torch_grads)

    ids = torch.tensor(np.asarray(IDS))
    for _ in range(3):
        ids = torch.cat([ids, peer(ids)[:, -1:].argmax(-1)], -1)
    assert (np.asarray(nets.generate(net, params, IDS, 3, temperature=0)) == ids[:, 9:].numpy()).all()
