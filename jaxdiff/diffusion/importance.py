"""Importance sampling of trained steps: more often where losses are large, weighted so that nothing else changes.

Step i is drawn with p_i in proportion to sqrt(E L_i^2), which makes the variance of L_i / p_i least (Nichol & Dhariwal
2021, arXiv 2102.09672, equation 18); with uniform draws until every step has been seen `KEPT` times, and one draw in a
thousand uniform afterwards, as in the released code.

The history is moved once a training step by means over the whole batch, so it is the same on any number of devices:
an example's stats are its squared loss and 1 in the row of its step, and the ratio of their means is the mean of the
squares. A step that several examples of a batch drew has one entry for them all.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

KEPT = 10
"""The number of a step's last losses that are kept."""


class Importance(NamedTuple):
    """The losses that are remembered.

    Attributes:
      squares: [steps, kept] the last mean squared losses of each step, the newest last.
      seen: [steps] how many of them are real.
    """

    squares: Float[Array, "n k"]
    seen: Float[Array, " n"]

    def probabilities(self) -> Float[Array, " n"]:
        """Returns the probability of each step."""
        n, kept = self.squares.shape
        root = jnp.sqrt(self.squares.mean(axis=1))
        p = 0.999 * root / jnp.maximum(root.sum(), 1e-30) + 0.001 / n
        return jnp.where(jnp.all(self.seen >= kept), p, 1 / n)

    def draw(self, u: Float[Array, " b"]) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
        """Turns u in (0, 1) into steps 1 ... n, and gives the weight 1 / (n p) that keeps the mean loss unbiased."""
        p = self.probabilities()
        i = jnp.minimum(jnp.searchsorted(jnp.cumsum(p), u), p.shape[0] - 1)
        return (i + 1).astype(jnp.float32), 1 / (p.shape[0] * p[i])

    def stats(self, i: Float[Array, " b"], losses: Float[Array, " b"]) -> dict[str, Float[Array, " n"]]:
        """Returns means over the examples of what `absorb` needs, from unweighted losses at steps i."""
        own = jax.nn.one_hot(i.astype(jnp.int32) - 1, self.seen.shape[0], dtype=jnp.float32)
        return {"share": own.mean(axis=0), "square": (own * losses[:, None] ** 2).mean(axis=0)}

    def absorb(self, stats: dict[str, Float[Array, " n"]]) -> "Importance":
        """Remembers the losses of one training step, oldest first out."""
        drawn = stats["share"] > 0
        entry = stats["square"] / jnp.where(drawn, stats["share"], 1)
        after = jnp.concatenate([self.squares[:, 1:], entry[:, None]], axis=1)
        return Importance(jnp.where(drawn[:, None], after, self.squares), self.seen + drawn.astype(jnp.float32))


def importance(steps: int = 1000, kept: int = KEPT) -> Importance:
    """Returns the state before any loss is known."""
    return Importance(jnp.zeros((steps, kept)), jnp.zeros(steps))
