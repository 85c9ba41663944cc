"""Attention equals torch's for the same parameters, gradients too; collected where torch is installed."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from renga import nets

from .kit import KEY, floats, values
from .test_attention import value_and_grads

X, MEMORY = values(floats(2, 5, 6) + floats(2, 7, 4))


def tensor(array: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(array), requires_grad=bool(jnp.issubdtype(array.dtype, jnp.floating)))


def assert_parity(net: nets.Net, peer: Any, *inputs: Any, **keywords: Any) -> None:
    """Outputs to 1e-5, gradients with respect to params and inputs to 1e-4; `peer(params, *inputs)` is torch's."""
    params = values(jax.eval_shape(net.init, KEY, *inputs))
    y, grads = value_and_grads(lambda params, *inputs: net.apply(params, *inputs, **keywords), params, *inputs)
    theirs = jax.tree.map(tensor, (params, *inputs))
    torch_y = peer(*theirs)
    np.testing.assert_allclose(y, torch_y.detach().numpy(), rtol=1e-5, atol=1e-5)
    weights = np.sin(np.arange(y.size, dtype=np.float32)).reshape(y.shape)
    (torch_y * torch.tensor(weights)).sum().backward()
    torch_grads = jax.tree.map(lambda leaf: leaf.grad.numpy(), theirs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), grads, torch_grads)


def in_proj(params: Any) -> dict[str, torch.Tensor]:
    """Our parameters as torch's own function takes them."""
    w = {name: params[name]["w"].flatten(1).T for name in "qkv"}
    b = torch.cat([params[name]["b"].flatten() for name in "qkv"])
    return {"q": w["q"], "k": w["k"], "v": w["v"], "b": b, "out": params["out"]["w"].flatten(0, 1).T}


def multi_head(params: Any, x: torch.Tensor, memory: torch.Tensor, **options: Any) -> torch.Tensor:
    """`torch.nn.MultiheadAttention`'s computation, time first as it likes."""
    flat = in_proj(params)
    query, source = x.transpose(0, 1), memory.transpose(0, 1)
    y, _ = F.multi_head_attention_forward(
        query,
        source,
        source,
        embed_dim_to_check=x.shape[-1],
        num_heads=params["q"]["w"].shape[1],
        in_proj_weight=None,
        in_proj_bias=flat["b"],
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=flat["out"],
        out_proj_bias=params["out"]["b"],
        need_weights=False,
        use_separate_proj_weight=True,
        q_proj_weight=flat["q"],
        k_proj_weight=flat["k"],
        v_proj_weight=flat["v"],
        **options,
    )
    return y.transpose(0, 1)


def test_self_attention_equals_torch():
    assert_parity(nets.attention(3), lambda params, x: multi_head(params, x, x), X)


def test_cross_attention_equals_torch():
    assert_parity(nets.attention(2), multi_head, X, MEMORY)


def test_the_module_of_torch_takes_the_parameters_joined():
    net, module = nets.attention(3), torch.nn.MultiheadAttention(6, 3, batch_first=True)
    params = values(jax.eval_shape(net.init, KEY, X))
    flat = in_proj(jax.tree.map(tensor, params))
    joined = {"in_proj_weight": torch.cat([flat[name] for name in "qkv"]), "in_proj_bias": flat["b"]}
    out = {"out_proj.weight": flat["out"], "out_proj.bias": tensor(params["out"]["b"])}
    module.load_state_dict(joined | out)
    y, _ = module(*[torch.tensor(np.asarray(X))] * 3)
    np.testing.assert_allclose(net.apply(params, X), y.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_causal_attention_equals_torch():
    hidden = torch.ones(5, 5, dtype=torch.bool).triu(1)
    net = nets.attention(3, causal=True)
    assert_parity(net, lambda params, x: multi_head(params, x, x, attn_mask=hidden), X)


@pytest.mark.parametrize("kind", ["padding", "for each head", "scores"])
def test_masks_equal_those_of_torch(kind: str):
    if kind == "padding":
        mask = jnp.array([[True] * 5, [True] * 3 + [False] * 2])
        ours, theirs = {"mask": mask[:, None, None]}, {"key_padding_mask": ~torch.tensor(np.asarray(mask))}
    elif kind == "for each head":
        mask = values(jax.ShapeDtypeStruct((2, 3, 5, 5), bool))
        ours, theirs = {"mask": mask}, {"attn_mask": ~torch.tensor(np.asarray(mask)).flatten(0, 1)}
    else:
        (bias,) = values(floats(2, 3, 5, 5))
        ours, theirs = {"bias": bias}, {"attn_mask": torch.tensor(np.asarray(bias)).flatten(0, 1)}
    assert_parity(nets.attention(3), lambda params, x: multi_head(params, x, x, **theirs), X, **ours)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_grouped_attention_equals_torch(num_kv_heads: int, causal: bool):
    net = nets.attention(4, head_size=3, num_kv_heads=num_kv_heads, causal=causal, bias=False)

    def peer(params: Any, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (torch.einsum("btd,dhk->bhtk", x, params[name]["w"]) for name in "qkv")
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
        return torch.einsum("bhtk,hkd->btd", y, params["out"]["w"])

    assert_parity(net, peer, X)


def test_feed_forward_nets_equal_torch():
    def plain(params: Any, x: torch.Tensor) -> torch.Tensor:
        hidden = F.gelu(x @ params["up"]["w"] + params["up"]["b"], approximate="tanh")
        return hidden @ params["down"]["w"] + params["down"]["b"]

    def gated(params: Any, x: torch.Tensor) -> torch.Tensor:
        return (F.silu(x @ params["gate"]["w"]) * (x @ params["up"]["w"])) @ params["down"]["w"]

    assert_parity(nets.feed_forward(), plain, X)
    assert_parity(nets.swiglu(7), gated, X)


def test_a_pre_norm_block_equals_torch():
    net = nets.transformer_block(3, mlp=nets.feed_forward(8, activation=jax.nn.relu))
    params = values(jax.eval_shape(net.init, KEY, X))
    layer = torch.nn.TransformerEncoderLayer(6, 3, 8, 0.0, norm_first=True, batch_first=True)
    theirs = jax.tree.map(tensor, params)
    flat = in_proj(theirs["attn"])
    layer.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([flat[name] for name in "qkv"]),
            "self_attn.in_proj_bias": flat["b"],
            "self_attn.out_proj.weight": flat["out"],
            "self_attn.out_proj.bias": theirs["attn"]["out"]["b"],
            "linear1.weight": theirs["mlp"]["up"]["w"].T,
            "linear1.bias": theirs["mlp"]["up"]["b"],
            "linear2.weight": theirs["mlp"]["down"]["w"].T,
            "linear2.bias": theirs["mlp"]["down"]["b"],
            "norm1.weight": theirs["attn_norm"]["scale"],
            "norm1.bias": theirs["attn_norm"]["offset"],
            "norm2.weight": theirs["mlp_norm"]["scale"],
            "norm2.bias": theirs["mlp_norm"]["offset"],
        }
    )
    y = layer(torch.tensor(np.asarray(X)))
    np.testing.assert_allclose(net.apply(params, X), y.detach().numpy(), rtol=1e-5, atol=1e-5)
