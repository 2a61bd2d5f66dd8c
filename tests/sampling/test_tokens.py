"""Draws of tokens: frequencies are the probabilities; what the k likeliest, a part p and guidance leave."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdiff.metrics.speed import compilations
from jaxdiff.sampling import tokens

LOGITS = np.log([0.4, 0.05, 0.3, 0.15, 0.1])
RUN = jax.jit(
    lambda seed, numbers: tokens.draw(
        jax.random.split(jax.random.key(seed), 4000), jnp.tile(LOGITS.astype(np.float32), (4000, 1)), numbers
    )
)


def frequencies(seed, **fields):
    numbers = {"temperature": 1.0, "top_k": 5, "top_p": 1.0, "guidance": 1.0, **fields}
    numbers = {name: np.int32(x) if name == "top_k" else np.float32(x) for name, x in numbers.items()}
    return np.bincount(np.asarray(RUN(seed, tokens.Numbers(**numbers))), minlength=5)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [0.4, 0.05, 0.3, 0.15, 0.1]),
        ({"temperature": 0.5}, np.array([0.16, 0.0025, 0.09, 0.0225, 0.01]) / 0.285),
        ({"top_k": 2}, [4 / 7, 0, 3 / 7, 0, 0]),
        ({"top_p": 0.75}, [0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85, 0]),
        ({"top_p": 0.39}, [1, 0, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.5}, [4 / 7, 0, 3 / 7, 0, 0]),  # of 0.85, the first holds 0.47
        ({"top_k": 99}, [0.4, 0.05, 0.3, 0.15, 0.1]),
    ],
)
def test_frequencies_are_the_probabilities_of_what_stays(fields, expected):
    found, expected = frequencies(len(str(fields)), **fields), np.asarray(expected)
    stays = expected > 0
    assert not found[~stays].any()
    assert stays.sum() == 1 or stats.chisquare(found[stays], 4000 * expected[stays] / expected.sum()).pvalue > 1e-4


def test_another_temperature_is_a_number_of_the_same_program():
    frequencies(0)
    with compilations() as again:
        frequencies(1, temperature=0.3, top_k=1, top_p=0.2)
    assert again.count == 0


def test_guidance_goes_on_beyond_the_condition():
    both = jnp.array([[1.0, 2.0], [3.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(tokens.guided(both, jnp.float32(3)), [[3, 4], [7, 1]])
    np.testing.assert_allclose(tokens.guided(both, jnp.float32(1)), both[:2])
