"""Markov chains on finitely many states, by their transition matrices P [s s], P[i, j] from i to j, in float64.

A law q moves to q P. A law with pi P = pi is stationary; where every state is reached from every other (irreducible)
there is one, and the mean time of return to i is 1 / pi_i; where the times of return have no common divisor too
(aperiodic), q P^n goes to it from any q, as fast as the second largest eigenvalue's powers. Backwards in time a
stationary chain is one again, with pi_j P[j, i] / pi_i from i to j; if that is P itself, the chain is reversible (in
detailed balance).

Source: Norris 1997, Markov Chains, sections 1.2, 1.5, 1.7 to 1.9.
"""

import math

import numpy as np
from jaxtyping import Bool, Float


def check(p: Float[np.ndarray, "s t"]) -> None:
    """Refuses what is no transition matrix.

    Raises:
      ValueError: if it is not square, has negative entries, or rows that do not sum to 1; names the row.
    """
    if p.ndim != 2 or p.shape[0] != p.shape[1]:
        raise ValueError(f"a transition matrix has as many rows as columns, and this is {p.shape}")
    wrong = np.flatnonzero((p < 0).any(1) | (np.abs(p.sum(1) - 1) > 1e-9))
    if wrong.size:
        raise ValueError(f"row {wrong[0]} sums to {p[wrong[0]].sum():.6g}: expected 1, with no entry below 0")


def stationary(p: Float[np.ndarray, "s t"]) -> Float[np.ndarray, " s"]:
    """Returns the law that stays as it is.

    Raises:
      ValueError: if there are several, since not every state is reached from all that return.
    """
    check(p)
    if (count := len([one for one in classes(p) if closed(p, one)])) > 1:
        raise ValueError(f"the chain has {count} classes that it never leaves, and a stationary law for each")
    equations = np.vstack([p.T - np.eye(len(p)), np.ones(len(p))])
    return np.linalg.lstsq(equations, np.append(np.zeros(len(p)), 1.0), rcond=None)[0]


def reach(p: Float[np.ndarray, "s s"]) -> Bool[np.ndarray, "s s"]:
    """Returns whether j is reached from i, in any number of steps from 0 on."""
    seen = (p > 0) | np.eye(len(p), dtype=bool)
    for _ in range(len(p)):
        seen = seen @ seen
    return seen


def classes(p: Float[np.ndarray, "s s"]) -> list[list[int]]:
    """Returns the classes of states that reach each other; an irreducible chain has one."""
    there = reach(p)
    both = there & there.T
    return [np.flatnonzero(both[i]).tolist() for i in range(len(p)) if both[i].argmax() == i]


def closed(p: Float[np.ndarray, "s s"], states: list[int]) -> bool:
    """Returns whether a class is never left: then its states are recurrent, else transient."""
    return bool(np.isclose(p[np.ix_(states, states)].sum(1), 1).all())


def period(p: Float[np.ndarray, "s s"], state: int = 0) -> int:
    """Returns the greatest common divisor of the times in which a state can return; 0 if it cannot."""
    found, power = 0, np.eye(len(p), dtype=bool)
    for n in range(1, 2 * len(p) + 1):
        power = power @ (p > 0)
        found = math.gcd(found, n) if power[state, state] else found
    return found


def reverse(p: Float[np.ndarray, "s s"], law: Float[np.ndarray, " s"]) -> Float[np.ndarray, "s s"]:
    """Returns the matrix that leads back from the law q P to q, law[i] P[i, j] / (q P)[j] from j to i (Bayes' rule)."""
    joint = (law[:, None] * p).T
    total = joint.sum(1, keepdims=True)
    return np.divide(joint, total, out=np.zeros_like(joint), where=total > 0)


def balance(p: Float[np.ndarray, "s s"]) -> float:
    """Returns the largest |pi_i P[i, j] - pi_j P[j, i]|, which is 0 for a reversible chain."""
    flow = stationary(p)[:, None] * p
    return float(np.abs(flow - flow.T).max())


def entropy(law: Float[np.ndarray, "*b s"]) -> Float[np.ndarray, "*b"]:
    """Returns -sum q log2 q in bits."""
    return -(law * np.log2(np.where(law > 0, law, 1.0))).sum(-1)
