"""The recurrent language model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from renga import nets

from .kit import KEY, integers, values

NET = nets.lstm_lm(5, 8, num_layers=2)
(IDS,) = values(integers(2, 6))
PARAMS = NET.init(KEY, IDS)


def test_it_is_an_embedding_layers_and_a_head():
    x = PARAMS["tokens"]["w"][IDS]
    for params in PARAMS["layers"]:
        x = nets.rnn(nets.lstm_cell(8)).apply(params, x)
    expected = x @ PARAMS["head"]["w"] + PARAMS["head"]["b"]
    np.testing.assert_allclose(NET.apply(PARAMS, IDS), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cuts", [(3,), (1, 2, 5)])
def test_pieces_with_a_cache_give_what_the_whole_gives(cuts: tuple[int, ...]):
    cache, found = 1, []
    for piece in jnp.split(IDS, cuts, axis=-1):
        logits, cache = NET.apply(PARAMS, piece, cache=cache)
        found.append(logits)
    np.testing.assert_allclose(jnp.concatenate(found, 1), NET.apply(PARAMS, IDS), rtol=1e-5, atol=1e-6)


def test_greedy_generation_takes_the_most_likely_token_after_the_whole_text():
    found = jax.jit(lambda params: nets.generate(NET, params, IDS, 4, temperature=0))(PARAMS)
    text = IDS
    for _ in range(4):
        text = jnp.concatenate([text, NET.apply(PARAMS, text)[:, -1:].argmax(-1)], -1)
    np.testing.assert_array_equal(found, text[:, 6:])
