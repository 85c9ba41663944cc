"""Ready networks."""

import jax

from renga import nets

from ..kit import Case, floats

DEEP = {"half gradients": "many layers, each divided by the spread of a small batch, add the rounding of each up"}
VIEWS = floats(2, 4, 6, 2)

CASES = {
    "convnet of two sizes": Case(
        lambda: nets.convnet((3, 4), 6, 3, drop_rate=0.5), floats(2, 5, 6, 2), draws=True, long=True
    ),
    "convnet of one pool": Case(lambda: nets.convnet((4,), 5, 2), floats(2, 4, 4, 1), long=True),
    "resnet": Case(
        lambda: nets.resnet(18, 3, width=2, small_images=True), floats(2, 16, 16, 2), exempt=DEEP, long=True
    ),
    "resnet version 2": Case(
        lambda: nets.resnet(18, 3, version=2, width=2), floats(2, 33, 32, 1), exempt=DEEP, long=True
    ),
    "unet": Case(lambda: nets.unet(2, channels=(3, 4, 5)), floats(4, 8, 8, 2), exempt=DEEP, long=True),
    "unet with group_norm": Case(
        lambda: nets.unet(1, channels=(4, 6), norm=nets.group_norm(2)), floats(2, 4, 6, 1), long=True
    ),
    "unet without norms": Case(
        lambda: nets.unet(1, channels=(3, 4), norm=nets.serial()), floats(2, 4, 6, 1), long=True
    ),
    "unet of one level": Case(
        lambda: nets.unet(2, channels=(3,), norm=nets.layer_norm()), floats(2, 3, 5, 1), long=True
    ),
    "vit": Case(
        lambda: nets.vit(3, 2, features=8, num_layers=2, num_heads=2, drop_rate=0.2), VIEWS, draws=True, long=True
    ),
    "vit of a mean": Case(
        lambda: nets.vit(3, 3, features=4, num_layers=2, num_heads=1, pool="mean", norm=nets.rms_norm()),
        floats(2, 3, 6, 1),
        long=True,
    ),
    "vae": Case(lambda: nets.vae(nets.mlp(6, 5), nets.mlp(6, 7), 2), floats(4, 7), draws=True, long=True),
    "stateful vae": Case(
        lambda: nets.vae(nets.serial(nets.linear(4), nets.batch_norm(), jax.nn.relu), nets.linear(5), 3),
        floats(4, 5),
        draws=True,
        long=True,
    ),
    "dcgan_generator": Case(lambda: nets.dcgan_generator(16, 2, width=3), floats(8, 5), long=True),
    "dcgan_generator of 8x8 pixels": Case(
        lambda: nets.dcgan_generator(8, 1, width=3, kernel=5), floats(4, 5), long=True
    ),
    "dcgan_discriminator": Case(lambda: nets.dcgan_discriminator(16, width=3), floats(4, 16, 16, 2), long=True),
    "dcgan_discriminator of 8x8 pixels": Case(
        lambda: nets.dcgan_discriminator(8, width=3, kernel=5, slope=0.1), floats(2, 8, 8, 1), long=True
    ),
}
