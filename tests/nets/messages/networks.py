"""What the ready networks refuse."""

from collections.abc import Callable
from typing import Any

from renga import nets
from renga.nets import NetError, ShapeError

from ..kit import KEY, REMEDY, applied, params_of, zeros

images, rows = zeros(2, 8, 8, 1), zeros(2, 4)
convnet = nets.convnet((2, 3), 4, 5)
resnet = nets.resnet(18, 5, width=2, small_images=True)
unet = nets.unet(2, channels=(2, 3, 4))
vit = nets.vit(3, 4, features=4, num_layers=1, num_heads=2)
vae = nets.vae(nets.mlp(3), nets.linear(4), 2)
generator, discriminator = nets.dcgan_generator(8, 1, width=2), nets.dcgan_discriminator(8, width=2)

IMAGES = "[..., height, width, channels]"
SIZE = "to be an integer of at least 1, got 0"
STEM = "conv(2, 3, padding=1, bias=False, w_init=variance_scaling(2.0, 'fan_out', 'normal'))"
PROJECT = "linear(32, bias=False, w_init=normal(stddev=0.02))"
VIT, UNET, JUDGE = repr(vit), repr(unet), repr(discriminator)


def vit_with(**options: Any) -> nets.Net:
    given: Any = {"features": 4, "num_layers": 1, "num_heads": 2} | options
    return nets.vit(given.pop("num_classes", 3), given.pop("patch", 4), **given)


# name: (what is done, error, message)
ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    # Inputs.
    "convnet, rank": (
        lambda: convnet.init(KEY, zeros(8, 8)),
        ShapeError,
        f"convnet/convs/0 = conv(2, 3): expected {IMAGES}, got (8, 8).",
    ),
    "convnet, channels": (
        lambda: applied(convnet, (images,), zeros(2, 8, 8, 3)),
        ShapeError,
        f"convnet/convs/0 = conv(2, 3): expected {IMAGES} with 1 channels, got (2, 8, 8, 3).",
    ),
    "convnet, another size": (
        lambda: applied(convnet, (images,), zeros(2, 16, 8, 1)),
        ShapeError,
        "convnet/hidden = linear(4): expected an input [..., 12], got (2, 24).",
    ),
    "convnet, too small": (
        lambda: convnet.init(KEY, zeros(2, 3, 8, 1)),
        ShapeError,
        f"convnet/pool = max_pool(2): expected {IMAGES} that hold the window (2, 2), got (2, 1, 4, 3).",
    ),
    "resnet, rank": (
        lambda: resnet.init(KEY, zeros(8, 8)),
        ShapeError,
        f"resnet/stem/conv = {STEM}: expected {IMAGES}, got (8, 8).",
    ),
    "resnet, channels": (
        lambda: applied(resnet, (images,), zeros(2, 8, 8, 3)),
        ShapeError,
        f"resnet/stem/conv = {STEM}: expected {IMAGES} with 1 channels, got (2, 8, 8, 3).",
    ),
    "resnet, no pixels": (
        lambda: resnet.init(KEY, zeros(2, 0, 8, 1)),
        ShapeError,
        f"resnet/pool = global_avg_pool(): expected {IMAGES} of at least one position, got (2, 0, 1, 16).",
    ),
    "unet, rank": (
        lambda: unet.init(KEY, zeros(8, 8)),
        ShapeError,
        f"{UNET}: expected {IMAGES}, got (8, 8).",
    ),
    "unet, channels": (
        lambda: applied(unet, (images,), zeros(2, 8, 8, 3)),
        ShapeError,
        f"unet/encoder/0/conv1 = conv(2, 3, w_init=he_normal()): expected {IMAGES} with 1 channels, got (2, 8, 8, 3).",
    ),
    "unet, height that does not divide": (
        lambda: unet.init(KEY, zeros(2, 6, 8, 1)),
        ShapeError,
        f"{UNET}: expected {IMAGES} with height and width multiples of 4, got (2, 6, 8, 1).",
    ),
    "unet, width that does not divide": (
        lambda: applied(unet, (images,), zeros(2, 8, 10, 1)),
        ShapeError,
        f"{UNET}: expected {IMAGES} with height and width multiples of 4, got (2, 8, 10, 1).",
    ),
    "vit, rank": (
        lambda: vit.init(KEY, zeros(8, 8)),
        ShapeError,
        f"{VIT}: expected {IMAGES}, got (8, 8).",
    ),
    "vit, channels": (
        lambda: applied(vit, (images,), zeros(2, 8, 8, 3)),
        ShapeError,
        "vit/embed = linear(4): expected an input [..., 16], got (2, 4, 48).",
    ),
    "vit, height that does not divide": (
        lambda: vit.init(KEY, zeros(2, 6, 8, 1)),
        ShapeError,
        f"{VIT}: expected {IMAGES} with height and width multiples of 4, got (2, 6, 8, 1).",
    ),
    "vit, no pixels": (
        lambda: vit.init(KEY, zeros(2, 8, 0, 1)),
        ShapeError,
        f"{VIT}: expected {IMAGES} with height and width multiples of 4, got (2, 8, 0, 1).",
    ),
    "vit, another size": (
        lambda: applied(vit, (images,), zeros(2, 8, 12, 1)),
        ShapeError,
        "vit/positions = token_positions(): expected an image of 5 tokens, one a position, got 7.",
    ),
    "vae, size": (
        lambda: applied(vae, (rows,), zeros(2, 6)),
        ShapeError,
        "vae/encoder/layers/0 = linear(3): expected an input [..., 4], got (2, 6).",
    ),
    "vae, no key in training": (
        lambda: applied(vae, (rows,), rows, train=True),
        NetError,
        f"{vae!r}: expected a key in training, got None. Pass key= to apply.",
    ),
    "dcgan_generator, rank": (
        lambda: generator.init(KEY, zeros()),
        ShapeError,
        f"dcgan_generator/project = {PROJECT}: expected an input [..., features], got ().",
    ),
    "dcgan_generator, size": (
        lambda: applied(generator, (rows,), zeros(2, 6)),
        ShapeError,
        f"dcgan_generator/project = {PROJECT}: expected an input [..., 4], got (2, 6).",
    ),
    "dcgan_discriminator, rank": (
        lambda: discriminator.init(KEY, zeros(8, 8)),
        ShapeError,
        f"{JUDGE}: expected {IMAGES}, got (8, 8).",
    ),
    "dcgan_discriminator, another size": (
        lambda: applied(discriminator, (images,), zeros(2, 8, 16, 1)),
        ShapeError,
        f"{JUDGE}: expected {IMAGES} with height and width 8, got (2, 8, 16, 1).",
    ),
    "dcgan_discriminator, channels": (
        lambda: applied(discriminator, (images,), zeros(2, 8, 8, 3)),
        ShapeError,
        f"dcgan_discriminator/convs/0 = conv(2, 4, stride=2, w_init=normal(stddev=0.02)): expected {IMAGES} with 1 "
        "channels, got (2, 8, 8, 3).",
    ),
    "gaussian_kl, two shapes": (
        lambda: nets.gaussian_kl(zeros(2, 3), zeros(3)),
        ValueError,
        "gaussian_kl: expected mean and log_var of one shape [..., latents], got (2, 3) and (3,)",
    ),
    "gaussian_kl, no axis": (
        lambda: nets.gaussian_kl(zeros(), zeros()),
        ValueError,
        "gaussian_kl: expected mean and log_var of one shape [..., latents], got () and ()",
    ),
    # Parameters and state.
    "convnet, parameters of another": (
        lambda: convnet.apply(params_of(nets.linear(2), rows), images),
        NetError,
        "convnet((2, 3), 4, 5): expected params of the children ['convs', 'pool', 'flat', 'hidden', 'drop', 'head'], "
        "got ['b', 'w']." + REMEDY,
    ),
    "resnet, parameters of another stem": (
        lambda: resnet.apply(*params_of(nets.resnet(18, 5, width=2), images), images),
        ShapeError,
        f"resnet/stem/conv = {STEM}: expected parameters w [3, 3, any, 2], got {{'w': (7, 7, 1, 2)}}." + REMEDY,
    ),
    "resnet, parameters of another depth": (
        lambda: resnet.apply(*params_of(nets.resnet(34, 5, width=2, small_images=True), images), images),
        NetError,
        "resnet/stages/0 = resnet(18, 5, width=2, small_images=True): expected params of the children [0, 1], "
        "got [0, 1, 2]." + REMEDY,
    ),
    "resnet, no state": (
        lambda: resnet.apply(params_of(resnet, images)[0], {}, images),
        ShapeError,
        "resnet/stem/norm = batch_norm(): expected state mean [2], var [2], got nothing." + REMEDY,
    ),
    "unet, parameters of other levels": (
        lambda: unet.apply(*params_of(nets.unet(2, channels=(2, 3)), images), images),
        NetError,
        f"unet/decoder = {UNET}: expected params of the children [0, 1], got [0]." + REMEDY,
    ),
    "vit, no parameters": (
        lambda: vit.apply({}, images),
        NetError,
        "vit/token = param((4,), zeros): expected an array (4,), got nothing. Make it with this network's own "
        "init(key, x).",
    ),
    "vit, positions of a row": (
        lambda: vit.apply(params_of(vit, images) | {"positions": {"w": zeros(4)}}, images),
        ShapeError,
        "vit/positions = token_positions(): expected parameters w [any, 4], got {'w': (4,)}." + REMEDY,
    ),
    "vae, parameters of another": (
        lambda: vae.apply(params_of(nets.linear(2), rows), rows),
        NetError,
        f"{vae!r}: expected params of the children ['encoder', 'mean', 'log_var', 'decoder'], got ['b', 'w']." + REMEDY,
    ),
    "dcgan_generator, parameters of a larger one": (
        lambda: generator.apply(*params_of(nets.dcgan_generator(16, 1, width=1), rows), rows),
        NetError,
        f"dcgan_generator/convs = {generator!r}: expected params of the children [0], got [0, 1]." + REMEDY,
    ),
    "dcgan_discriminator, parameters of a larger one": (
        lambda: discriminator.apply(params_of(nets.dcgan_discriminator(16, width=2), zeros(16, 16, 1))[0], images),
        NetError,
        f"dcgan_discriminator/convs = {JUDGE}: expected params of the children [0], got [0, 1]." + REMEDY,
    ),
    # Constructors.
    "convnet, no channels": (
        lambda: nets.convnet((), 3, 4),
        ValueError,
        "convnet: expected channels to be a tuple of at least one integer, got ()",
    ),
    "convnet, a number for channels": (
        lambda: nets.convnet(3, 3, 4),  # pyright: ignore[reportArgumentType]
        ValueError,
        "convnet: expected channels to be a tuple of at least one integer, got 3",
    ),
    "convnet, channels of zero": (
        lambda: nets.convnet((4, 0), 3, 4),
        ValueError,
        f"convnet: expected channels {SIZE}",
    ),
    "convnet, hidden": (lambda: nets.convnet((4,), 0, 4), ValueError, f"convnet: expected hidden {SIZE}"),
    "convnet, num_classes": (lambda: nets.convnet((4,), 3, 0), ValueError, f"convnet: expected num_classes {SIZE}"),
    "convnet, drop_rate": (
        lambda: nets.convnet((4,), 3, 4, drop_rate=1.0),
        ValueError,
        "dropout: expected rate, the share that is dropped, in [0, 1), got 1.0",
    ),
    "resnet, depth": (
        lambda: nets.resnet(20, 5),
        ValueError,
        "resnet: expected depth to be one of [18, 34, 50, 101, 152], got 20",
    ),
    "resnet, version": (
        lambda: nets.resnet(18, 5, version=3),
        ValueError,
        "resnet: expected version to be 1 or 2, got 3",
    ),
    "resnet, num_classes": (lambda: nets.resnet(18, 0), ValueError, f"resnet: expected num_classes {SIZE}"),
    "resnet, width": (lambda: nets.resnet(18, 5, width=0), ValueError, f"resnet: expected width {SIZE}"),
    "unet, features": (lambda: nets.unet(0), ValueError, f"unet: expected features {SIZE}"),
    "unet, no levels": (
        lambda: nets.unet(2, channels=()),
        ValueError,
        "unet: expected channels to be a tuple of at least one integer, got ()",
    ),
    "unet, channels of zero": (
        lambda: nets.unet(2, channels=(0, 2)),
        ValueError,
        f"unet: expected channels {SIZE}",
    ),
    "unet, norm": (
        lambda: nets.unet(2, norm=3),  # pyright: ignore[reportArgumentType]
        TypeError,
        "unet: expected norm to be a network, such as group_norm(8), or serial() for none, got 3",
    ),
    "vit, num_classes": (lambda: vit_with(num_classes=0), ValueError, f"vit: expected num_classes {SIZE}"),
    "vit, patch": (lambda: vit_with(patch=0), ValueError, f"vit: expected patch {SIZE}"),
    "vit, features": (lambda: vit_with(features=0), ValueError, f"vit: expected features {SIZE}"),
    "vit, num_layers": (lambda: vit_with(num_layers=0), ValueError, f"vit: expected num_layers {SIZE}"),
    "vit, num_heads": (lambda: vit_with(num_heads=0), ValueError, f"vit: expected num_heads {SIZE}"),
    "vit, heads that do not divide": (
        lambda: vit_with(num_heads=3),
        ValueError,
        "vit: expected features to be a multiple of num_heads = 3, got 4",
    ),
    "vit, pool": (
        lambda: vit_with(pool="max"),
        ValueError,
        "vit: expected pool to be 'token' or 'mean', got 'max'",
    ),
    "vae, encoder": (
        lambda: nets.vae(3, nets.linear(2), 2),  # pyright: ignore[reportArgumentType]
        TypeError,
        "expected a network or a function, got 3",
    ),
    "vae, latent_size": (
        lambda: nets.vae(nets.mlp(2), nets.mlp(2), 0),
        ValueError,
        f"vae: expected latent_size {SIZE}",
    ),
    "dcgan_generator, image_size": (
        lambda: nets.dcgan_generator(24, 1),
        ValueError,
        "dcgan_generator: expected image_size to be a power of two, got 24",
    ),
    "dcgan_generator, small images": (
        lambda: nets.dcgan_generator(4, 1),
        ValueError,
        "dcgan_generator: expected image_size to be an integer of at least 8, got 4",
    ),
    "dcgan_generator, channels": (
        lambda: nets.dcgan_generator(8, 0),
        ValueError,
        f"dcgan_generator: expected channels {SIZE}",
    ),
    "dcgan_generator, width": (
        lambda: nets.dcgan_generator(8, 1, width=0),
        ValueError,
        f"dcgan_generator: expected width {SIZE}",
    ),
    "dcgan_generator, kernel": (
        lambda: nets.dcgan_generator(8, 1, kernel=0),
        ValueError,
        f"conv_transpose: expected kernel {SIZE}",
    ),
    "dcgan_discriminator, image_size": (
        lambda: nets.dcgan_discriminator(24),
        ValueError,
        "dcgan_discriminator: expected image_size to be a power of two, got 24",
    ),
    "dcgan_discriminator, width": (
        lambda: nets.dcgan_discriminator(8, width=0),
        ValueError,
        f"dcgan_discriminator: expected width {SIZE}",
    ),
    "dcgan_discriminator, kernel": (
        lambda: nets.dcgan_discriminator(8, kernel=0),
        ValueError,
        f"conv: expected kernel {SIZE}",
    ),
    "resnet, a list for depth": (
        lambda: nets.resnet([18], 5),  # pyright: ignore[reportArgumentType]
        ValueError,
        "resnet: expected depth to be one of [18, 34, 50, 101, 152], got [18]",
    ),
    "resnet, a flag for version": (
        lambda: nets.resnet(18, 5, version=True),
        ValueError,
        "resnet: expected version to be 1 or 2, got True",
    ),
    "unet, no norm": (
        lambda: nets.unet(2, norm=None),  # pyright: ignore[reportArgumentType]
        TypeError,
        "unet: expected norm to be a network, such as group_norm(8), or serial() for none, got None",
    ),
}
