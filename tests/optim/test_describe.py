"""What a chain holds and costs: tables against what is really held, and gradients really evaluated."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from renga import optim
from renga.optim import Cost, describe, inject_hyperparams

from .registry import LINKS

PARAMS = {"b": jnp.zeros(2), "w": jnp.zeros((3, 2))}


@pytest.mark.parametrize("name", LINKS)
def test_the_first_row_is_the_total(name: str):
    tx = LINKS[name]()
    total = describe(tx, PARAMS).rows[0]
    leaves = jax.tree.leaves(jax.eval_shape(tx.init, PARAMS))
    assert (total.link, total.depth) == (repr(tx), 0)
    assert total.bytes == sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    assert sum(total.state.values()) == sum(leaf.size for leaf in leaves)


@pytest.mark.parametrize(
    ("tx", "gradients", "products"),
    [
        (optim.adam(0.1), Cost(), Cost()),
        (optim.sam(0.1), Cost(1), Cost()),
        (optim.sam(0.1, every=5), Cost(0.2), Cost()),
        (optim.look_sam(0.1, every=4), Cost(0.25), Cost()),
        (optim.asam(0.1), Cost(1), Cost()),
        (optim.friendly_sam(0.1), Cost(1), Cost()),
        (optim.extragradient(optim.adam(0.1)), Cost(1), Cost()),
        (optim.extragradient_plus(optim.sgd(0.1)), Cost(1), Cost()),
        (optim.past_extragradient(optim.sgd(0.1)), Cost(), Cost()),
        (optim.anchored(optim.sgd(0.1)), Cost(1), Cost()),
        (optim.lookahead(optim.chain(optim.sam(0.1), optim.sgd(0.1)), 5), Cost(1), Cost()),
        (optim.consensus(0.5), Cost(), Cost(1)),
        (optim.symplectic_adjustment(0.5), Cost(), Cost(2)),
        (optim.lola(0.1, shaping=False), Cost(), Cost(2)),
        (optim.lola(0.1), Cost(2), Cost(4)),  # with two players
        (optim.sos(0.1), Cost(2), Cost(4)),
        (optim.chain(optim.agreement(), optim.adam(0.1)), Cost(), Cost()),
        (optim.competitive(0.1), Cost(), Cost(6, rounds=4)),
        (optim.skip_not_finite(optim.chain(optim.sam(0.1), optim.adam(0.1))), Cost(1), Cost()),
        (optim.chain(optim.masked(optim.sam(0.1), "w"), optim.sgd(0.1)), Cost(1), Cost()),
        (optim.lbfgs(), Cost(rounds=1), Cost()),
        (optim.polyak_sgd(), Cost(), Cost()),
        (inject_hyperparams(optim.chain(optim.sam(0.1), optim.adam(0.1))), Cost(1), Cost()),
    ],
    ids=repr,
)
def test_gradients_and_products_of_a_step_are_counted(tx: Any, gradients: Cost, products: Cost):
    total = describe(tx, PARAMS).rows[0]
    assert (total.gradients, total.products) == (gradients, products)


def test_a_link_of_ones_own_is_counted_as_it_is_written():
    @optim.link
    def twice(rounds: int) -> optax.GradientTransformation:
        def update(updates: Any, state: Any, params: Any = None, *, grad_fn: Any = None, **extra: Any) -> Any:
            grads = grad_fn(grad_fn(params))
            grad_fn(grads)  # of which nothing comes
            grads = jax.lax.fori_loop(0, rounds, lambda _, grads: grad_fn(grads), grads)
            return jax.lax.cond(grads["b"][0] > 0, lambda: grad_fn(grads), lambda: grads), state

        return optax.GradientTransformationExtraArgs(lambda params: (), update)

    assert describe(twice(3), PARAMS).rows[0].gradients == Cost(5, sometimes=1)


def test_every_link_has_a_row_below_the_one_that_holds_it():
    groups = {"slow": optim.chain(optim.sam(0.1), optim.sgd(0.1, momentum=0.9)), "fast": optax.adam(0.1)}
    tx = optim.chain(optim.clip(1.0), base=optim.partition(groups, {"**/w": "slow", "**": "fast"}))
    rows = describe(tx, PARAMS).rows
    assert [(row.depth, row.link.split("(")[0]) for row in rows] == [
        (0, "chain"),
        (1, "clip"),
        (1, "partition"),
        (2, "chain"),
        (3, "sam"),
        (3, "sgd"),
    ]
    assert rows[-1].state == {"float32": 6}  # of the matrix alone
    assert rows[2].state == {"float32": 6 + 1 + 4, "int32": 2}  # Adam's of Optax with it
    assert [row.gradients.always for row in rows] == [1, 0, 1, 1, 1, 0]


def test_a_row_shows_what_a_link_holds_and_its_wrapper_what_is_kept_of_it():
    params = {"w": jnp.zeros((64, 64))}
    wrapper, inner = describe(optim.low_bit(optim.adam(0.1), key=0), params).rows
    assert inner.state == {"float32": 2 * 64 * 64, "int32": 1}
    assert wrapper.bytes < 0.3 * inner.bytes


def test_a_description_is_a_table():
    shapes = jax.eval_shape(lambda: {"w": jnp.zeros((1000, 10)), "b": jnp.zeros(10)})
    description = describe(optim.chain(optim.sam(0.05, every=4), optim.adam(1e-3)), shapes)
    assert description.num_params == 10_010
    assert str(description).splitlines() == [
        "link                                    state                    bytes  per param  gradients  products",
        "--------------------------------------  ----------------------  ------  ---------  ---------  --------",
        "chain(sam(0.05, every=4), adam(0.001))  20021 float32, 2 int32  80,092       8.00       0.25         0",
        "  sam(0.05, every=4)                    1 float32, 1 int32           8       0.00       0.25         0",
        "  adam(0.001)                           20020 float32, 1 int32  80,084       8.00          0         0",
    ]


@pytest.mark.parametrize(
    ("cost", "text"),
    [(Cost(), "0"), (Cost(0.2), "0.2"), (Cost(1, 2), "1 to 3"), (Cost(6, rounds=4), "6 + 4 a round")],
)
def test_a_cost_in_words(cost: Cost, text: str):
    assert str(cost) == text


def test_a_long_call_is_cut():
    tx = optim.chain(*(optim.scale(1.0 + index) for index in range(20)))
    first = str(describe(tx, PARAMS)).splitlines()[2]
    assert first.startswith("chain(scale(1.0), ")
    assert "...  -" in first


def test_no_parameters_and_links_of_optax_are_described_too():
    assert describe(optim.adam(0.1), {}).rows[0].state == {"int32": 1}
    (row,) = describe(optax.adam(0.1), PARAMS).rows
    assert (row.link, row.state) == ("a link of Optax", {"float32": 16, "int32": 1})


def test_what_is_no_link_is_refused():
    with pytest.raises(TypeError, match=r"^describe: expected tx to be a link such as adam\(1e-3\), got 3$"):
        describe(3, PARAMS)  # pyright: ignore[reportArgumentType]
