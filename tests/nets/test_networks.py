"""Ready networks: sizes, counts and figures of their papers, and what autoencoders promise."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

from .kit import floats, values


def shapes(net: nets.Net, *shape: int) -> Any:
    """Shapes of what `init` makes."""
    return jax.tree.map(jnp.shape, jax.eval_shape(net.init, jax.random.key(0), *floats(*shape)))


def count(net: nets.Net, *shape: int) -> int:
    made = jax.eval_shape(net.init, jax.random.key(0), *floats(*shape))
    return sum(leaf.size for leaf in jax.tree.leaves(made[0] if isinstance(net, nets.StatefulNet) else made))


@pytest.mark.parametrize(
    ("depth", "number"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)]
)
def test_a_resnet_has_as_many_parameters_as_torchvisions(depth: int, number: int):
    assert count(nets.resnet(depth, 1000), 224, 224, 3) == number


def test_a_vit_has_as_many_parameters_as_the_paper_says():
    assert count(nets.vit(1000, 16, features=768, num_layers=12, num_heads=12), 224, 224, 3) == 86_567_656


def test_a_unet_has_as_many_parameters_as_the_layers_of_the_paper():
    sizes = [1, 64, 128, 256, 512, 1024]
    down = sum(9 * a * b + b + 9 * b * b + b for a, b in itertools.pairwise(sizes))
    up = sum(4 * 2 * b * b + b + 9 * 2 * b * b + b + 9 * b * b + b for b in sizes[1:-1])
    assert count(nets.unet(2, norm=nets.serial()), 512, 512, 1) == down + up + 64 * 2 + 2


def test_kernels_of_a_resnet_have_the_variance_of_its_paper():
    params, _ = nets.resnet(18, 10, width=32).init(jax.random.key(0), *floats(8, 8, 3))
    kernel = params["stages"][1][0]["convs"][1]["w"]
    assert kernel.shape == (3, 3, 64, 64)
    assert kernel.std() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


def test_a_deeper_stage_of_a_resnet_halves_the_image_and_doubles_the_channels():
    table = nets.summary(nets.resnet(50, 10, width=4), *floats(2, 64, 64, 3))
    outputs = {row.path: row.output for row in table}
    assert outputs["stem/pool"] == "(2, 16, 16, 4)"
    assert [outputs[f"stages/{stage}/0/convs/2"] for stage in range(4)] == [
        "(2, 16, 16, 16)",
        "(2, 8, 8, 32)",
        "(2, 4, 4, 64)",
        "(2, 2, 2, 128)",
    ]


@pytest.mark.parametrize("channels", [(2,), (2, 3), (2, 3, 4, 5)])
def test_a_unet_returns_maps_of_the_size_of_the_images(channels: tuple[int, ...]):
    net = nets.unet(3, channels=channels, norm=nets.group_norm(1))
    x = floats(2, 24, 8, 1)[0]
    params = jax.eval_shape(net.init, jax.random.key(0), x)
    assert jax.eval_shape(net.apply, params, x).shape == (2, 24, 8, 3)


@pytest.mark.parametrize("size", [8, 16, 64, 128])
def test_a_dcgan_makes_and_judges_images_of_its_size(size: int):
    generator, discriminator = nets.dcgan_generator(size, 3, width=2), nets.dcgan_discriminator(size, width=2)
    noise = floats(5, 7)[0]
    images = jax.eval_shape(lambda *made: generator.apply(*made)[0], *made_for(generator, noise), noise)
    assert images.shape == (5, size, size, 3)

    def judge(*given: Any) -> Any:
        found = discriminator.apply(*given)
        return found[0] if isinstance(discriminator, nets.StatefulNet) else found

    assert jax.eval_shape(judge, *made_for(discriminator, images), images).shape == (5,)


def made_for(net: nets.Net, x: Any) -> tuple:
    made = jax.eval_shape(net.init, jax.random.key(0), x)
    return made if isinstance(net, nets.StatefulNet) else (made,)


def test_a_generator_of_64x64_pixels_has_the_channels_of_the_papers_first_figure():
    params, _ = shapes(nets.dcgan_generator(64, 3, width=128, kernel=5), 100)
    assert params["project"]["w"] == (100, 4 * 4 * 1024)
    assert [of["w"] for of in params["convs"]] == [
        (5, 5, 512, 1024),
        (5, 5, 256, 512),
        (5, 5, 128, 256),
        (5, 5, 3, 128),
    ]


def test_gaussian_kl_is_the_integral_that_it_stands_for():
    x = np.linspace(-40, 40, 400_001)
    means, log_vars = np.array([0.0, 1.5, -0.3, 0.1]), np.array([0.0, 0.7, -2.0, 1e-2])

    def log_normal(mean: float, log_var: float) -> np.ndarray:
        return -0.5 * ((x - mean) ** 2 / np.exp(log_var) + log_var + np.log(2 * np.pi))

    def integral(mean: float, log_var: float) -> np.ndarray:
        log_q = log_normal(mean, log_var)
        return np.trapezoid(np.exp(log_q) * (log_q - log_normal(0, 0)), x)

    expected = [integral(mean, log_var) for mean, log_var in zip(means, log_vars, strict=True)]
    found = nets.gaussian_kl(jnp.array(means)[:, None], jnp.array(log_vars)[:, None])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(nets.gaussian_kl(jnp.array(means), jnp.array(log_vars)), sum(expected), rtol=1e-5)


def test_gaussian_kl_is_exact_near_zero_and_in_half_precision():
    np.testing.assert_allclose(
        nets.gaussian_kl(jnp.zeros(1), jnp.array([1e-2])), (np.expm1(1e-2) - 1e-2) / 2, rtol=1e-4
    )
    half = nets.gaussian_kl(jnp.full(4096, 0.25, "bfloat16"), jnp.zeros(4096, "bfloat16"))
    assert half.dtype == jnp.bfloat16
    assert half == 4096 * 0.25**2 / 2


def test_a_vae_draws_its_code_from_the_distribution_that_it_returns_and_takes_the_mean_outside_of_training():
    net = nets.vae(nets.serial(), nets.serial(), 2)
    x = jnp.broadcast_to(values(floats(3))[0], (20_000, 3))
    params = net.init(jax.random.key(0), x)
    drawn = net.apply(params, x, key=jax.random.key(1), train=True)
    noise = (drawn.reconstruction - drawn.mean) / jnp.exp(drawn.log_var / 2)
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(jnp.cov(noise.T), np.eye(2), atol=0.04)
    fixed = net.apply(params, x)
    np.testing.assert_array_equal(fixed.reconstruction, fixed.mean)
    np.testing.assert_array_equal(fixed.mean, drawn.mean)


def test_a_vae_is_differentiated_through_its_draw():
    net = nets.vae(nets.serial(), nets.serial(), 1)
    x = jnp.ones((1, 1))
    params = net.init(jax.random.key(0), x)

    def code(params: Any) -> jax.Array:
        return net.apply(params, x, key=jax.random.key(1), train=True).reconstruction[0, 0]

    grads = jax.grad(code)(params)
    out = net.apply(params, x, key=jax.random.key(1), train=True)
    assert grads["mean"]["b"].item() == 1
    np.testing.assert_allclose(grads["log_var"]["b"], (out.reconstruction - out.mean)[0] / 2, rtol=1e-6)
