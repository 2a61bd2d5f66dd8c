"""The variational bound, term by term, and the losses that train it: learned variances, importance-sampled times.

For a chain of T steps at times t_1 < ... < t_T (t_i = i / T here), the negative log-likelihood of x0 is at most

    L = L_prior + sum_{i > 1} L_i + L_0
    L_prior = KL(q(x_T | x0) || N(0, s_T^2 I)),  s_T^2 = alpha_T^2 sigma_data^2 + sigma_T^2 or 1
    L_i     = E_q KL(q(x_{i-1} | x_i, x0) || p(x_{i-1} | x_i)),     L_0 = E_q -log p(x0 | x_1)

(DDPM, arXiv 2006.11239, equation 5). Both posteriors are Gaussians with the means of `sampling.solvers.ddim` at x0 and
at its estimate D. If p has the posterior's own variance ("small"), then L_i needs the log-SNR alone (VDM, arXiv
2107.00630, equation 13):

    L_i = 1/2 E expm1(lambda_{i-1} - lambda_i) SNR_i |x0 - D|^2 = 1/2 (SNR_{i-1} - SNR_i) E |x0 - D|^2

which in the limit of many steps is the integral -1/2 int SNR'(t) E |x0 - D|^2 dt: each continuous-time estimate draws
one t per example. `antithetic` spreads the t of a batch evenly, which takes most of the variance away.

With a learned variance the network says v in [-1, 1] for each number, and log var = (v + 1)/2 log beta + (1 - v)/2 log
var_small (improved DDPM, arXiv 2102.09672, equation 15). `hybrid` adds the bound, through which only the variance
learns, to the simple loss (equation 16).

Pictures are integers scaled to [-1, 1] in `bins` levels; L_0 integrates the density over each level's bin, the
outermost to infinity. Continuous data (`bins` None) have L_0 = -log N(x0; D-mean, var), a density. Everything is
returned for each example in bits per dimension.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdiff.diffusion import loss, prediction
from jaxdiff.diffusion.prediction import over_pixels
from jaxdiff.diffusion.schedule import Schedule
from jaxdiff.typing import Cond, Denoise, Estimate, Key, LearnedDenoise, Network, Params

BITS = 1 / jnp.log(2.0)


class Posterior(NamedTuple):
    """q(x_s | x_t, x0) = N(from_x x_t + from_x0 x0, exp(log_small)); log_large is the variance of q(x_t | x_s)."""

    from_x: Array
    from_x0: Array
    log_small: Array
    log_large: Array


def posterior(schedule: Schedule, t: Float[Array, " b"], s: Float[Array, " b"]) -> Posterior:
    """The posterior from time t to a lower time s > 0."""
    fresh = -jnp.expm1(schedule.log_snr(t) - schedule.log_snr(s))
    alpha, below = schedule.alpha(t), schedule.alpha(s)
    from_x = alpha * schedule.sigma(s) ** 2 / (below * schedule.sigma(t) ** 2)
    log_large = jnp.log(fresh) + 2 * jnp.log(schedule.sigma(t))
    return Posterior(from_x, below * fresh, jnp.log(fresh) + 2 * jnp.log(schedule.sigma(s)), log_large)


def gaussian_kl(mean: Array, log_var: Array, other: Array, other_log_var: Array) -> Array:
    """KL(N(mean, var) || N(other, other_var)) of each number, in nats."""
    ratio = log_var - other_log_var
    return 0.5 * (jnp.exp(ratio) - ratio - 1 + (mean - other) ** 2 * jnp.exp(-other_log_var))


def bin_log_prob(x0: Array, mean: Array, log_var: Array, bins: int) -> Array:
    """The log mass of N(mean, var) on the bin of each number of x0; the outermost bins are open.

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


def prior(schedule: Schedule, x0: Float[Array, " b *s"], std: float = 1.0) -> Float[Array, " b"]:
    """L_prior in bits/dim: from q(x_1 | x0) to N(0, std^2 I)."""
    t = jnp.ones((), jnp.float32)
    mean, log_var = schedule.alpha(t) * x0, 2 * jnp.log(schedule.sigma(t))
    return BITS * loss.per_example(gaussian_kl(mean, log_var, jnp.zeros(()), 2 * jnp.log(jnp.float32(std))))


def reconstruction(
    denoise: Denoise, schedule: Schedule, x0: Float[Array, " b *s"], keys: Key, steps: int, bins: int | None = 256
) -> Float[Array, " b"]:
    """L_0 in bits/dim, from the first of `steps` times; its variance is that of x0 given x_1, sigma^2 / alpha^2."""
    t = jnp.full(x0.shape[:1], 1 / steps, jnp.float32)
    alpha, sigma = over_pixels(schedule.alpha(t), x0), over_pixels(schedule.sigma(t), x0)
    D = denoise(alpha * x0 + sigma * loss.noise_like(keys, x0), t, {})
    log_var = 2 * jnp.log(sigma / alpha)
    if bins is None:
        density = -0.5 * ((x0 - D) ** 2 * jnp.exp(-log_var) + log_var + jnp.log(2 * jnp.pi))
        return -BITS * loss.per_example(density)
    return -BITS * loss.per_example(bin_log_prob(x0, D, log_var, bins))


def diffusion(
    denoise: Denoise, schedule: Schedule, x0: Float[Array, " b *s"], keys: Key, i: Float[Array, " b"], steps: int
) -> Float[Array, " b"]:
    """L_i in bits/dim of the step from i / steps down to (i - 1) / steps, with the posterior's variance."""
    t, s = i / steps, (i - 1) / steps
    lam = schedule.log_snr(t)
    error = _error(denoise, schedule, x0, keys, t)
    return BITS * 0.5 * jnp.exp(lam) * jnp.expm1(schedule.log_snr(s) - lam) * error


def _error(denoise: Denoise, schedule: Schedule, x0: Array, keys: Key, t: Array) -> Array:
    """|x0 - D(x_t)|^2 per number."""
    x_t = over_pixels(schedule.alpha(t), x0) * x0 + over_pixels(schedule.sigma(t), x0) * loss.noise_like(keys, x0)
    return loss.per_example((x0 - denoise(x_t, t, {})) ** 2)


class Bound(NamedTuple):
    """The terms of the bound for each example, in bits/dim, and their sum."""

    prior: Float[Array, " b"]
    diffusion: Float[Array, " b"]
    reconstruction: Float[Array, " b"]

    @property
    def total(self) -> Float[Array, " b"]:
        return self.prior + self.diffusion + self.reconstruction


def discrete(
    denoise: Denoise,
    schedule: Schedule,
    x0: Float[Array, " b *s"],
    keys: Key,
    steps: int = 1000,
    bins: int | None = 256,
) -> Bound:
    """The whole bound of a chain of `steps`, every term evaluated: `steps` network calls, one scan."""

    def add(total: Array, i: Array) -> tuple[Array, None]:
        each = jnp.full(x0.shape[:1], i, jnp.float32)
        term = diffusion(denoise, schedule, x0, loss.fold(keys, i), each, steps)
        return total + term, None

    total, _ = jax.lax.scan(add, jnp.zeros(x0.shape[0]), jnp.arange(2, steps + 1))
    first = reconstruction(denoise, schedule, x0, loss.fold(keys, 0), steps, bins)
    return Bound(prior(schedule, x0), total, first)


def antithetic(keys: Key) -> Float[Array, " b"]:
    """Times in [0, 1) for a batch: one draw shifted by i / b, each uniform and all even together.

    Source: Kingma et al. 2021, arXiv 2107.00630, appendix I.1.
    """
    b = keys.shape[0]
    return (jax.random.uniform(keys[0]) + jnp.arange(b) / b) % 1


def continuous(
    denoise: Denoise,
    schedule: Schedule,
    x0: Float[Array, " b *s"],
    keys: Key,
    steps: int = 1000,
    bins: int | None = 256,
) -> Bound:
    """An unbiased estimate of the bound in the limit of infinitely many steps above 1 / steps: two network calls.

    Time is drawn uniformly in log-SNR between its ends, where the integrand -1/2 SNR' E|x0 - D|^2 varies least.
    """
    ends = schedule.log_snr(jnp.array([1 / steps, 1.0], jnp.float32))
    lam = ends[0] + antithetic(loss.fold(keys, loss.TIME)) * (ends[1] - ends[0])
    error = _error(denoise, schedule, x0, loss.fold(keys, loss.NOISE), schedule.time(lam))
    middle = BITS * 0.5 * (ends[0] - ends[1]) * jnp.exp(lam) * error
    first = reconstruction(denoise, schedule, x0, loss.fold(keys, 0), steps, bins)
    return Bound(prior(schedule, x0), middle, first)


def learned_log_variance(v: Any, log_small: Any, log_large: Any) -> Any:
    """The logarithm of the variance between both ends, at v in [-1, 1]."""
    return (v + 1) / 2 * log_large + (1 - v) / 2 * log_small


def learned_denoiser(network: Network, params: Params, cond: Cond, schedule: Schedule, kind: str) -> LearnedDenoise:
    """The denoiser of a network with a learned variance, for the table `ddpm(..., variance="learned")`.

    The network's last axis holds its prediction and then v; the scale is the standard deviation of this step's noise.
    """
    prediction.check(kind, schedule)

    def denoise(x_t: Array, t: Array, aux: Any) -> Estimate:
        y, v = jnp.split(prediction.evaluate(network, params, x_t, t, cond, schedule, kind), 2, axis=-1)
        x0 = prediction.to_x0(y, x_t, over_pixels(schedule.alpha(t), x_t), over_pixels(schedule.sigma(t), x_t), kind)
        small, large = aux["log_variances"]
        return Estimate(x0, jnp.exp(learned_log_variance(v, small, large) / 2))

    return denoise


def hybrid(
    network: Network, schedule: Schedule, kind: str, steps: int = 1000, weight: float = 1e-3, bins: int = 256
) -> Callable[[Params, Array, Cond, Key, Array, Array], Array]:
    """The loss simple + weight x steps x L_i of a network with a learned variance, at given steps.

    Returns (params, x0 [b ...], cond, keys [b], i [b] in 1 ... steps, importance [b]) -> loss [b]; `importance` is what
    the sampler of i says (`Importance`), ones for uniform steps. The bound's gradient reaches only the variance.

    Source: Nichol & Dhariwal 2021, arXiv 2102.09672, equation 16; its released code for the scale.
    """
    prediction.check(kind, schedule)

    def f(params: Params, x0: Array, cond: Cond, keys: Key, i: Array, importance: Array) -> Array:
        t, s = i / steps, jnp.maximum(i - 1, 1) / steps
        alpha, sigma = over_pixels(schedule.alpha(t), x0), over_pixels(schedule.sigma(t), x0)
        eps = loss.noise_like(loss.fold(keys, loss.NOISE), x0)
        x_t = alpha * x0 + sigma * eps
        y, v = jnp.split(prediction.evaluate(network, params, x_t, t, cond, schedule, kind), 2, axis=-1)
        simple = loss.per_example((y - prediction.target(x0, eps, alpha, sigma, kind)) ** 2)
        D = jax.lax.stop_gradient(prediction.to_x0(y, x_t, alpha, sigma, kind))
        q = posterior(schedule, jnp.maximum(t, 2 / steps), s)
        from_x, from_x0, small, large = (over_pixels(a, x0) for a in q)
        log_var = learned_log_variance(v, small, large)
        kl = gaussian_kl(from_x * x_t + from_x0 * x0, small, from_x * x_t + from_x0 * D, log_var)
        first = -bin_log_prob(x0, D, log_var, bins)
        term = BITS * loss.per_example(jnp.where(over_pixels(i, x0) > 1, kl, first))
        return importance * (simple + weight * steps * term)

    return f


class Importance(NamedTuple):
    """Steps drawn in proportion to sqrt(E L_i^2), from the last losses seen at each; uniform until all are known.

    Attributes:
      history: [steps, kept] the last losses of each step.
      seen: [steps] how many of them are real.

    Source: Nichol & Dhariwal 2021, arXiv 2102.09672, equation 18.
    """

    history: Float[Array, "n k"]
    seen: Float[Array, " n"]

    def probabilities(self) -> Float[Array, " n"]:
        """The probability of each step, with one part in a thousand uniform."""
        n, kept = self.history.shape
        root = jnp.sqrt((self.history**2).mean(axis=1))
        p = 0.999 * root / jnp.maximum(root.sum(), 1e-30) + 0.001 / n
        return jnp.where(jnp.all(self.seen >= kept), p, 1 / n)

    def draw(self, keys: Key) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
        """Steps 1 ... n for keys [b], and the weight 1 / (n p) that keeps the loss unbiased."""
        p = self.probabilities()
        i = jax.vmap(lambda key: jax.random.choice(key, p.shape[0], p=p))(loss.fold(keys, loss.TIME))
        return (i + 1).astype(jnp.float32), 1 / (p.shape[0] * p[i])

    def update(self, i: Float[Array, " b"], losses: Float[Array, " b"]) -> "Importance":
        """Remember these unweighted losses, oldest first out."""

        def one(state: "Importance", pair: tuple[Array, Array]) -> tuple["Importance", None]:
            n, value = pair
            row = jnp.roll(state.history[n], -1).at[-1].set(value)
            return Importance(state.history.at[n].set(row), state.seen.at[n].add(1)), None

        return jax.lax.scan(one, self, (i.astype(jnp.int32) - 1, losses))[0]


def importance(steps: int = 1000, kept: int = 10) -> Importance:
    """The state of importance sampling before any loss is known."""
    return Importance(jnp.zeros((steps, kept)), jnp.zeros(steps))
