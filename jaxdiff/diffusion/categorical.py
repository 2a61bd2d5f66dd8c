"""Diffusion of levels 0 .. K - 1: chains that jump between them, their posterior, and the bound term by term.

With row vectors of probabilities and Q_t the transition matrix of step t (Q_t[i, j] from i to j),

    q(x_t | x_0) = row x_0 of Qbar_t = Q_1 .. Q_t
    q(x_{t-1} = j | x_t, x_0) = Q_t[j, x_t] Qbar_{t-1}[x_0, j] / Qbar_t[x_0, x_t]

A network says p~(x_0 | x_t), and the reverse step is that of the joint it makes (equation 4):

    p(x_{t-1} = j | x_t) ~ Q_t[j, x_t] sum_i p~(i | x_t) Qbar_{t-1}[i, j].

Three chains: uniform (a level becomes any, with probability beta_t), absorbing (it becomes a mask, the state K),
gaussian (near levels are likelier, equation of appendix A.2.3). All are doubly stochastic or end in the mask, so that
x_T is uniform or all mask. The bound is

    -log p(x_0) <= KL(q(x_T | x_0) | p(x_T)) - log p(x_0 | x_1)
                   + sum over t > 1 of KL(q(x_{t-1} | x_t, x_0) | p(x_{t-1} | x_t)).

Source: Austin et al. 2021 (D3PM), arXiv 2107.03006, sections 3 and 4 and appendix A.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxdiff.typing import Key

Kind = Literal["uniform", "absorbing", "gaussian"]
_TINY = 1e-30


class Chain(NamedTuple):
    """A chain of T steps on S states, of which the first K are levels.

    Attributes:
      levels: K.
      one: Q_1 .. Q_T [T S S].
      all: Qbar_0 .. Qbar_T [T+1 S S], float64 as the other.
      last: p(x_T) [S].
    """

    levels: int
    one: Float[np.ndarray, "t s s"]
    all: Float[np.ndarray, "u s s"]
    last: Float[np.ndarray, " s"]

    @property
    def steps(self) -> int:
        """Returns T."""
        return len(self.one)


def chain(kind: Kind, levels: int, steps: int) -> Chain:
    """Returns the chain of the paper's schedules: cosine (uniform), 1 / (T - t + 1) (absorbing), linear (gaussian)."""
    one = np.stack([matrix(kind, levels, float(beta)) for beta in betas(kind, steps)])
    every = [np.eye(one.shape[1])]
    for step in one:
        every.append(every[-1] @ step)
    last = np.full(one.shape[1], 1 / levels) if kind != "absorbing" else np.eye(levels + 1)[levels]
    return Chain(levels, one, np.stack(every), last)


def betas(kind: Kind, steps: int) -> Float[np.ndarray, " t"]:
    """Returns beta_1 .. beta_T."""
    t = np.arange(steps + 1)
    if kind == "absorbing":
        return 1 / (steps - t[1:] + 1)
    if kind == "gaussian":
        return np.linspace(1e-4, 0.02, steps) * min(1000 / steps, 50)
    kept = np.cos((t / steps + 0.008) / 1.008 * np.pi / 2)
    return 1 - np.clip(kept[1:] / kept[:-1], 1e-3, 1.0)


def matrix(kind: Kind, levels: int, beta: float) -> Float[np.ndarray, "s s"]:
    """Returns the transition matrix of one step; rows sum to 1."""
    if kind == "uniform":
        return (1 - beta) * np.eye(levels) + beta / levels
    if kind == "absorbing":
        states = np.eye(levels + 1)
        return (1 - beta) * states + beta * states[levels]
    at = np.arange(levels)
    weight = lambda n: np.exp(-4.0 * n**2 / (max(levels - 1, 1) ** 2 * beta))
    away = weight(at[:, None] - at[None]) / weight(np.arange(-levels + 1, levels)).sum()
    away[at, at] = 0
    return away + np.diag(1 - away.sum(1))


def noised(of: Chain, x0: Int[Array, " b *s"], t: Int[Array, " b"], keys: Key) -> Int[Array, " b *s"]:
    """Returns x_t, each example at its own t in 0 .. T and drawn from its own key."""
    table = jnp.asarray(np.log(of.all + _TINY), jnp.float32)
    return jax.vmap(lambda key, x, t: jax.random.categorical(key, table[t][x]))(keys, x0, t)


def posterior(of: Chain, x0: Float[Array, " b *s k"], xt: Int[Array, " b *s"], t: Int[Array, " b"]) -> Array:
    """Returns log of q(x_{t-1} | x_t, x_0) [b *s S] for probabilities of x_0, mixed before they are normalised.

    Args:
      of: the chain.
      x0: probabilities of each level.
      xt: states.
      t: steps, 1 .. T.
    """
    back = jnp.asarray(of.one.transpose(0, 2, 1), jnp.float32)  # [t, x_t, j]
    before = jnp.asarray(of.all[:, : of.levels], jnp.float32)  # [t, x_0, j]
    jumps = jax.vmap(lambda t, x: back[t - 1][x])(t, xt)
    mixed = jax.vmap(lambda t, p: p @ before[t - 1])(t, x0)
    joint = jumps * mixed
    return jnp.log(joint + _TINY) - jnp.log(joint.sum(-1, keepdims=True) + _TINY)


def terms(
    of: Chain, logits: Float[Array, " b *s k"], x0: Int[Array, " b *s"], xt: Int[Array, " b *s"], t: Int[Array, " b"]
) -> Float[Array, " b *s"]:
    """Returns each value's term of the bound in nats at t in 1 .. T: a divergence, and at t = 1 -log p(x_0 | x_1)."""
    sure = jax.nn.one_hot(x0, of.levels)
    true, guess = posterior(of, sure, xt, t), posterior(of, jax.nn.softmax(logits), xt, t)
    divergence = (jnp.exp(true) * (true - guess)).sum(-1)
    first = -jnp.take_along_axis(guess, x0[..., None], -1)[..., 0]
    return jnp.where(t.reshape(-1, *[1] * (x0.ndim - 1)) == 1, first, divergence)


def prior_term(of: Chain, x0: Int[Array, " b *s"]) -> Float[Array, " b *s"]:
    """Returns KL(q(x_T | x_0) | p(x_T)) of each value."""
    q = of.all[-1][: of.levels]
    each = np.where(q > 1e-20, q * (np.log(q + 1e-300) - np.log(of.last + 1e-300)), 0.0).sum(1)
    return jnp.asarray(each, jnp.float32)[x0]
