"""Distribution matching against closed forms: scores of Gaussians, and the mixture that a student must make."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from jaxdiff import sampling
from jaxdiff.diffusion import draws, exact, loss, matching, prediction, schedule, times
from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.typing import Cond

COSINE = schedule.cosine()
REAL = exact.gaussian(np.array([0.5, -0.5]), np.array([[0.5, 0.2], [0.2, 0.3]]))
MADE = exact.gaussian(np.array([-0.2, 0.1]), np.array([[0.1, 0.0], [0.0, 0.4]]))
COUNT = 64


def keys(seed=0):
    return jax.random.split(jax.random.key(seed), COUNT)


def drawn():
    """The times at which points are compared, and their noise, as the loss draws them."""
    judged = draws.fold(keys(), matching._JUDGED)
    t = times.steps(COSINE.steps)(0.02 + 0.96 * draws.uniform(judged))
    return t, loss.independent(judged, jnp.zeros((COUNT, 2)))


def made_by(params, x, timestep, cond):
    """x0 is what the parameters say; or, of the fake, the exact estimate of N(mean, covariance) of `MADE`."""
    if "x0" in params:
        return params["x0"]
    t = (timestep + 1) / COSINE.steps
    return params["times"] * MADE.x0(x, COSINE.alpha(t), COSINE.sigma(t))


def losses_of(weight=None):
    """(parameters of the student, of the fake) -> the losses, with the exact teacher of Gaussian data."""
    each = matching.matching(made_by, COSINE, "x0", weight=weight)
    shared = REAL.denoiser(COSINE), jnp.zeros((COUNT, 2)), draws.uniform(keys()), Cond(), Cond(), keys()
    return lambda params, fake: each(params, fake, *shared)


def test_the_gradient_is_the_difference_of_the_scores():
    """Of Gaussians both scores are known: -(alpha^2 C + sigma^2)^-1 (x_t - alpha m)."""
    t, eps = drawn()
    points = jnp.asarray(MADE.sample(np.random.default_rng(0), COUNT), jnp.float32)
    fake = {"times": jnp.float32(1.0)}
    got = jax.grad(lambda p: losses_of()(p, fake).student.sum())({"x0": points})["x0"]
    alpha, sigma = (np.asarray(f(np.asarray(t, np.float64)))[:, None] for f in (COSINE.alpha, COSINE.sigma))
    x_t = alpha * np.asarray(points, np.float64) + sigma * np.asarray(eps, np.float64)

    def score(data):
        mean, covariance = data.moments()
        total = alpha[..., None] ** 2 * covariance[None] + sigma[..., None] ** 2 * np.eye(2)
        return -np.linalg.solve(total, (x_t - alpha * mean[None])[..., None])[..., 0]

    real = (x_t + sigma**2 * score(REAL)) / alpha  # Tweedie
    weight = sigma**2 / alpha / np.abs(np.asarray(points) - real).mean(1, keepdims=True)
    want = weight * (score(MADE) - score(REAL)) / 2  # over the size of a point
    np.testing.assert_allclose(got, want, rtol=2e-3, atol=1e-4)  # a difference of float32 estimates
    assert float(jnp.abs(got).max()) > 0.1


def test_each_loss_moves_its_own_network_alone():
    t, eps = drawn()
    points = jnp.asarray(MADE.sample(np.random.default_rng(0), COUNT), jnp.float32)
    value = losses_of(loss.snr())
    pair = {"x0": points}, {"times": jnp.float32(0.7)}
    student = jax.grad(lambda *pair: value(*pair).student.mean(), argnums=(0, 1))(*pair)
    fake = jax.grad(lambda *pair: value(*pair).fake.mean(), argnums=(0, 1))(*pair)
    assert float(jnp.abs(student[0]["x0"]).max()) > 0
    assert float(student[1]["times"]) == 0
    assert float(jnp.abs(fake[0]["x0"]).max()) == 0
    assert float(fake[1]["times"]) != 0
    estimate = 0.7 * MADE.x0(loss.noised(points, eps, t, COSINE), COSINE.alpha(t), COSINE.sigma(t))
    want = jnp.exp(COSINE.log_snr(t)) * ((estimate - points) ** 2).mean(1)
    np.testing.assert_allclose(value(*pair).fake, want, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_student_starts_from_what_sampling_gives_it(steps, monkeypatch):
    """With the noise of the sampler in the place of the loss's own, state n is the sampler's."""
    denoise = REAL.denoiser(COSINE)
    table = sampling.make_table("consistency", COSINE, steps, "trailing")
    noise = jax.random.normal(jax.random.key(3), (steps, COUNT, 2))
    monkeypatch.setattr(loss, "independent", lambda keys, x: noise[0])
    seen = iter(noise[1:])
    monkeypatch.setattr(draws, "noise_like", lambda keys, x: next(seen))
    step = jnp.asarray(np.arange(COUNT) % steps + 1, jnp.float32)
    got = matching.begun(denoise, COSINE, steps, step, jnp.zeros((COUNT, 2)), keys())
    x, states = sampling.start(COSINE, table, noise[0]).astype(jnp.float32), []
    for n in range(steps):
        states.insert(0, np.asarray(x))
        t, s = (np.float32((steps - m) / steps) for m in (n, n + 1))
        if n < steps - 1:
            x = COSINE.alpha(s) * denoise(x, t, {}) + COSINE.sigma(s) * noise[n + 1]
    want = np.stack(states)[np.asarray(step, int) - 1, np.arange(COUNT)]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        sampling.grid.GRIDS["trailing"](COSINE, steps), np.arange(steps, -1, -1) / steps, atol=6e-4
    )


@functools.partial(jax.jit, static_argnames=("net", "steps", "updates", "batch"))
def distil(net, params, key, steps, updates, batch=256):
    """The average of a student after so many updates, its fake five times as fast."""
    each = matching.matching(net, COSINE, "v", steps)
    teacher = prediction.denoiser(net, params, Cond(), COSINE, "v")
    rate = optax.cosine_decay_schedule(3e-4, updates)
    optimizers = optax.adam(rate, b1=0.0), optax.adam(lambda n: 5 * rate(n), b1=0.0)

    def one(carry, n):
        nets, states, ema = carry
        keys = jax.random.split(jax.random.fold_in(key, n), batch)

        def value(nets):
            found = each(*nets, teacher, jnp.zeros((batch, 2)), draws.uniform(keys), Cond(), Cond(), keys)
            return (found.student + found.fake).mean()

        grads = jax.grad(value)(nets)
        moved = []
        with jax.numpy_dtype_promotion("standard"):
            for params, grad, state, optimizer in zip(nets, grads, states, optimizers, strict=True):
                updates, state = optimizer.update(grad, state, params)
                moved.append((optax.apply_updates(params, updates), state))
        nets, states = tuple(zip(*moved, strict=True))
        return (nets, states, jax.tree.map(lambda a, b: 0.995 * a + 0.005 * b, ema, nets[0])), None

    first = (params, params), tuple(o.init(params) for o in optimizers), params
    (_, _, ema), _ = jax.lax.scan(one, first, jnp.arange(updates, dtype=jnp.int32))
    return ema


@pytest.mark.heavy
@pytest.mark.parametrize("steps", [1, 4])
def test_a_student_makes_the_mixture(steps):
    """Its energy distance to the data is a small part of what its teacher has in so many steps.

    Were all steps judged at all times, four of them would make up for each other's lost modes, and miss this by far.
    """
    base = ProcessConfig(prediction="v")
    net = toy.network(COSINE, "v")
    trained, _, _ = toy.train(base, net, toy.init(jax.random.key(0), 2), {}, jax.random.key(1), 1500)
    student = distil(net, trained, jax.random.key(2), steps, 2000)
    data = np.asarray(toy.draw(jax.random.key(11), 1000))
    far = {}
    for name, params, sampler in (("student", student, "consistency"), ("teacher", trained, "ddim")):
        table = sampling.make_table(sampler, COSINE, steps, "trailing")
        denoise = prediction.denoiser(net, params, Cond(), COSINE, "v")
        start = sampling.start(COSINE, table, jax.random.normal(jax.random.key(5), (1000, 2))).astype(jnp.float32)
        made = sampling.run(table, denoise, start, jax.random.key(3))
        far[name] = toy.energy_distance(np.asarray(made), data)
    assert far["student"] < 0.1 * far["teacher"]
