"""The variational bound, term by term.

For a chain of T steps at times t_1 < ... < t_T (t_i = i / T here), the negative log-likelihood of x0 is at most

    L = L_prior + sum_{i > 1} L_i + L_0
    L_prior = KL(q(x_T | x0) || N(0, s_T^2 I)),  s_T^2 = alpha_T^2 + sigma_T^2
    L_i     = E_q KL(q(x_{i-1} | x_i, x0) || p(x_{i-1} | x_i)),     L_0 = E_q -log p(x0 | x_1)

(DDPM, arXiv 2006.11239, equation 5). Both posteriors are Gaussians with the means of `sampling.solvers.ddim` at x0 and
at its estimate D. If p has the posterior's own variance ("small"), then L_i needs the log-SNR alone (VDM, arXiv
2107.00630, equation 13):

    L_i = 1/2 E expm1(lambda_{i-1} - lambda_i) SNR_i |x0 - D|^2 = 1/2 (SNR_{i-1} - SNR_i) E |x0 - D|^2

which in the limit of many steps is the integral -1/2 int SNR'(t) E |x0 - D|^2 dt: each continuous-time estimate draws
one t per example. `antithetic` spreads the t of a batch evenly, which takes most of the variance away.

Pictures are integers scaled to [-1, 1] in `bins` levels; L_0 integrates the density over each level's bin, the
outermost to infinity. Continuous data (`bins` None) have L_0 = -log N(x0; D-mean, var), a density. Everything is
returned for each example in bits per dimension.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.diffusion import draws, loss
from jaxdiff.diffusion.prediction import over_pixels
from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.typing import Denoise, Estimate, Key, LearnedDenoise

BITS = 1 / math.log(2)


class Posterior(NamedTuple):
    """q(x_s | x_t, x0) = N(from_x x_t + from_x0 x0, exp(log_small)); log_large is the variance of q(x_t | x_s)."""

    from_x: Array
    from_x0: Array
    log_small: Array
    log_large: Array


def posterior(schedule: Schedule, t: Float[Array, " b"], s: Float[Array, " b"]) -> Posterior:
    """Returns the posterior from time t to a lower time s > 0."""
    fresh = -jnp.expm1(schedule.log_snr(t) - schedule.log_snr(s))
    alpha, below = schedule.alpha(t), schedule.alpha(s)
    from_x = alpha * schedule.sigma(s) ** 2 / (below * schedule.sigma(t) ** 2)
    log_large = jnp.log(fresh) + 2 * jnp.log(schedule.sigma(t))
    return Posterior(from_x, below * fresh, jnp.log(fresh) + 2 * jnp.log(schedule.sigma(s)), log_large)


def step(schedule: Schedule, i: Float[Array, " b"], steps: Any) -> Posterior:
    """Returns the posterior of step i of a chain; that of the first has no variance, and is the second's.

    Source: Nichol & Dhariwal 2021, arXiv 2102.09672, released code.
    """
    return posterior(schedule, jnp.maximum(i, 2) / steps, jnp.maximum(i - 1, 1) / steps)


def gaussian_kl(mean: Array, log_var: Array, other: Array, other_log_var: Array) -> Array:
    """Returns KL(N(mean, var) || N(other, other_var)) of each number, in nats."""
    ratio = log_var - other_log_var
    return 0.5 * (jnp.exp(ratio) - ratio - 1 + (mean - other) ** 2 * jnp.exp(-other_log_var))


def bin_log_prob(x0: Array, mean: Array, log_var: Array, bins: int) -> Array:
    """Returns the log mass of N(mean, var) on the bin of each number of x0; the outermost bins are open.

    Source: Ho et al. 2020, arXiv 2006.11239, equation 13.
    """
    half, scale = 1 / (bins - 1), jnp.exp(-log_var / 2)
    upper = jax.scipy.special.log_ndtr((x0 - mean + half) * scale)
    lower = jax.scipy.special.log_ndtr((x0 - mean - half) * scale)
    above = jax.scipy.special.log_ndtr(-(x0 - mean - half) * scale)
    # the mass between two points, taken in whichever tail is smaller; far out both round to the same number
    flip = x0 > mean
    big = jnp.where(flip, above, upper)
    small = jnp.where(flip, jax.scipy.special.log_ndtr(-(x0 - mean + half) * scale), lower)
    inside = big + jnp.log1p(-jnp.exp(jnp.minimum(small - big, -1e-6)))
    return jnp.where(x0 < -1 + half, upper, jnp.where(x0 > 1 - half, above, inside))


def normal_log_prob(x0: Array, mean: Array, log_var: Array) -> Array:
    """Returns the log density of N(mean, var) at each number."""
    return -0.5 * ((x0 - mean) ** 2 * jnp.exp(-log_var) + log_var + math.log(2 * math.pi))


def prior(schedule: Schedule, x0: Float[Array, " b *s"]) -> Float[Array, " b"]:
    """Returns L_prior in bits/dim: from q(x_1 | x0) to the noise that sampling starts from.

    That noise is N(0, (alpha^2 + sigma^2) I).
    """
    t = jnp.ones((), jnp.float32)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return BITS * loss.per_example(
        gaussian_kl(alpha * x0, 2 * jnp.log(sigma), jnp.zeros(()), jnp.log(alpha**2 + sigma**2))
    )


def reconstruction(
    denoise: Denoise | LearnedDenoise,
    schedule: Schedule,
    x0: Float[Array, " b *s"],
    keys: Key,
    first: float,
    bins: int | None = 256,
) -> Float[Array, " b"]:
    """Returns L_0 in bits/dim, from time `first`.

    Its variance is that of x0 given x_t, sigma^2 / alpha^2; or what a denoiser says that has learned it, for the first
    step of a chain of 1 / first.
    """
    t = jnp.full(x0.shape[:1], first, jnp.float32)
    x_t = loss.noised(x0, draws.noise_like(keys, x0), t, schedule)
    aux = {}
    if first:  # from time 0 on there is no chain, and so no variance of its steps
        q = step(schedule, jnp.ones_like(t), 1 / first)
        aux = {"log_variances": (over_pixels(q.log_small, x0), over_pixels(q.log_large, x0))}
    said = denoise(x_t, t, aux)
    if isinstance(said, Estimate):
        return decoded(x0, said.x0, 2 * jnp.log(said.scale), bins)
    return decoded(x0, said, over_pixels(-schedule.log_snr(t), x0), bins)


def decoded(x0: Float[Array, " b *s"], mean: Array, log_var: Array, bins: int | None) -> Float[Array, " b"]:
    """Returns -log N(x0; mean, var) in bits/dim; with `bins` the mass of each number's bin."""
    log_p = normal_log_prob(x0, mean, log_var) if bins is None else bin_log_prob(x0, mean, log_var, bins)
    return -BITS * loss.per_example(log_p)


def diffusion(
    denoise: Denoise | LearnedDenoise,
    schedule: Schedule,
    x0: Float[Array, " b *s"],
    keys: Key,
    i: Float[Array, " b"],
    steps: int,
) -> Float[Array, " b"]:
    """Returns L_i in bits/dim of the step from i / steps down to (i - 1) / steps.

    The variance is the posterior's own; or what a denoiser says that has learned it, and then the divergence of two
    Gaussians of different variances counts.
    """
    t = i / steps
    x_t = loss.noised(x0, draws.noise_like(keys, x0), t, schedule)
    q = Posterior(*(over_pixels(a, x0) for a in step(schedule, i, steps)))
    said = denoise(x_t, t, {"log_variances": (q.log_small, q.log_large)})
    if isinstance(said, Estimate):
        mean = lambda D: q.from_x * x_t + q.from_x0 * D
        kl = gaussian_kl(mean(x0), q.log_small, mean(said.x0), 2 * jnp.log(said.scale))
        return BITS * loss.per_example(kl)
    above = schedule.log_snr((i - 1) / steps)
    fall = jnp.exp(above) * -jnp.expm1(schedule.log_snr(t) - above)  # of SNR; its last value may be 0
    return BITS * 0.5 * fall * loss.per_example((x0 - said) ** 2)


class Bound(NamedTuple):
    """The terms of the bound for each example, in bits/dim, and their sum."""

    prior: Float[Array, " b"]
    diffusion: Float[Array, " b"]
    reconstruction: Float[Array, " b"]

    @property
    def total(self) -> Float[Array, " b"]:
        return self.prior + self.diffusion + self.reconstruction


def discrete(
    denoise: Denoise | LearnedDenoise,
    schedule: Schedule,
    x0: Float[Array, " b *s"],
    keys: Key,
    steps: int = 1000,
    bins: int | None = 256,
) -> Bound:
    """Returns the whole bound of a chain of `steps`, every term evaluated: `steps` network calls, one scan."""

    def add(total: Array, i: Array) -> tuple[Array, None]:
        each = jnp.full(x0.shape[:1], i, jnp.float32)
        term = diffusion(denoise, schedule, x0, draws.fold(keys, i), each, steps)
        return total + term, None

    total, _ = jax.lax.scan(add, jnp.zeros(x0.shape[0]), jnp.arange(2, steps + 1))
    first = reconstruction(denoise, schedule, x0, draws.fold(keys, draws.FIRST), 1 / steps, bins)
    return Bound(prior(schedule, x0), total, first)


def antithetic(keys: Key) -> Float[Array, " b"]:
    """Returns times in [0, 1) for a batch: one draw shifted by i / b, each uniform and all even together.

    Source: Kingma et al. 2021, arXiv 2107.00630, appendix I.1.
    """
    b = keys.shape[0]
    return (jax.random.uniform(keys[0]) + jnp.arange(b) / b) % 1


def continuous(
    denoise: Denoise,
    schedule: Schedule,
    x0: Float[Array, " b *s"],
    keys: Key,
    first: float | None = None,
    bins: int | None = 256,
) -> Bound:
    """Returns an unbiased estimate of the bound in the limit of infinitely many steps above `first`: two network calls.

    `first` is by default the schedule's least noisy trained time. Time is drawn uniformly in log-SNR between the ends,
    where the integrand -1/2 SNR' E|x0 - D|^2 varies least.
    """
    first = schedule.first if first is None else first
    # below -25 nothing is left of the integral, and some schedules have no end
    ends = jnp.maximum(schedule.log_snr(jnp.array([first, 1.0], jnp.float32)), -25)
    lam = ends[0] + antithetic(draws.fold(keys, draws.TIME)) * (ends[1] - ends[0])
    t = schedule.time(lam)
    x_t = loss.noised(x0, draws.noise_like(draws.fold(keys, draws.NOISE), x0), t, schedule)
    error = loss.per_example((x0 - denoise(x_t, t, {})) ** 2)
    middle = BITS * 0.5 * (ends[0] - ends[1]) * jnp.exp(lam) * error
    last = reconstruction(denoise, schedule, x0, draws.fold(keys, draws.FIRST), first, bins)
    return Bound(prior(schedule, x0), middle, last)
