"""Attacks on a network: what a config can say of them, and how many examples withstand them."""

import csv
import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from .._adversarial import Attack as AttackFn
from .._adversarial import adversarial, fgsm, pgd
from .._compiler import jit
from .._losses import cross_entropy
from ._config import Range
from ._networks import Count
from ._task import Batch, Ending, Losses

BOUNDS = (0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Attack:
    """Training on inputs that are moved to where the loss is large, and a test under a stronger attack.

    Attributes:
      epsilon: how far inputs may be moved, with values in [0, 1].
      norm: "linf", of any number, or "l2", of an example.
      train_steps: steps of the attack on each batch in training; with none, training is plain.
      test_steps: steps of the attack on what is held out.
      restarts: such attacks from different random starts, of which an example has to withstand all.
    """

    epsilon: Annotated[float, Range(0)] = 0.1
    norm: Literal["linf", "l2"] = "linf"
    train_steps: Annotated[int, Range(0)] = 10
    test_steps: Count = 50
    restarts: Count = 10

    def loss(self, loss_fn: Any) -> Any:
        """What is trained on, a stateful loss too."""
        if self.train_steps == 0:
            return loss_fn
        attack = pgd(self.epsilon, self.train_steps, norm=self.norm, bounds=BOUNDS)
        return adversarial(loss_fn, attack, stateful=True)

    def tests(self) -> dict[str, tuple[AttackFn, int]]:
        """By name, attacks and their restarts, the weakest first."""
        found: dict[str, tuple[AttackFn, int]] = {"clean": (_nothing, 1)}
        if self.norm == "linf":
            found["fgsm"] = (fgsm(self.epsilon, bounds=BOUNDS), 1)
        return found | {"pgd": (pgd(self.epsilon, self.test_steps, norm=self.norm, bounds=BOUNDS), self.restarts)}

    def finish(self, ending: Ending) -> str:
        """Leaves `attack.csv`, and returns what to print of it."""
        shares = {
            name: float(np.mean(withstands(ending, attack, restarts)))
            for name, (attack, restarts) in self.tests().items()
        }
        save(shares, ending.directory / "attack.csv")
        values = "  ".join(f"{name} {share:.4f}" for name, share in shares.items())
        return f"test accuracy under attack, {self.norm} {self.epsilon}: {values}"


def withstands(ending: Ending, attack: AttackFn, restarts: int) -> np.ndarray:
    """Which examples of the test data are told right after every attack, `[examples]`."""
    params, state, test = ending.train_state.params, ending.train_state.state, ending.split.test
    compiled, losses = jit(_told_right, static_argnums=(0, 1)), ending.losses
    keys = jax.random.split(jax.random.fold_in(ending.key, 0), restarts)
    return np.all([np.asarray(compiled(losses, attack, params, state, test, key)) for key in keys], 0)


def save(shares: dict[str, float], path: Path) -> None:
    """Leaves the accuracy under each attack as a table."""
    with path.open("w", encoding="utf-8", newline="") as rows:
        csv.writer(rows, lineterminator="\n").writerows([("attack", "accuracy"), *shares.items()])


def _told_right(losses: Losses, attack: AttackFn, params: Any, state: Any, batch: Batch, key: jax.Array) -> jax.Array:
    def loss_of(x: jax.Array) -> jax.Array:
        return cross_entropy(losses.logits(params, state, {**batch, "x": x})[0], batch["y"])

    moved = attack(loss_of, jnp.asarray(batch["x"]), key)
    return jnp.argmax(losses.logits(params, state, {**batch, "x": moved})[0], -1) == batch["y"]


def _nothing(loss_fn: Any, x: jax.Array, key: jax.Array | None) -> jax.Array:
    return x
