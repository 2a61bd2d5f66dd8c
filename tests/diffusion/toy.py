"""Two-dimensional data, a small network for any process, and its training: what shows that an objective is right."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdiff import sampling
from jaxdiff.diffusion import exact, prediction, schedule
from jaxdiff.diffusion.learned import LogLinear
from jaxdiff.typing import Cond

DATA = exact.mixture(
    np.array([0.6, 0.4]),
    np.array([[0.4, 0.2], [-0.5, -0.3]]),
    np.array([[[0.05, 0.02], [0.02, 0.04]], [[0.02, -0.01], [-0.01, 0.05]]]),
)
WIDTH = 96


def init(key, out):
    shapes = [(12, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH), (WIDTH, out)]
    keys = jax.random.split(key, len(shapes))
    return {
        f"layer{n}": {"w": jax.random.normal(k, s) / np.sqrt(s[0]) * float(n < 3), "b": jnp.zeros(s[1])}
        for n, (k, s) in enumerate(zip(keys, shapes, strict=True))
    }


def level(s, timestep):
    """log(sigma / alpha) of the time that a network is told, by which every schedule looks alike to the network."""
    if isinstance(s, LogLinear | schedule.shifted_cosine().__class__):
        return -timestep / 2
    if isinstance(s, schedule.ve().__class__):
        return jnp.log(timestep)
    if isinstance(s, schedule.edm().__class__):
        return 4 * timestep
    t = (timestep + 1) / s.steps if isinstance(s, schedule.Discrete) else timestep / 999
    if isinstance(s, schedule.flow().__class__):
        t = jnp.clip(timestep / 1000, 1e-6, 1 - 1e-6)
    return -s.log_snr(t) / 2


def scales(s, timestep):
    """alpha and sigma [b] of the time that a network is told."""
    lam = -2 * level(s, timestep)
    if isinstance(s, LogLinear):  # without the bisection of a learned schedule, which has no gradient
        return jnp.sqrt(jax.nn.sigmoid(lam)), jnp.sqrt(jax.nn.sigmoid(-lam))
    t = s.time(lam)
    return s.alpha(t), s.sigma(t)


def network(s, kind):
    """A perceptron of x_t at unit variance and of the noise level; a score is divided by sigma, as NCSN's."""

    def apply(params, x, timestep, cond):
        lev = level(s, timestep)
        alpha, sigma = (a[:, None] for a in scales(s, timestep))
        if kind != "edm":
            x = x / jnp.sqrt(sigma**2 + 0.25 * alpha**2)
        z = jnp.tanh(lev / 4)[:, None]
        h = jnp.concatenate([x, z, *(f(n * np.pi * z) for n in (0.5, 1, 2, 3) for f in (jnp.sin, jnp.cos))], axis=1)
        h = jnp.concatenate([h, jnp.ones_like(z)], axis=1)
        for n in range(4):
            layer = params[f"layer{n}"]
            h = h @ layer["w"] + layer["b"][None]
            h = jax.nn.silu(h) if n < 3 else h
        return h / sigma if kind == "score" else h

    return apply


def perfect(s, kind):
    """The network that knows the exact denoiser."""

    def apply(params, x, timestep, cond):
        alpha, sigma = scales(s, timestep)
        a, b = alpha[:, None], sigma[:, None]
        x_t = x / prediction.precondition.edm(a, b).scale if kind == "edm" else x
        D = DATA.x0(x_t, alpha, sigma)
        return prediction.target(D, prediction.to_eps(D, x_t, a, b), a, b, kind)

    return apply


def known(frozen=(), extra=(), ema=(), step=0):
    return types.SimpleNamespace(frozen=frozen, extra=extra, ema=ema, step=jnp.asarray(step, jnp.int32))


def draw(key, count):
    """`count` points of the data."""
    which, noise = jax.random.split(key)
    k = jax.random.categorical(which, jnp.log(jnp.asarray(DATA.weights, jnp.float32)), shape=(count,))
    spread = jax.random.normal(noise, (count, 2)) * jnp.sqrt(jnp.asarray(DATA.variances, jnp.float32))[k]
    return jnp.asarray(DATA.means, jnp.float32)[k] + jnp.einsum(
        "bd,bed->be", spread, jnp.asarray(DATA.axes, jnp.float32)[k]
    )


@functools.partial(jax.jit, static_argnames=("config", "net", "steps", "batch", "rate", "teacher_net"))
def train(config, net, params, frozen, key, steps, batch=256, rate=3e-3, extra=None, teacher_net=None):
    """(averaged parameters, extra, losses [steps]) after so many steps of Adam; the average follows the last tenth."""
    f = config.loss(net, teacher_net)
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def one(carry, n):
        params, state, ema, extra = carry
        data, noise = jax.random.split(jax.random.fold_in(key, n))
        now = known(frozen, extra, ema, n)

        def value(params):
            out, metrics, stats = f(params, now, draw(data, batch), Cond(), jax.random.split(noise, batch))
            return out, (metrics, stats)

        (out, (_, stats)), grads = jax.value_and_grad(value, has_aux=True)(params)
        with jax.numpy_dtype_promotion("standard"):  # optax divides its int32 count
            updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        decay = jnp.minimum(0.995, 1 - 9 / (n.astype(jnp.float32) + 10))
        ema = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, ema, params)
        return (params, state, ema, config.absorb(extra, stats)), out

    first = (params, optimizer.init(params), params, config.init_extra(params) if extra is None else extra)
    (_, _, ema, extra), losses = jax.lax.scan(one, first, jnp.arange(steps, dtype=jnp.int32))
    return ema, extra, losses


def sample(config, s, net, params, count, steps, key):
    """Points by the config's own sampler and grid."""
    table = sampling.make_table(config.sampler(), s, steps, config.grid(), **config.options())

    @jax.jit
    def run(params, table, noise, key):
        denoise = config.denoiser(net, params, Cond())
        return sampling.run(table, denoise, sampling.start(s, table, noise).astype(jnp.float32), key)

    table = jax.tree.map(lambda a: np.asarray(a, np.float32), table)
    return np.asarray(run(params, table, jax.random.normal(key, (count, 2)), jax.random.fold_in(key, 1)))


def energy_distance(a, b):
    """E|a - b| x 2 - E|a - a'| - E|b - b'|: 0 only between equal distributions (Szekely & Rizzo 2004)."""
    far = lambda x, y: np.linalg.norm(x[:, None] - y[None], axis=2).mean()
    return 2 * far(a, b) - far(a, a) - far(b, b)


def same_distribution(a, b, permutations=99):
    """The p-value of the permutation test that a [n, d] and b [n, d] are draws of one distribution."""
    both = np.concatenate([a, b])
    far = np.linalg.norm(both[:, None] - both[None], axis=2)
    n, rng = len(a), np.random.default_rng(0)

    def statistic(signs):
        return -(signs @ far @ signs)  # with +1 and -1 for the two sets: n^2 times the energy distance

    observed = statistic(np.repeat([1.0, -1.0], n))
    shuffled = [statistic(rng.permutation(np.repeat([1.0, -1.0], n))) for _ in range(permutations)]
    return (1 + sum(value >= observed for value in shuffled)) / (permutations + 1)
