"""JAX's transforms work in the body of a `define`d network as they are, at `init` and at `apply`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from renga import nets

from .kit import floats, values

KEY = jax.random.key(0)
(X,) = values(floats(4, 3))


def affine(params: dict, x: jax.Array) -> jax.Array:
    return x @ params["w"] + params["b"]


def assert_close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def masks(y: jax.Array) -> list[tuple]:
    """Which values of each row were kept."""
    return [tuple(row) for row in np.asarray(y != 0).tolist()]


def test_vmap_works_in_a_body():
    @nets.define
    def rows(x, *, row=nets.linear(2)):
        return jax.vmap(row)(x)

    params = rows.init(KEY, X)
    assert jax.tree.map(jnp.shape, params) == {"row": {"w": (3, 2), "b": (2,)}}
    assert_close(rows.apply(params, X), affine(params["row"], X))


def test_scan_works_in_a_body():
    @nets.define
    def recurrent(xs, *, cell=nets.linear(3)):
        return lax.scan(lambda h, x: (jnp.tanh(cell(h) + x), h), jnp.zeros(3), xs)

    params = recurrent.init(KEY, X)
    h, before = jnp.zeros(3), []
    for x in X:
        before.append(h)
        h = jnp.tanh(affine(params["cell"], h) + x)
    last, hs = recurrent.apply(params, X)
    assert_close(last, h)
    assert_close(hs, jnp.stack(before))


def test_checkpoint_works_in_a_body():
    @nets.define
    def deep(x, *, first=nets.linear(3), second=nets.linear(3)):
        return jax.checkpoint(lambda x: second(jnp.tanh(first(x))))(x)

    def explicit(params: Any, x: jax.Array) -> jax.Array:
        return affine(params["second"], jnp.tanh(affine(params["first"], x)))

    params = deep.init(KEY, X)
    assert_close(deep.apply(params, X), explicit(params, X))
    grads = jax.grad(lambda params: jnp.square(deep.apply(params, X)).sum())(params)
    jax.tree.map(assert_close, grads, jax.grad(lambda params: jnp.square(explicit(params, X)).sum())(params))
    primitives = {eqn.primitive.name for eqn in jax.make_jaxpr(deep.apply)(params, X).eqns}
    assert primitives & {"remat2", "checkpoint"}


def test_grad_works_in_a_body():
    @nets.define
    def force(x, *, energy=nets.mlp(4, 1, activation=jnp.tanh)):
        return -jax.grad(lambda x: energy(x).sum())(x)

    params = force.init(KEY, X)
    first, last = params["energy"]["layers"]
    slope = (1 - jnp.tanh(affine(first, X)) ** 2) * last["w"][:, 0]
    assert_close(force.apply(params, X), -slope @ first["w"].T)


def test_cond_works_in_a_body():
    @nets.define
    def gated(x, *, small=nets.linear(2), large=nets.linear(2)):
        return lax.cond(jnp.sum(x) > 0, large, small, x)

    params = gated.init(KEY, X)
    assert set(params) == {"small", "large"}
    assert_close(gated.apply(params, jnp.abs(X)), affine(params["large"], jnp.abs(X)))
    assert_close(gated.apply(params, -jnp.abs(X)), affine(params["small"], -jnp.abs(X)))


def test_while_loop_and_jit_work_in_a_body():
    @nets.define
    def settled(x, *, step=nets.linear(3)):
        return lax.fori_loop(0, 3, lambda _, x: jnp.tanh(jax.jit(step)(x)), x)

    params = settled.init(KEY, X)
    y = X
    for _ in range(3):
        y = jnp.tanh(affine(params["step"], y))
    assert_close(settled.apply(params, X), y)


def test_jacobians_and_transforms_of_transforms_work_in_a_body():
    @nets.define
    def divergence(x, *, field=nets.linear(3)):
        return jax.vmap(lambda row: jnp.trace(jax.jacfwd(jax.checkpoint(field))(row)))(x)

    params = divergence.init(KEY, X)
    assert_close(divergence.apply(params, X), jnp.full(4, jnp.trace(params["field"]["w"])))


def test_a_network_with_a_scan_in_its_body_goes_through_outer_transforms():
    @nets.define
    def recurrent(xs, *, cell=nets.linear(3)):
        return lax.scan(lambda h, x: (jnp.tanh(cell(h) + x), None), jnp.zeros(3), xs)[0]

    batch = jnp.stack([X, 2 * X])
    params = recurrent.init(KEY, X)
    stack = jax.vmap(recurrent.init, (0, None))(jax.random.split(KEY, 2), X)
    assert_close(jax.vmap(recurrent.apply, (None, 0))(params, batch)[1], recurrent.apply(params, 2 * X))
    assert jax.tree.map(jnp.shape, stack) == {"cell": {"w": (2, 3, 3), "b": (2, 3)}}
    hessian = jax.hessian(lambda params: recurrent.apply(params, X).sum())(params)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(hessian))


def test_a_child_called_twice_shares_its_weights():
    @nets.define
    def twice(x, *, shared=nets.linear(3)):
        return shared(jnp.tanh(shared(x)))

    params = twice.init(KEY, X)
    assert jax.tree.map(jnp.shape, params) == {"shared": {"w": (3, 3), "b": (3,)}}
    assert_close(twice.apply(params, X), affine(params["shared"], jnp.tanh(affine(params["shared"], X))))


def test_a_child_shows_its_own_parameters():
    @nets.define
    def tied(ids, *, tokens=nets.embed(5, 4)):
        return tokens(ids) @ tokens.params["w"].T

    ids = jnp.array([0, 3])
    params = tied.init(KEY, ids)
    assert_close(tied.apply(params, ids), params["tokens"]["w"][ids] @ params["tokens"]["w"].T)


@nets.define
def rows_that_drop(x, *, drop=nets.dropout(0.5)):
    return jax.vmap(drop)(x)


@nets.define
def steps_that_drop(x, *, inner=nets.serial(nets.dropout(0.5))):
    return lax.scan(lambda carry, row: (carry, inner(row)), 0, x)[1]


@nets.define
def recomputed_drop(x, *, drop=nets.dropout(0.5)):
    return jax.checkpoint(drop)(x)


@nets.define
def rows_with_keys(x, *, drop=nets.dropout(0.5), key):
    if key is None:
        return x
    return jax.vmap(lambda row, key: drop(row, key=key))(x, jax.random.split(key, x.shape[0]))


@nets.define
def steps_with_keys(x, *, drop=nets.dropout(0.5), key):
    if key is None:
        return x
    keys = jax.random.split(key, x.shape[0])
    return lax.scan(lambda carry, row: (carry, drop(row[0], key=row[1])), 0, (x, keys))[1]


@pytest.mark.parametrize(
    ("net", "path"),
    [
        (rows_that_drop, "rows_that_drop/drop = dropout(0.5)"),
        (steps_that_drop, "steps_that_drop/inner = serial(dropout(0.5))"),
        (recomputed_drop, "recomputed_drop/drop = dropout(0.5)"),
    ],
)
def test_a_child_that_needs_a_key_is_refused_inside_a_transform(net: nets.Net, path: str):
    x = jnp.ones((4, 16))
    with pytest.raises(nets.NetError) as caught:
        net.apply({}, x, key=KEY, train=True)
    assert caught.value.message == (
        f"{path}: expected key= where a network that takes a key is called inside jax.vmap, lax.scan or another "
        "transform, got none: every row of a vmap and step of a scan would see the same random numbers. "
        "Split the body's own `key` outside, and pass each row or step its part."
    )
    assert_close(net.apply({}, x), x)


@pytest.mark.parametrize("net", [rows_with_keys, steps_with_keys])
def test_rows_and_steps_with_keys_of_their_own_see_masks_of_their_own(net: nets.Net):
    x = jnp.ones((4, 32))
    assert net.init(KEY, x) == {}
    kept = masks(net.apply({}, x, key=KEY, train=True))
    assert len(set(kept)) == 4


def test_every_child_and_every_call_sees_a_mask_of_its_own():
    @nets.define
    def four(x, *, one=nets.dropout(0.5), many=[nets.dropout(0.5), nets.dropout(0.5)]):
        return jnp.stack([one(x), one(x), many[0](x), many[1](x)])

    kept = masks(four.apply({}, jnp.ones(64), key=KEY, train=True))
    assert len(set(kept)) == 4
    assert kept == masks(jax.jit(four.apply, static_argnames="train")({}, jnp.ones(64), key=KEY, train=True))


def test_a_child_may_be_put_in_training_by_the_body():
    @nets.define
    def sampler(x, *, drop=nets.dropout(0.5), off=nets.dropout(0.5)):
        return drop(x, train=True), off(x, train=False)

    dropped, left = sampler.apply({}, jnp.ones(64), key=KEY, train=True)
    assert 0 < jnp.sum(dropped == 0) < 64
    assert_close(left, jnp.ones(64))
    dropped, left = sampler.apply({}, jnp.ones(64), key=KEY)
    assert 0 < jnp.sum(dropped == 0) < 64


def test_a_child_called_in_training_only_gets_parameters():
    @nets.define
    def auxiliary(x, *, head=nets.linear(2), extra=nets.linear(1), train):
        return (head(x), extra(x)) if train else head(x)

    params = auxiliary.init(KEY, X)
    assert set(params) == {"head", "extra"}
    assert_close(auxiliary.apply(params, X, train=True)[1], affine(params["extra"], X))
    nested = nets.serial(auxiliary)
    assert set(nested.init(KEY, X)["auxiliary"]) == {"head", "extra"}


def test_train_is_static_under_jit():
    @nets.define
    def net(x, *, drop=nets.dropout(0.5)):
        return drop(x)

    run = jax.jit(net.apply, static_argnames="train")
    assert_close(run({}, jnp.ones(64), key=KEY, train=False), jnp.ones(64))
    assert 0 < jnp.sum(run({}, jnp.ones(64), key=KEY, train=True) == 0) < 64


NORM = nets.batch_norm()


@nets.define
def norm_in_scan(xs, *, norm=NORM):
    return lax.scan(lambda carry, x: (carry, norm(x)), 0, xs)[1]


@nets.define
def norm_in_vmap(xs, *, norm=nets.serial(NORM)):
    return jax.vmap(norm)(xs)


@nets.define
def repeated_norm_in_vmap(xs, *, norm=nets.repeat(NORM, 2)):
    return jax.vmap(norm)(xs)


@nets.define
def ensemble_of_norms_in_scan(xs, *, norm=nets.ensemble(NORM, 2)):
    return lax.scan(lambda carry, x: (carry, norm(x)), 0, xs)[1]


@pytest.mark.parametrize("net", [norm_in_scan, norm_in_vmap, repeated_norm_in_vmap, ensemble_of_norms_in_scan])
def test_an_update_of_state_inside_a_transform_is_refused_and_none_works(net: nets.Net):
    xs = values(floats(2, 4, 3))[0]
    params, state = net.init(KEY, xs)
    with pytest.raises(nets.NetError) as caught:
        net.apply(params, state, xs, train=True)
    assert f"{net!r}/norm = " in caught.value.message
    assert caught.value.message.endswith(
        "expected a network that updates its state to be called outside jax.vmap, lax.scan and other transforms, got "
        "a call inside one, which would lose the update. Call it outside, use nets.repeat or nets.ensemble, which "
        "carry state, or carry it yourself: y, state = child(x, state=state), then child.keep(state) outside."
    )
    y, kept = net.apply(params, state, xs)
    jax.tree.map(np.testing.assert_array_equal, kept, state)
    wide = jnp.stack([xs, xs], 1) if net is ensemble_of_norms_in_scan else xs
    # The running statistics are still mean 0 and variance 1, so each norm divides by sqrt(1 + eps).
    assert_close(y, wide / jnp.sqrt(1 + 1e-5) ** (2 if net is repeated_norm_in_vmap else 1))


def test_state_called_twice_moves_twice():
    @nets.define
    def twice(x, *, norm=nets.batch_norm(decay_rate=0.5)):
        return norm(norm(x))

    params, state = twice.init(KEY, X)
    _, after = twice.apply(params, state, X, train=True)
    # The second call sees mean 0, so it halves the mean that the first one left.
    assert_close(after["norm"]["mean"], 0.25 * X.mean(0))


def test_a_caller_passes_keywords_to_a_body_at_init_and_apply():
    @nets.define
    def masked(x, *, head=nets.linear(3), mask, extra=None):
        y = jnp.where(mask, head(x), 0)
        return y if extra is None else y + extra

    mask = X > 0
    params = masked.init(KEY, X, mask=mask)
    assert_close(masked.apply(params, X, mask=mask), jnp.where(mask, affine(params["head"], X), 0))
    assert_close(masked.apply(params, X, mask=mask, extra=X), jnp.where(mask, affine(params["head"], X), 0) + X)


TRACED: list[jax.Array] = []


def note(params: dict, x: jax.Array) -> jax.Array:
    TRACED.append(x)
    return x


def test_jit_finds_the_program_of_an_equal_network():
    TRACED.clear()
    alike = [nets.serial(nets.Net(None, note)) for _ in range(3)]
    for net in alike:
        jax.jit(net.apply)({}, X)
    assert len(TRACED) == 1


def test_numbers_and_words_among_the_inputs_of_equal_children_decide_on_their_shapes():
    @nets.define
    def head(x, n, how, *, out=nets.linear(3)):
        return out(x[..., :n] if how == "first" else x[..., -n:])

    @nets.define
    def both(x, *, left=head, right=head):
        return left(x, 2, "first") + right(x, 3, "last")

    params = both.init(KEY, X)
    assert jax.tree.map(jnp.shape, params["left"]["out"]["w"]) == (2, 3)
    assert jax.tree.map(jnp.shape, params["right"]["out"]["w"]) == (3, 3)
    found = affine(params["left"]["out"], X[..., :2]) + affine(params["right"]["out"], X[..., -3:])
    assert_close(both.apply(params, X), found)
    assert jax.tree.map(jnp.shape, head.init(KEY, X, 2, "last")["out"]["w"]) == (2, 3)


def test_a_state_of_other_shapes_is_not_kept():
    @nets.define
    def rows(x, *, norm=nets.batch_norm()):
        y, states = jax.vmap(lambda row: norm(row, state=norm.state))(norm(x)[None])
        norm.keep(states)
        return y

    state = {"rows": {"norm": {"mean": jnp.zeros(3), "var": jnp.ones(3)}}}
    message = r"serial/rows/norm = batch_norm\(\): expected a state .* to keep, got"
    with pytest.raises(nets.ShapeError, match=message):
        nets.serial(rows).init(KEY, X)
    with pytest.raises(nets.ShapeError, match=message):
        nets.serial(rows).apply({"rows": {"norm": nets.batch_norm().init(KEY, X)[0]}}, state, X, train=True)


def test_a_network_that_takes_a_key_is_called_like_a_function_with_both_key_and_train():
    drop = nets.dropout(0.5)
    with pytest.raises(nets.NetError, match="expected train=, and key= to train"):
        drop(X)
    assert_close(drop(X, train=False), X)
    assert_close(drop(X, key=KEY, train=True), drop.apply({}, X, key=KEY, train=True))


def test_a_network_without_parameters_is_called_like_a_function():
    assert_close(nets.max_pool((2,))(X), nets.max_pool((2,)).apply({}, X))
    assert_close(nets.serial(jnp.tanh, nets.flatten(2))(X), jnp.tanh(X).reshape(-1))


@nets.define
def masked_mean(x, *, mask=None, causal=None, out=nets.linear(2)):
    if causal:
        x = jnp.cumsum(x, -2)
    return out(x if mask is None else x * mask[..., None])


def test_keywords_of_a_body_may_be_arrays_or_flags_at_init_and_apply():
    x, mask = jnp.ones((3, 4)), jnp.array([1.0, 0.0, 1.0])
    plain = masked_mean.init(KEY, x)
    for keywords in ({"mask": mask}, {"causal": True}, {"mask": mask, "causal": False}):
        same = jax.tree.map(jnp.array_equal, plain, masked_mean.init(KEY, x, **keywords))
        assert all(jax.tree.leaves(same))
    w, b = plain["out"]["w"], plain["out"]["b"]
    np.testing.assert_allclose(masked_mean.apply(plain, x, mask=mask), (x * mask[:, None]) @ w + b, rtol=1e-5)
    np.testing.assert_allclose(masked_mean.apply(plain, x, causal=True), jnp.cumsum(x, 0) @ w + b, rtol=1e-5)
