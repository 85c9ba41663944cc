"""Links in a row: names, Optax's among them, and what is refused."""

import re
import types
from typing import Any

import jax.numpy as jnp
import optax
import pytest

from renga import optim

from .trees import assert_close, assert_same

PARAMS = {"w": jnp.array([0.6, 0.8]), "b": jnp.array(-0.3)}
GRADS = {"w": jnp.array([3.0, -4.0]), "b": jnp.array(0.5)}


def two_updates(tx: optax.GradientTransformation) -> list[Any]:
    tx, opt_state, found = optax.with_extra_args_support(tx), tx.init(PARAMS), []
    for _ in range(2):
        updates, opt_state = tx.update(GRADS, opt_state, PARAMS, grad_fn=lambda params: params)
        found.append(updates)
    return found


def test_links_apply_from_left_to_right():
    clipped_first = two_updates(optim.chain(optim.clip(1.0), optim.scale(-0.1)))[0]
    scaled_first = two_updates(optim.chain(optim.scale(-0.1), optim.clip(1.0)))[0]
    assert_close(clipped_first, {"w": jnp.array([-0.1, 0.1]), "b": jnp.array(-0.05)})
    assert_close(scaled_first, {"w": jnp.array([-0.3, 0.4]), "b": jnp.array(-0.05)})


def test_without_names_the_state_is_a_tuple_as_optaxs():
    tx = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(0.1))
    own = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))
    assert_same(tx.init(PARAMS), own.init(PARAMS))
    assert_same(two_updates(tx), two_updates(own))


def test_with_a_name_the_state_is_a_dict_and_the_others_are_named_after_their_kind():
    tx = optim.chain(optim.clip(1.0), optim.clip(0.5), optim.sam(0.1), optim.clip(0.2), base=optim.adam(0.1))
    opt_state: Any = tx.init(PARAMS)
    assert list(opt_state) == ["clip", "clip_1", "sam", "clip_2", "base"]
    assert_same(opt_state["base"], optax.adam(0.1).init(PARAMS))


def test_a_link_of_optax_itself_has_the_name_link():
    tx = optim.chain(optax.clip(1.0), optim.clip(0.5), optax.scale(2.0), base=optax.sgd(0.1))
    opt_state: Any = tx.init(PARAMS)
    assert list(opt_state) == ["link", "clip", "link_1", "base"]


def test_names_change_no_update():
    links = [optim.sam(0.1), optim.trace(0.9), optim.scale(-0.1)]
    plain = two_updates(optim.chain(*links))
    assert_same(two_updates(optim.chain(*links[:2], step=links[2])), plain)
    assert_same(two_updates(optim.chain(look=links[0], trace=links[1], step=links[2])), plain)


def test_a_chain_in_a_chain_is_the_longer_chain():
    links = [optim.sam(0.1), optim.trace(0.9), optim.scale(-0.1)]
    plain = two_updates(optim.chain(*links))
    assert_same(two_updates(optim.chain(links[0], optim.chain(*links[1:]))), plain)
    assert_same(two_updates(optim.chain(optim.chain(look=links[0]), optim.chain(links[1], step=links[2]))), plain)


def test_links_of_ours_and_of_optax_stand_in_each_others_chains():
    links, own = (optim.sam(0.1), optim.adam(0.1)), (optax.trace(0.9), optax.scale(0.5))
    mixed = [
        optim.chain(*links, *own),
        optax.chain(*links, *own),
        optax.chain(optim.chain(*links), optax.chain(*own)),
        optim.chain(optax.chain(*links), optim.chain(*own)),
    ]
    first, *others = map(two_updates, mixed)
    for other in others:
        assert_same(other, first)


def test_an_optax_transformation_without_extra_arguments_is_taken():
    bare = optax.GradientTransformation(lambda params: (), lambda updates, state, params=None: (updates, state))
    assert_same(two_updates(optim.chain(bare, optim.sam(0.1))), two_updates(optim.sam(0.1)))


def test_order_and_names_are_part_of_what_a_chain_is():
    clip, sgd = optim.clip(1.0), optim.sgd(0.1)
    chains = [
        optim.chain(clip, sgd),
        optim.chain(sgd, clip),
        optim.chain(clip, base=sgd),
        optim.chain(clip, last=sgd),
        optim.chain(clip=clip, base=sgd),
        optim.chain(base=sgd, clip=clip),
    ]
    assert len(set(chains)) == len(chains)


def test_a_chain_of_nothing_is_refused():
    with pytest.raises(TypeError, match=r"^chain: expected at least one link, got none$"):
        optim.chain()


@pytest.mark.parametrize("wrong", [optim.adam, optax.adam, 1e-3, None], ids=["uncalled", "Optax's", "number", "None"])
@pytest.mark.parametrize("name", [None, "base"])
def test_what_is_no_link_is_refused(wrong: Any, name: str | None):
    links, named = ((), {name: wrong}) if name else ((wrong,), {})
    with pytest.raises(TypeError, match=rf"^chain: expected links such as adam\(1e-3\), got {re.escape(repr(wrong))}$"):
        optim.chain(optim.clip(1.0), *links, **named)


def test_a_name_that_a_link_has_already_is_refused():
    expected = "chain: expected a name of its own for sgd(0.1), got 'clip_1', that of clip(0.5)"
    with pytest.raises(TypeError, match=f"^{re.escape(expected)}$"):
        optim.chain(optim.clip(1.0), optim.clip(0.5), clip_1=optim.sgd(0.1))


@optim.link
def sharp(rho: float) -> optax.GradientTransformation:
    """A link of a user's own, made of others."""
    return optim.chain(optim.sam(rho), optim.sgd(0.1))


@pytest.mark.parametrize(
    "holding",
    [
        optim.sam(0.1),
        optim.chain(optim.sam(0.1), optim.sgd(0.1)),
        optim.chain(optim.clip(1.0), optim.chain(look=optim.sam(0.1))),
        optim.masked(optim.sam(0.1), {"w": True, "b": False}),
        optim.apply_if_finite(optim.sam(0.1), 3),
        optim.partition({"a": optim.chain(optim.sam(0.1), optim.sgd(0.1)), "b": optim.sgd(0.1)}, {"w": "a", "b": "b"}),
        optim.partition(types.MappingProxyType({"a": optim.sam(0.1)}), {"**": "a"}),
        sharp(0.1),
        optim.Link(*optax.chain(optim.sam(0.1), optim.sgd(0.1))),
        optim.Link(*optax.masked(optax.named_chain(("sam", optim.sam(0.1))), {"w": True, "b": False})),
        optim.skip_not_finite(optax.chain(optim.sam(0.1))),
    ],
    ids=lambda link: re.sub(r" at 0x\w+", "", repr(link)),
)
def test_two_links_that_evaluate_gradients_are_refused(holding: optim.Link):
    assert holding.evaluates_gradient
    expected = f"chain: expected at most one link that evaluates gradients, got {holding!r} and sam(0.2). The later one"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}"):
        optim.chain(holding, optim.clip(1.0), optim.sam(0.2))
    with pytest.raises(ValueError, match="at most one link that evaluates gradients"):
        optim.chain(optim.sam(0.2), base=holding)


def test_links_that_do_not_call_grad_fn_are_known_as_such():
    plain = [optim.adam(0.1), optim.lbfgs(), optim.optimistic_gradient(0.1), optim.chain(optim.adam(0.1))]
    assert not any(link.evaluates_gradient for link in plain)


def test_what_is_marked_as_a_link_and_returns_none_is_refused():
    @optim.link
    def half() -> Any:
        return 0.5

    expected = "half: expected a function marked @link to return an optax.GradientTransformation, got 0.5"
    with pytest.raises(TypeError, match=f"^{re.escape(expected)}$"):
        half()


def test_the_state_of_another_number_of_links_is_refused():
    params = {"w": jnp.ones(2)}
    longer = optim.chain(optim.clip(1.0), optim.scale(2.0), optim.sgd(0.1)).init(params)
    expected = "chain: expected the state of 2 links, got 3. Make the state with this chain's own init(params)."
    with pytest.raises(ValueError, match=re.escape(expected)):
        optim.chain(optim.clip(1.0), optim.sgd(0.1)).update(params, longer, params)
