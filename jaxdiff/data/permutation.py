"""A shuffled order of any length without a table: position -> index is a bijection that is computed.

A Feistel network maps pairs of h bits to each other in turns,

    (l, r) -> (r, l xor f_i(r))

which can be undone whatever f_i is, so that it permutes the 4^h numbers of 2 h bits. Of the least such power of 4 that
holds `size` numbers it permutes the first `size` alone where a result beyond them is mapped again until it is one of
them (cycle walking): on average less than 4 times, since 4^h < 4 size.

Source: Black & Rogaway 2002, "Ciphers with Arbitrary Finite Domains", sections 3 and 4. f_i is the finalizer of
SplitMix64 (Steele et al. 2014), a mixer and no cipher: an order has no one to withstand.
"""

import numpy as np
from jaxtyping import Int64

ROUNDS = 6


def permuted(positions: Int64[np.ndarray, " n"], size: int, key: tuple[int, ...]) -> Int64[np.ndarray, " n"]:
    """Returns which of the numbers 0 .. size - 1 stand at some positions of a shuffled order.

    Args:
      positions: each in 0 .. size - 1.
      size: size of the order, at most 2^62.
      key: what the order is drawn from; numbers that are not negative.
    """
    half = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    low = (np.uint64(1) << half) - np.uint64(1)
    keys = np.random.SeedSequence(key).generate_state(ROUNDS, np.uint64)
    found = positions.astype(np.uint64)
    walking = np.arange(len(found))
    while len(walking):
        left, right = found[walking] >> half, found[walking] & low
        for one in keys:
            left, right = right, left ^ (_mixed(right + one) & low)
        found[walking] = left << half | right
        walking = walking[found[walking] >= size]
    return found.astype(np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """Returns 64 bits of which each depends on each of those given."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
