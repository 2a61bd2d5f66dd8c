"""The codebook of a VQ autoencoder, moved by averages of the vectors that it stands for.

Each code e_k is the mean of the encoder's outputs nearest to it, over a window that forgets:

    N_k <- d N_k + (1 - d) n_k,    e_k <- (d N_k e_k + (1 - d) sum of those outputs) / N_k,

where n_k counts them. A code that few outputs choose is put where some output lies: each example offers some of its
outputs, each to a random code, and a dead code becomes the mean of what it was offered.

All that a step contributes is a mean over the examples, so it is the same on one device, on many, and in parts.

Source: van den Oord et al. 2017, arXiv 1711.00937, appendix A.1; restarts after Dhariwal et al. 2020 (Jukebox), arXiv
2005.00341, section 3.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxdiff.typing import Key

DEAD = 0.05
"""A code chosen less often than this part of the mean over all codes is dead."""


class Codebook(NamedTuple):
    """The vectors of a codebook and how often each is chosen in an example, on average over many steps.

    Attributes:
      codes: the vectors [k w].
      counts: N [k]; that of a code which starts again is set to the mean, so that it has time to be chosen.
      chosen: the same [k], which restarts leave alone: what usage is measured by.
    """

    codes: Array
    counts: Array
    chosen: Array


class Seen(NamedTuple):
    """Holds what a batch tells a codebook, as means over its examples: choices, and offers to dead codes."""

    chosen: Float[Array, " k"]
    total: Float[Array, "k w"]
    offers: Float[Array, " k"]
    offered: Float[Array, "k w"]


def start(codes: Float[Array, "k w"]) -> Codebook:
    """Returns a codebook of these vectors, each counted as one output of an example."""
    return Codebook(codes, jnp.ones(len(codes)), jnp.ones(len(codes)))


def seen(z: Float[Array, "b i j w"], index: Int[Array, "b i j"], keys: Key, size: int) -> Seen:
    """Returns what the outputs z, whose nearest codes are `index`, tell a codebook of `size` codes; keys [b]."""
    b, w = z.shape[0], z.shape[-1]
    vectors = z.reshape(b, -1, w)
    offers = max(1, size // 32)

    def offer(key: Key) -> tuple[Array, Array]:
        to, of = jax.random.split(key)
        return jax.random.randint(to, (offers,), 0, size), jax.random.randint(of, (offers,), 0, vectors.shape[1])

    to, of = jax.vmap(offer)(keys)
    picked = jnp.take_along_axis(vectors, of[..., None], 1)
    mean = lambda slots, rows: jnp.zeros((size, *rows.shape[1:])).at[slots].add(rows) / b
    chosen, to = index.reshape(-1), to.reshape(-1)
    return Seen(
        mean(chosen, jnp.ones(chosen.shape)),
        mean(chosen, vectors.reshape(-1, w)),
        mean(to, jnp.ones(to.shape)),
        mean(to, picked.reshape(-1, w)),
    )


def move(book: Codebook, batch: Seen, decay: float = 0.99, *, follow: bool = True) -> Codebook:
    """Returns the codebook after a batch.

    Args:
      book: before it.
      batch: what it tells.
      decay: d.
      follow: whether codes become the means of what they stand for; without it they stay, unless they start again.
    """
    count = decay * book.counts + (1 - decay) * batch.chosen
    total = decay * book.counts[:, None] * book.codes + (1 - decay) * batch.total
    means = jnp.where(count[:, None] > 0, total / jnp.maximum(count, 1e-12)[:, None], book.codes)
    again = (count < DEAD * count.mean()) & (batch.offers > 0)
    fresh = batch.offered / jnp.maximum(batch.offers, 1e-12)[:, None]
    codes = jnp.where(again[:, None], fresh, means if follow else book.codes)
    chosen = decay * book.chosen + (1 - decay) * batch.chosen
    return Codebook(codes, jnp.where(again, count.mean(), count), chosen)


def usage(chosen: Float[Array, " k"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the part of the codes that are not dead, and the perplexity exp(-sum p log p) of how often each is."""
    p = chosen / jnp.maximum(chosen.sum(), 1e-12)
    entropy = -(p * jnp.log(jnp.maximum(p, 1e-12))).sum()
    return (chosen >= DEAD * chosen.mean()).mean(), jnp.exp(entropy)
