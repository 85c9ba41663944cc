"""Ready networks equal those of torch with torchvision's names; collected where torch is installed."""

import functools
import re
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from renga import nets


class Block(nn.Module):
    """torchvision's BasicBlock for kernels (3, 3), its Bottleneck for (1, 3, 1)."""

    def __init__(self, into: int, features: int, stride: int, kernels: tuple[int, ...]):
        super().__init__()
        out = features * (4 if len(kernels) == 3 else 1)
        sizes = [into, *[features] * (len(kernels) - 1), out]
        strided = kernels.index(3)
        for place, kernel in enumerate(kernels):
            step = stride if place == strided else 1
            conv = nn.Conv2d(sizes[place], sizes[place + 1], kernel, step, kernel // 2, bias=False)
            self.add_module(f"conv{place + 1}", conv)
            self.add_module(f"bn{place + 1}", nn.BatchNorm2d(sizes[place + 1]))
        self.downsample = None
        if stride != 1 or into != out:
            self.downsample = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.num, self.out = len(kernels), out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for place in range(1, self.num + 1):
            y = self.get_submodule(f"bn{place}")(self.get_submodule(f"conv{place}")(y))
            y = y if place == self.num else torch.relu(y)
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """torchvision's ResNet."""

    def __init__(self, sizes: tuple[int, ...], kernels: tuple[int, ...], width: int, num_classes: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        into = width
        for stage, num in enumerate(sizes):
            blocks = []
            for place in range(num):
                blocks.append(Block(into, width * 2**stage, 2 if stage and not place else 1, kernels))
                into = blocks[-1].out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.num, self.fc = len(sizes), nn.Linear(into, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, self.num + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(x.mean((-2, -1)))


def shaken(module: nn.Module) -> nn.Module:
    """The module with norms and running statistics that are not those it starts with."""
    generator = torch.Generator().manual_seed(1)
    for name, array in module.state_dict().items():
        if re.search(r"(bn|downsample\.1|bn\d)\S*\.(weight|running_var)$", name):
            array.uniform_(0.5, 1.5, generator=generator)
        elif re.search(r"\.(bias|running_mean)$", name):
            array.normal_(0, 0.1, generator=generator)
    return module


NAMES = (  # a path of ours, torchvision's name
    (r"stem/conv/", r"conv1."),
    (r"stem/norm/", r"bn1."),
    (r"stages/(\d+)/(\d+)/convs/(\d+)/", r"layer{0}.{1}.conv{2}."),
    (r"stages/(\d+)/(\d+)/norms/(\d+)/", r"layer{0}.{1}.bn{2}."),
    (r"stages/(\d+)/(\d+)/shortcut/conv/", r"layer{0}.{1}.downsample.0."),
    (r"stages/(\d+)/(\d+)/shortcut/norm/", r"layer{0}.{1}.downsample.1."),
    (r"head/", r"fc."),
)
LEAVES = {"w": "weight", "b": "bias", "scale": "weight", "offset": "bias", "mean": "running_mean", "var": "running_var"}


def torch_name(path: str) -> str:
    prefix, leaf = re.fullmatch(r"(.*/)(\w+)", path).groups()  # pyright: ignore[reportOptionalMemberAccess]
    for pattern, name in NAMES:
        if found := re.fullmatch(pattern, prefix):
            numbers = [int(number) for number in found.groups()]
            stage, place, layer = (*numbers, 0, 0, 0)[:3]
            return name.format(stage + 1, place, layer + 1) + LEAVES[leaf]
    raise KeyError(path)


def ours(array: torch.Tensor) -> np.ndarray:
    """A copy, since torch updates in place: kernels with channels last, matrices with inputs first."""
    array = array.detach()
    return (array.permute(2, 3, 1, 0) if array.ndim == 4 else array.T if array.ndim == 2 else array).numpy().copy()


def from_torch(shapes: Any, held: dict[str, torch.Tensor]) -> Any:
    """Parameters and state of these shapes from a state dict, all of which is used."""
    used = []

    def fill(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        used.append(torch_name(jax.tree_util.keystr(path, simple=True, separator="/")))
        array = ours(held[used[-1]])
        assert array.shape == leaf.shape
        return array

    filled = tuple(jax.tree_util.tree_map_with_path(fill, part) for part in shapes)
    assert sorted(used) == sorted(name for name in held if not name.endswith("num_batches_tracked"))
    return filled


@pytest.mark.parametrize(
    ("depth", "width", "sizes", "kernels", "dtype", "tolerance"),
    [
        (18, 64, (2, 2, 2, 2), (3, 3), torch.float32, 1e-4),
        (34, 4, (3, 4, 6, 3), (3, 3), torch.float64, 1e-8),
        (50, 4, (3, 4, 6, 3), (1, 3, 1), torch.float64, 1e-8),
    ],
)
def test_resnet_and_its_statistics_equal_torch(depth, width, sizes, kernels, dtype, tolerance):
    torch.manual_seed(0)
    peer = shaken(ResNet(sizes, kernels, width, 10)).to(dtype)
    net = nets.resnet(depth, 10, width=width)
    counts: dict[str, int] = {}  # of the numbers that a norm takes its statistics of
    for name, module in peer.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(functools.partial(note, counts, name))
    close = functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance)
    torch_x = torch.randn(4, 3, 32, 32, dtype=dtype)
    with jax.enable_x64(dtype == torch.float64), torch.no_grad():
        x = ours_image(torch_x)
        shapes = jax.eval_shape(net.init, jax.random.key(0), x)
        params, state = from_torch(shapes, peer.state_dict())
        logits, same = jax.jit(net.apply)(params, state, x)
        close(logits, peer.eval()(torch_x))
        jax.tree.map(np.testing.assert_array_equal, same, state)
        logits, after = jax.jit(functools.partial(net.apply, train=True))(params, state, x)
        before = {name: array.clone() for name, array in peer.state_dict().items()}
        close(logits, peer.train()(torch_x))
        expected = from_torch(shapes, with_biased_variances(before, peer.state_dict(), counts))[1]
        jax.tree.map(close, after, expected)


def note(counts: dict[str, int], name: str, module: nn.Module, given: Any, y: Any) -> None:
    counts[name] = y.numel() // y.shape[1]


def with_biased_variances(
    before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], counts: dict[str, int]
) -> dict[str, torch.Tensor]:
    """A state dict as if torch kept the biased variance: what is new in it is less by `(count - 1) / count`."""
    after = dict(after)
    for name, count in counts.items():
        old, new = before[f"{name}.running_var"], after[f"{name}.running_var"]
        after[f"{name}.running_var"] = 0.9 * old + (new - 0.9 * old) * (count - 1) / count
    return after


def conv(of: dict, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """A convolution with torch's own padding, half the kernel; for an even kernel of stride 2, that of a DCGAN."""
    padding = (of["w"].shape[0] - 1) // 2
    return F.conv2d(x, of["w"].permute(3, 2, 0, 1), of.get("b"), stride, padding)


def spread(of: dict, x: torch.Tensor) -> torch.Tensor:
    """A transposed convolution of stride 2 that doubles height and width."""
    return F.conv_transpose2d(x, of["w"].permute(3, 2, 0, 1), of.get("b"), 2, (of["w"].shape[0] - 1) // 2)


def normed(of: dict, x: torch.Tensor) -> torch.Tensor:
    return F.batch_norm(x, None, None, of["scale"], of["offset"], training=True)


def active(of: dict, x: torch.Tensor) -> torch.Tensor:
    return torch.relu(normed(of, x))


def assert_trains_like(net: nets.Net, peer: Callable[[dict, torch.Tensor], torch.Tensor], *shape: int) -> None:
    """Outputs with the statistics of a batch, in double precision; `peer(params, x)` has channels first, as torch."""
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), shape, "float64")
        params, state = jax.tree.map(lambda leaf: leaf.astype("float64"), net.init(jax.random.key(1), x))
        found, _ = jax.jit(functools.partial(net.apply, train=True))(params, state, x)
        torch_x = torch.tensor(np.asarray(x)).movedim(-1, 1)
        wanted = peer(jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf)), params), torch_x)
        np.testing.assert_allclose(found, wanted if wanted.ndim < 4 else ours_image(wanted), rtol=1e-8, atol=1e-8)


def test_resnet_version_2_equals_torch():
    """He's order: the first block starts from what the stem has activated."""

    def peer(params: dict, x: torch.Tensor) -> torch.Tensor:
        y = active(params["stem"]["norm"], conv(params["stem"]["conv"], x))
        for stage, blocks in enumerate(params["stages"]):
            for place, block in enumerate(blocks):
                stride = 2 if stage and not place else 1
                across, (conv1, conv2, conv3), (norm1, norm2, norm3) = y, block["convs"], block["norms"]
                y = active(norm1, y) if norm1 else y
                across = conv(block["shortcut"]["conv"], y, stride) if "shortcut" in block else across
                y = across + conv(conv3, active(norm3, conv(conv2, active(norm2, conv(conv1, y)), stride)))
        return active(params["norm"], y).mean((-2, -1)) @ params["head"]["w"] + params["head"]["b"]

    assert_trains_like(nets.resnet(50, 5, version=2, width=3, small_images=True), peer, 3, 16, 16, 2)


def test_unet_equals_torch():
    def level(of: dict, x: torch.Tensor) -> torch.Tensor:
        return active(of["norm2"], conv(of["conv2"], active(of["norm1"], conv(of["conv1"], x))))

    def peer(params: dict, x: torch.Tensor) -> torch.Tensor:
        large = level(params["encoder"][0], x)
        middle = level(params["encoder"][1], F.max_pool2d(large, 2))
        small = level(params["encoder"][2], F.max_pool2d(middle, 2))
        y = level(params["decoder"][0], torch.cat([middle, spread(params["ups"][0], small)], 1))
        y = level(params["decoder"][1], torch.cat([large, spread(params["ups"][1], y)], 1))
        return conv(params["head"], y)

    assert_trains_like(nets.unet(2, channels=(3, 4, 5)), peer, 2, 8, 12, 3)


def test_dcgan_generator_equals_torch():
    def peer(params: dict, x: torch.Tensor) -> torch.Tensor:
        y = (x @ params["project"]["w"]).reshape(-1, 4, 4, 6).movedim(-1, 1)
        for of, norm in zip(params["convs"], params["norms"], strict=True):
            y = spread(of, active(norm, y))
        return torch.tanh(y)

    assert_trains_like(nets.dcgan_generator(16, 2, width=3), peer, 4, 5)


def test_dcgan_discriminator_equals_torch():
    def peer(params: dict, x: torch.Tensor) -> torch.Tensor:
        y = F.leaky_relu(conv(params["convs"][0], x, 2), 0.2)
        y = F.leaky_relu(normed(params["norms"][0], conv(params["convs"][1], y, 2)), 0.2)
        return (y.movedim(1, -1).reshape(len(x), -1) @ params["head"]["w"] + params["head"]["b"])[:, 0]

    assert_trains_like(nets.dcgan_discriminator(16, width=3), peer, 4, 16, 16, 2)


class ViT(nn.Module):
    """A vision transformer of torch's own parts."""

    def __init__(self, pool: str):
        super().__init__()
        self.pool, self.patches = pool, nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(8))
        self.positions = nn.Parameter(torch.randn(6 + (pool == "token"), 8))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                8, 2, 32, 0.0, nn.GELU("tanh"), layer_norm_eps=1e-6, batch_first=True, norm_first=True
            )
            for _ in range(3)
        )
        self.norm, self.head = nn.LayerNorm(8, 1e-6), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.pool == "token":
            x = torch.cat([self.token.expand(len(x), 1, 8), x], 1)
        x = x + self.positions
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x[:, 0] if self.pool == "token" else x.mean(1))


def vit_params(peer: ViT) -> dict:
    """The parameters of a peer, in our names and layouts."""

    def affine(module: Any) -> dict:
        return {"w": ours(module.weight), "b": ours(module.bias)}

    def norm(module: Any) -> dict:
        return {"scale": ours(module.weight), "offset": ours(module.bias)}

    def block(module: Any) -> dict:
        attn = module.self_attn
        parts = zip("qkv", attn.in_proj_weight.chunk(3), attn.in_proj_bias.chunk(3), strict=True)
        heads = {name: {"w": ours(w).reshape(8, 2, 4), "b": ours(b).reshape(2, 4)} for name, w, b in parts}
        out = affine(attn.out_proj)
        return {
            "attn_norm": norm(module.norm1),
            "attn": heads | {"out": out | {"w": out["w"].reshape(2, 4, 8)}},
            "mlp_norm": norm(module.norm2),
            "mlp": {"up": affine(module.linear1), "down": affine(module.linear2)},
        }

    patches = affine(peer.patches)
    return {
        "embed": patches | {"w": patches["w"].reshape(48, 8)},
        "positions": {"w": peer.positions.detach().numpy().copy()},
        "blocks": nets.stack([block(module) for module in peer.blocks]),
        "norm": norm(peer.norm),
        "head": affine(peer.head),
    } | ({"token": ours(peer.token)} if peer.pool == "token" else {})


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_vit_and_its_gradient_equal_torch(pool: Literal["token", "mean"]):
    torch.manual_seed(0)
    peer, torch_x = ViT(pool), torch.randn(2, 3, 8, 12, requires_grad=True)
    net = nets.vit(5, 4, features=8, num_layers=3, num_heads=2, pool=pool)
    params, x = vit_params(peer), ours_image(torch_x)
    torch_logits = peer(torch_x)
    (torch_logits**2).sum().backward()
    grad, logits = jax.jit(jax.grad(lambda x: squared(net.apply(params, x)), has_aux=True))(x)
    np.testing.assert_allclose(logits, torch_logits.detach(), rtol=1e-5, atol=1e-5)
    assert torch_x.grad is not None
    np.testing.assert_allclose(grad, ours_image(torch_x.grad), rtol=1e-4, atol=1e-4)


def squared(y: jax.Array) -> tuple[jax.Array, jax.Array]:
    return (y**2).sum(), y


def ours_image(x: torch.Tensor) -> np.ndarray:
    """A copy with channels last."""
    return x.detach().movedim(1, -1).numpy().copy()
