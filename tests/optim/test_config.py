"""Chains in plain words and back."""

import json
import re
import tomllib
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from renga import optim
from renga.optim import agreement, from_config, inject_hyperparams, soap, to_config

from .registry import LINKS, matrices, plain_sgd
from .trees import shown

KNOWN = {"plain_sgd": plain_sgd, "soap": soap, "agreement": agreement, "inject_hyperparams": inject_hyperparams}
FUNCTIONS = ("matrices", "by_rank", "centred")
SAYABLE = [name for name in LINKS if not any(function in repr(LINKS[name]()) for function in FUNCTIONS)]


@pytest.mark.parametrize("name", SAYABLE)
def test_a_link_comes_back_from_json(name: str):
    tx = LINKS[name]()
    assert from_config(json.loads(json.dumps(to_config(tx))), known=KNOWN) == tx


@pytest.mark.parametrize("name", sorted(set(LINKS) - set(SAYABLE)))
def test_a_function_cannot_be_said(name: str):
    with pytest.raises(
        TypeError, match=r"^to_config: [\w.\[\]]+\.(mask|param_labels|projection): expected text, .* got \w+\. Func"
    ):
        to_config(LINKS[name]())


@pytest.mark.parametrize(
    "tx",
    [
        soap(0.1, precondition_frequency=2),
        agreement(key=3),
        inject_hyperparams(optim.adam(0.1), "**/learning_rate"),
        optim.sgd(optim.join_schedules([optim.constant_schedule(0.1), optim.constant_schedule(0.2)], [3])),
        optim.sgd(optim.piecewise_constant_schedule(0.1, {5: 0.5, 9: 0.1})),
        optim.sgd(optim.sgdr_schedule([{"init_value": 0.0, "peak_value": 0.1, "decay_steps": 9, "warmup_steps": 2}])),
        optim.adam(0.1, mu_dtype=jnp.bfloat16),
        optim.adam(0.1, mu_dtype="bfloat16"),
        optim.sam(0.1, exclude=("**/b", "**/scale")),
        optim.adam(float("inf")),
    ],
    ids=shown,
)
def test_schedules_dtypes_and_sequences_come_back(tx: Any):
    assert from_config(to_config(tx), known=KNOWN) == tx


def test_a_config_is_short():
    assert to_config(optim.chain(optim.sam(0.05), base=optim.adam(1e-3))) == {
        "name": "chain",
        "links": [{"name": "sam", "rho": 0.05}],
        "named_links": {"base": {"name": "adam", "learning_rate": 0.001}},
    }


def test_toml_says_a_chain():
    text = """
    name = "chain"
    [[links]]
    name = "asam"
    rho = 0.5
    unscaled = ["**/b", "**/scale"]
    [[links]]
    name = "partition"
    transforms = { slow = { name = "sgd", learning_rate = 1 }, fast = { name = "adam", learning_rate = 0.1 } }
    param_labels = { "**/w" = "slow", "**" = "fast" }
    """
    groups = {"slow": optim.sgd(1.0), "fast": optim.adam(0.1)}
    assert from_config(tomllib.loads(text)) == optim.chain(
        optim.asam(0.5, unscaled=("**/b", "**/scale")), optim.partition(groups, {"**/w": "slow", "**": "fast"})
    )


def test_a_schedule_that_does_not_say_its_length_lasts_for_the_run():
    config = {"name": "sgd", "learning_rate": {"name": "cosine_decay_schedule", "init_value": 0.1}}
    assert from_config(config, num_steps=7) == optim.sgd(optim.cosine_decay_schedule(0.1, 7))
    config["learning_rate"] |= {"decay_steps": 5}  # pyright: ignore[reportOperatorIssue]
    assert from_config(config, num_steps=7) == optim.sgd(optim.cosine_decay_schedule(0.1, 5))
    falling = {"name": "linear_schedule", "init_value": 1, "end_value": 0}
    sgd = {"name": "sgd", "learning_rate": falling}
    assert from_config({"name": "sam", "rho": falling}, num_steps=7) == optim.sam(optim.linear_schedule(1, 0, 7))
    for holder, length in [
        ({"name": "extragradient", "base": sgd}, 14),
        ({"name": "extragradient", "base": sgd, "moments": "second"}, 7),
        ({"name": "extragradient_plus", "base": sgd}, 14),
        ({"name": "anchored", "base": sgd}, 14),
        ({"name": "past_extragradient", "base": sgd}, 7),
        ({"name": "accumulate", "tx": sgd, "every": 3}, 2),
        ({"name": "accumulate", "tx": {"name": "chain", "links": [sgd]}, "every": 9}, 1),
    ]:
        assert f"linear_schedule(1, 0, {length})" in repr(from_config(holder, num_steps=7)), holder


def test_an_integer_for_a_float_is_one():
    assert from_config(to_config(optim.sam(1))) == optim.sam(1.0)
    assert to_config(optim.sgd(cast(float, np.float32(0.5)))) == {"name": "sgd", "learning_rate": 0.5}


SGD = {"name": "sgd", "learning_rate": 0.1}
STEPS = {"name": "piecewise_constant_schedule", "init_value": 1}
REFUSED: dict[str, tuple[Any, str]] = {
    "no table": (3, "config: expected a table with a name, such as adam, got 3"),
    "no name": ({"rho": 1.0}, "config: expected a table with a name, such as adam, got {'rho': 1.0}"),
    "unknown name": ({"name": "adm"}, "config.name: expected the name of a link or a schedule, got 'adm'. There are "),
    "private name": ({"name": "eval_params"}, "config.name: expected the name of a link or a schedule"),
    "unknown argument": (
        {"name": "adam", "learning_rte": 1},
        "config.learning_rte: expected an argument of adam. There are 'learning_rate', ",
    ),
    "missing argument": ({"name": "adam"}, "config: expected learning_rate, which adam needs, got none"),
    "missing length": (
        {"name": "sgd", "learning_rate": {"name": "cosine_decay_schedule", "init_value": 1}},
        "config.learning_rate: expected decay_steps, which cosine_decay_schedule needs, got none",
    ),
    "text for a number": (
        {"name": "adam", "learning_rate": "fast"},
        "config.learning_rate: expected a number or a schedule, got 'fast'",
    ),
    "truth for a number": (
        {"name": "adam", "learning_rate": True},
        "config.learning_rate: expected a number or a schedule, got True",
    ),
    "a fraction for an integer": (
        {"name": "sam", "rho": 0.1, "every": 1.5},
        "config.every: expected an integer, got 1.5",
    ),
    "another word": (
        {"name": "extragradient", "base": SGD, "moments": "none"},
        "config.moments: expected 'both' or 'second', got 'none'",
    ),
    "a number for a link": ({"name": "extragradient", "base": 0.1}, "config.base: expected a link, got 0.1"),
    "a link for a number": (
        {"name": "sgd", "learning_rate": SGD},
        "config.learning_rate: expected a number or a schedule, got sgd(0.1)",
    ),
    "no list": ({"name": "chain", "links": 3}, "config.links: expected a list, got 3"),
    "no names": ({"name": "chain", "named_links": [SGD]}, "config.named_links: expected a table, got ["),
    "a schedule for the whole": (
        {"name": "constant_schedule", "value": 0.1},
        "config: expected a link such as adam, got the schedule constant_schedule",
    ),
    "out of range": (
        {"name": "chain", "links": [SGD, {"name": "sam", "rho": -1.0}]},
        "config.links[1]: sam: expected rho of at least 0, got -1.0",
    ),
    "out of range, by name": (
        {"name": "chain", "named_links": {"look": {"name": "sam", "rho": -1.0}}},
        "config.named_links.look: sam: expected rho of at least 0, got -1.0",
    ),
    "a name that is no integer": (
        {"name": "sgd", "learning_rate": STEPS | {"boundaries_and_scales": {"x": 1}}},
        "config.learning_rate.boundaries_and_scales.x: expected an integer for a name",
    ),
    "none": (
        {"name": "sam", "rho": None},
        "config.rho: expected text, a number, true or false, a list or a table, got None",
    ),
}


@pytest.mark.parametrize(("config", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_chain_is_refused_by_its_path(config: Any, message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        from_config(config)


def test_the_path_begins_as_the_caller_says():
    with pytest.raises(ValueError, match=r"^optim\.links\[0\]\.name: "):
        from_config({"name": "chain", "links": [{"name": "adm"}]}, where="optim")


@pytest.mark.parametrize(
    ("tx", "place"),
    [
        (optim.chain(optim.sgd(0.1), optax.sgd(0.1)), "chain.links[1]"),
        (optim.noisy_sgd(0.1, key=jax.random.key(3)), "noisy_sgd.key"),
        (optim.sgd(jnp.float32(0.1)), "sgd.learning_rate"),  # pyright: ignore[reportArgumentType]
        (optim.sgd(lambda step: 0.1), "sgd.learning_rate"),
        (optim.partition({0: optim.sgd(0.1)}, {"**": 0}), "partition.transforms"),
        (optim.adamw(0.1, mask=matrices), "adamw.mask"),
        (optim.adafactor(0.1, clipping_threshold=None), "adafactor.clipping_threshold"),
    ],
    ids=shown,
)
def test_what_cannot_be_said_is_refused_by_its_place(tx: Any, place: str):
    with pytest.raises(TypeError, match=f"^to_config: {re.escape(place)}: expected text, a number, .* keys integers"):
        to_config(tx)


def test_a_link_that_knows_no_call_is_refused():
    with pytest.raises(TypeError, match=r"^to_config: expected a link that is the call that made it, such as"):
        to_config(optax.sgd(0.1))


def test_numbers_may_be_arrays_of_a_compiled_program():
    params, grads = {"w": jnp.ones(3)}, {"w": jnp.arange(3.0)}

    def updates(rate: Any, rho: Any) -> Any:
        links = [{"name": "clip_by_global_norm", "max_norm": rho}, {"name": "sgd", "learning_rate": rate}]
        tx = from_config({"name": "chain", "links": links})
        return tx.update(grads, tx.init(params), params)[0]

    found = jax.jit(jax.vmap(updates))(jnp.array([0.1, 0.2]), jnp.array([1.0, 0.5]))
    for place, (rate, rho) in enumerate([(0.1, 1.0), (0.2, 0.5)]):
        np.testing.assert_allclose(found["w"][place], updates(rate, rho)["w"], rtol=1e-6)


def test_a_count_is_no_array():
    with pytest.raises(ValueError, match=r"^config\.every: expected an integer, got Array\(2, dtype=int32, weak_type"):
        from_config({"name": "accumulate", "tx": {"name": "sgd", "learning_rate": 0.1}, "every": jnp.asarray(2)})
