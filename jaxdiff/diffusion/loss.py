"""Objectives: a weighted squared error of the network's own output, at random times, one number for each example.

**Weights.** Every regression loss of the field is E w(lambda) |x0_hat - x0|^2 for some w of the log-SNR: with
snr = exp(lambda), an eps error is an x0 error times snr, a v error (variance-preserving) one times snr + 1. So a weight
here is a function of lambda in x0 units, and means the same whatever the network predicts:

    name           w(lambda)                             as published
    snr            snr                                   eps error, "simple" of DDPM
    min_snr        min(snr, gamma)                       Hang et al. 2023, arXiv 2303.09556, equation 5
    v              snr + 1                               v error, "SNR+1" of Salimans & Ho 2022, arXiv 2202.00512
    capped_v       min(snr + 1, cap)                     the same, not led by nearly clean pictures
    truncated_snr  max(snr, 1)                           Salimans & Ho 2022, "truncated SNR"
    p2             snr / (k + snr)^gamma                 Choi et al. 2022, arXiv 2204.00227, equation 7
    edm            snr + 1 / sigma_data^2                Karras et al. 2022, arXiv 2206.00364, table 1
    sigmoid        snr sigmoid(bias - lambda)            Kingma & Gao 2023, arXiv 2303.00848, section 6

`simple` (no weight at all) is the plain error of the output, whatever that is. The weight multiplies the error of the
output by w (d x0 / d output)^2, put together in logarithms, so that neither end overflows.

**Times** are functions from one key to one time; a loss maps them over the keys of the batch, so that an example's draw
does not depend on the batch around it.

**Use.** A task writes its own batch and conditioning around `denoising`:

    loss = denoising(network, schedule.cosine(), "x0", capped_v(5.0))
    def loss_fn(params, batch, keys):                                  # jaxdiff.typing.LossFn
        cond = drop(keys, encode(params, batch["tokens"]), null, rate=0.1)      # classifier-free guidance
        per_example = loss(params, batch["image"], cond, keys)
        return per_example.mean(), {"loss": per_example.mean()}

Each function folds its own number into the keys, so the same keys may be given to all of them.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxdiff.diffusion import prediction
from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.typing import Cond, Key, Network, Params

Weight: TypeAlias = Callable[[Array], Array]
"""lambda -> log w(lambda), in x0 units."""

TimeSampler: TypeAlias = Callable[[Key], Array]
"""One key -> one time in [0, 1]."""

NoiseSampler: TypeAlias = Callable[[Key, Array], Array]
"""(keys [b], x0 [b ...]) -> eps [b ...]."""

TIME, NOISE, DROP = 1, 2, 3
"""What the functions here fold into an example's key: two uses never share a draw."""


def snr() -> Weight:
    """Weight snr: the plain error of eps."""
    return lambda lam: lam


def min_snr(gamma: float = 5.0) -> Weight:
    """Weight min(snr, gamma)."""
    return lambda lam: jnp.minimum(lam, jnp.log(gamma))


def v() -> Weight:
    """Weight snr + 1: the plain error of v on a variance-preserving schedule."""
    return lambda lam: jax.nn.softplus(lam)


def capped_v(cap: float = 5.0) -> Weight:
    """Weight min(snr + 1, cap)."""
    return lambda lam: jnp.minimum(jax.nn.softplus(lam), jnp.log(cap))


def truncated_snr() -> Weight:
    """Weight max(snr, 1)."""
    return lambda lam: jnp.maximum(lam, 0)


def p2(gamma: float = 1.0, k: float = 1.0) -> Weight:
    """Weight snr / (k + snr)^gamma."""
    return lambda lam: lam - gamma * jnp.logaddexp(jnp.log(k), lam)


def edm(sigma_data: float = 0.5) -> Weight:
    """Weight snr + 1 / sigma_data^2."""
    return lambda lam: jnp.logaddexp(lam, -2 * jnp.log(sigma_data))


def sigmoid(bias: float = 0.0) -> Weight:
    """Weight snr / (1 + exp(lambda - bias)): the eps error, of noisier pictures only for a smaller bias."""
    return lambda lam: lam + jax.nn.log_sigmoid(bias - lam)


def uniform(low: float = 1e-3, high: float = 1.0) -> TimeSampler:
    """Uniform in [low, high]; the default of 1e-3 is the first of 1000 trained steps."""
    return lambda key: jax.random.uniform(key, minval=low, maxval=high)


def uniform_steps(steps: int = 1000) -> TimeSampler:
    """Uniform over the trained steps, t = (i + 1) / steps."""
    return lambda key: jax.random.randint(key, (), 1, steps + 1) / steps


def log_normal(schedule: Schedule, mean: float = -1.2, std: float = 1.2) -> TimeSampler:
    """log(sigma / alpha) ~ N(mean, std^2). Source: Karras et al. 2022, arXiv 2206.00364, table 1."""
    return lambda key: jnp.clip(schedule.time(-2 * (mean + std * jax.random.normal(key))), 0, 1)


def logit_normal(mean: float = 0.0, std: float = 1.0) -> TimeSampler:
    """logit(t) ~ N(mean, std^2), for flows. Source: Esser et al. 2024, arXiv 2403.03206, equation 19."""
    return lambda key: jax.nn.sigmoid(mean + std * jax.random.normal(key))


def mode(scale: float = 1.29) -> TimeSampler:
    """Heavy in the middle: t = 1 - u - scale (cos^2(pi u / 2) - 1 + u), u uniform.

    Source: Esser et al. 2024, arXiv 2403.03206, equation 20.
    """

    def sample(key: Key) -> Array:
        u = jax.random.uniform(key)
        return 1 - u - scale * (jnp.cos(jnp.pi / 2 * u) ** 2 - 1 + u)

    return sample


def fold(keys: Key, number: int | Array) -> Key:
    """`number` folded into every key of keys [b]."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def noise_like(keys: Key, x: Float[Array, " b *s"]) -> Float[Array, " b *s"]:
    """Unit Gaussian noise, example i from key i."""
    return jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], jnp.float32))(keys)


def per_example(x: Float[Array, " b *s"]) -> Float[Array, " b"]:
    """The mean over everything but the batch."""
    return x.reshape(x.shape[0], -1).mean(axis=1)


def weighted_mse(
    output: Float[Array, " b *s"],
    x0: Float[Array, " b *s"],
    eps: Float[Array, " b *s"],
    t: Float[Array, " b"],
    schedule: Schedule,
    kind: str,
    weight: Weight | None = None,
) -> Float[Array, " b"]:
    """w(lambda) |x0_hat - x0|^2 / size for each example, from the output's own error; without a weight that error."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    goal = prediction.target(x0, eps, prediction.over_pixels(alpha, x0), prediction.over_pixels(sigma, x0), kind)
    error = per_example((output - goal) ** 2)
    if weight is None:
        return error
    return error * jnp.exp(weight(schedule.log_snr(t)) + 2 * jnp.log(prediction.slope(alpha, sigma, kind)))


def denoising(
    network: Network,
    schedule: Schedule,
    kind: str,
    weight: Weight | None = None,
    times: TimeSampler | None = None,
    noise: NoiseSampler | None = None,
) -> Callable[[Params, Array, Cond, Key], Array]:
    """(params, x0 [b ...], cond, keys [b]) -> loss [b]: the denoising objective of nearly every diffusion model.

    Args:
      network: what is trained.
      schedule: the process.
      kind: what the network outputs (`prediction.KINDS`).
      weight: in x0 units; None for the plain error of the output.
      times: where to train; by default uniform over [1e-3, 1].
      noise: (keys, x0) -> eps, to couple noise with pictures (`coupling`); by default independent.

    Raises:
      ValueError: if the kind is unknown or divides by an alpha that is 0 at t = 1.
    """
    prediction.check(kind, schedule)
    times = times or uniform()

    def loss(params: Params, x0: Array, cond: Cond, keys: Key) -> Array:
        t = jax.vmap(times)(fold(keys, TIME))
        eps = noise(keys, x0) if noise else noise_like(fold(keys, NOISE), x0)
        x_t = prediction.over_pixels(schedule.alpha(t), x0) * x0 + prediction.over_pixels(schedule.sigma(t), x0) * eps
        output = prediction.evaluate(network, params, x_t, t, cond, schedule, kind)
        return weighted_mse(output, x0, eps, t, schedule, kind, weight)

    return loss


def score_matching(network: Network, schedule: Schedule) -> Callable[[Params, Array, Cond, Key], Array]:
    """Denoising score matching over all noise levels, each weighted by sigma^2: |sigma score + eps|^2.

    Source: Song & Ermon 2019, arXiv 1907.05600, equations 5 and 6, without their factor 1/2.
    """
    return denoising(network, schedule, "score", snr())


def flow_matching(
    network: Network, schedule: Schedule, times: TimeSampler | None = None
) -> Callable[[Params, Array, Cond, Key], Array]:
    """The plain error of the velocity eps - x0, by default at logit-normal times, on a rectified flow.

    Source: Lipman et al. 2023, arXiv 2210.02747, equation 23; Esser et al. 2024, arXiv 2403.03206, section 3.1.
    """
    return denoising(network, schedule, "flow", None, times or logit_normal())


def dropped(keys: Key, rate: float) -> Bool[Array, " b"]:
    """Which examples lose their condition, each with probability `rate`."""
    return jax.vmap(lambda key: jax.random.bernoulli(key, rate))(fold(keys, DROP))


def drop(keys: Key, cond: Cond, null: Cond, rate: float = 0.1) -> Cond:
    """`cond` with each example replaced by `null`'s with probability `rate`, as classifier-free guidance wants.

    `null` has the same fields, with a leading axis of b or 1.

    Source: Ho & Salimans 2022, arXiv 2207.12598, algorithm 1.
    """
    gone = dropped(keys, rate)

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(gone.reshape(gone.shape + (1,) * (a.ndim - 1)), jnp.broadcast_to(b, a.shape), a)

    return jax.tree.map(pick, cond, null)
