"""Ten images, one a class, drawn by gradients through training, teach a network to read the digits.

A network of new initial values makes twenty steps of gradient descent on ten images and nothing else. The images are
learnt: by the gradient, through all steps, of the loss on real images that the network has at the end.

    pip install 'renga[cli]'
    python examples/distillation.py        15 seconds

Prints the accuracy on test images, mean of 50 networks that were not seen, after steps on ten real images, one a class,
and after steps on the learnt ones:

    ten real images    61.6 %
    ten learnt images  92.2 %

Source: Wang, Zhu, Torralba, Efros 2018, https://arxiv.org/abs/1811.10959, algorithm 1.
"""

import jax
import jax.numpy as jnp
from sklearn.datasets import load_digits

from renga import nets, optim, training

STEPS, NETWORKS = 20, 50
LABELS = jnp.arange(10)
NET = nets.mlp(64, 10)


def digits():
    """Images to learn from, and a third to test on."""
    x, y = load_digits(return_X_y=True)
    order = jax.random.permutation(jax.random.key(0), len(x))
    x, y = jnp.asarray(x[order], jnp.float32) / 16, jnp.asarray(y[order])
    third = len(x) // 3
    return {"x": x[third:], "y": y[third:]}, {"x": x[:third], "y": y[:third]}


def inner_loss(params, images, batch, key):
    """Cross entropy of the ten images."""
    return training.cross_entropy(NET.apply(params, images), LABELS)


def trained(images, key):
    """A network that has seen nothing but the ten images."""
    return training.minimize(inner_loss, optim.sgd(0.6), STEPS)(NET.init(key, images), images)


def outer_loss(images, batch, key):
    """The loss on real images, mean of four networks that the ten images have trained."""

    def one(key):
        return training.cross_entropy(NET.apply(trained(images, key), batch["x"]), batch["y"])

    return jnp.mean(jax.vmap(one)(jax.random.split(key, 4)))


@jax.jit
def accuracy(images, test):
    """Share of right answers, mean of networks that were not seen."""
    keys = jax.random.split(jax.random.key(2), NETWORKS)
    return jnp.mean(
        jax.vmap(lambda key: training.accuracy(NET.apply(trained(images, key), test["x"]), test["y"]))(keys)
    )


def main(num_steps: int = 600) -> dict[str, float]:
    """Learns the images, prints the table, and returns it."""
    train, test = digits()
    first = jnp.array([jnp.argmax(train["y"] == label) for label in LABELS])
    real = train["x"][first]
    tx = optim.adam(optim.cosine_decay_schedule(0.02, num_steps))
    train_state, _ = training.fit(
        training.step(outer_loss, tx),
        training.init(real, tx, key=jax.random.key(1)),
        training.batches(train, 256, key=jax.random.key(3)),
        num_steps=num_steps,
        report_every=num_steps,
        progress=False,
    )
    found = {
        "ten real images": 100 * float(accuracy(real, test)),
        "ten learnt images": 100 * float(accuracy(train_state.params, test)),
    }
    for name, share in found.items():
        print(f"{name:17}  {share:.1f} %")
    return found


if __name__ == "__main__":
    main()
