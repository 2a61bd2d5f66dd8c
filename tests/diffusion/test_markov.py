"""Markov chains: a published stationary law, and chains whose classes, periods and reverses are known."""

import numpy as np
import pytest

from jaxdiff.diffusion import markov

KNOWN = np.array([[0.05, 0.75, 0.2], [0.8, 0.05, 0.15], [0.25, 0.5, 0.25]])
RING = np.roll(np.eye(4), 1, 1)
WALK = np.array([[0.5, 0.5, 0, 0], [0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5], [0, 0, 0.5, 0.5]])
TRAP = np.array([[0.5, 0.5, 0.0], [0.2, 0.7, 0.1], [0.0, 0.0, 1.0]])
TWO = np.kron(np.eye(2), np.full((2, 2), 0.5))


def test_the_stationary_law_is_the_known_one_and_powers_reach_it():
    pi = markov.stationary(KNOWN)
    np.testing.assert_allclose(pi, [0.39781591, 0.41341654, 0.18876755], atol=5e-9)
    np.testing.assert_allclose(np.linalg.matrix_power(KNOWN, 100), np.tile(pi, (3, 1)), atol=1e-12)


def test_mean_times_of_return_are_inverse_to_it():
    """By the equations of first passage: the time to reach 0 from i is 1 plus that from where it goes."""
    away = KNOWN[1:, 1:]
    times = np.linalg.solve(np.eye(2) - away, np.ones(2))
    assert 1 + KNOWN[0, 1:] @ times == pytest.approx(1 / markov.stationary(KNOWN)[0], rel=1e-12)


@pytest.mark.parametrize(
    ("p", "classes", "closed", "period", "reversible"),
    [
        (KNOWN, [[0, 1, 2]], [True], 1, False),
        (RING, [[0, 1, 2, 3]], [True], 4, False),
        (WALK, [[0, 1, 2, 3]], [True], 1, True),
        (TRAP, [[0, 1], [2]], [False, True], 1, None),
        (TWO, [[0, 1], [2, 3]], [True, True], 1, None),
    ],
)
def test_what_kind_of_chain_it_is(p, classes, closed, period, reversible):
    assert markov.classes(p) == classes
    assert [markov.closed(p, one) for one in classes] == closed
    assert markov.period(p) == period
    if reversible is not None:
        assert (markov.balance(p) < 1e-12) == reversible


def test_backwards_it_leads_to_the_law_before():
    law = np.array([0.7, 0.2, 0.1])
    back = markov.reverse(KNOWN, law)
    np.testing.assert_allclose(law @ KNOWN @ back, law, atol=1e-15)
    np.testing.assert_allclose(back.sum(1), 1, atol=1e-15)
    uniform = markov.reverse(WALK, np.full(4, 0.25))
    np.testing.assert_allclose(uniform, WALK, atol=1e-15)


def test_entropy_is_in_bits():
    np.testing.assert_allclose(markov.entropy(np.array([[0.25] * 4, [1.0, 0, 0, 0]])), [2, 0])


@pytest.mark.parametrize(
    ("p", "message"),
    [
        (np.ones((2, 3)), "as many rows as columns"),
        (np.array([[0.5, 0.5], [0.5, 0.6]]), "row 1 sums to 1.1"),
        (np.array([[1.5, -0.5], [0.5, 0.5]]), "row 0 sums to 1"),
        (TWO, "2 classes that it never leaves"),
    ],
)
def test_what_is_no_chain_with_one_law_is_refused(p, message):
    with pytest.raises(ValueError, match=message):
        markov.stationary(p)
