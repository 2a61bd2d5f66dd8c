import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxdiff import sampling
from jaxdiff.diffusion import distill, exact, loss, schedule
from jaxdiff.sampling import grid
from jaxdiff.typing import Cond

DATA = exact.gaussian(np.array([0.5, -0.5]), np.array([[0.5, 0.2], [0.2, 0.3]]))
X0 = jnp.asarray(DATA.sample(np.random.default_rng(0), 64), jnp.float32)
EDM, VP = schedule.edm(), schedule.vp()


def keys():
    return jax.random.split(jax.random.key(0), 64)


def ideal(params, x, timestep, cond):
    """The F for which EDM's consistency function is the exact flow of Gaussian data to level 0.002."""
    sigma = jnp.exp(4 * timestep)[:, None]
    z = x * jnp.sqrt(sigma**2 + 0.25)
    # the covariance's axes are the same at all levels, so the flow is a scaling along each
    m, axes, c = (jnp.asarray(a[0], jnp.float32) for a in (DATA.means, DATA.axes, DATA.variances))
    moved = ((z - m[None]) @ axes) * jnp.sqrt((c + 0.002**2)[None] / (c[None] + sigma**2))
    wanted = moved @ axes.T + m[None]
    beyond = sigma - 0.002
    skip, out = 0.25 / (beyond**2 + 0.25), beyond * 0.5 / jnp.sqrt(sigma**2 + 0.25)
    return (wanted - skip * z) / out


def test_the_consistency_function_is_the_identity_at_the_smallest_level():
    f = distill.consistency_function(lambda p, x, t, c: 100 * x, {}, Cond(), EDM)
    np.testing.assert_allclose(f(X0, jnp.float32(0.002 / 80), {}), X0, rtol=1e-4)


def gaussian_draws(count, monkeypatch):
    """Eight pairs (x0, eps) for each of `count` even u: averages of quadratic functions are exact expectations."""
    z = 2 * np.concatenate([np.eye(4), -np.eye(4)])
    mean, covariance = DATA.moments()
    x0 = mean + z[:, :2] @ np.linalg.cholesky(covariance).T
    tile = lambda a: jnp.asarray(np.tile(a, (count, 1)), jnp.float32)
    monkeypatch.setattr(loss, "independent", lambda keys, x: tile(z[:, 2:]))
    return tile(x0), jnp.repeat((jnp.arange(float(count)) + 0.5) / count, 8)


def test_the_exact_consistency_function_has_next_to_no_distillation_loss(monkeypatch):
    """With the exact denoiser as the teacher only the teacher's DDIM step is inexact, by the square of its length."""

    def mean_loss(network, count):
        x0, u = gaussian_draws(count, monkeypatch)
        f = distill.consistency(network, EDM, huber=1e3)
        return float(f({}, {}, x0, u, Cond(), keys(), count, DATA.denoiser(EDM)).mean())

    losses = [mean_loss(ideal, count) for count in (40, 80)]
    # the square of an error of second order over an interval of first order
    assert 2.5 < np.log2(losses[0] / losses[1]) < 3.5
    assert mean_loss(lambda p, x, t, c: 0.5 * ideal(p, x, t, c), 80) > 20 * losses[1]


def test_consistency_training_has_the_gradient_of_distillation_on_average(monkeypatch):
    """Theorem 2 of the paper, exact where f is affine: x_s given x_t has the teacher's step for its mean."""
    network = lambda p, x, t, c: p["a"] * ideal(p, x, t, c)
    x0, u = gaussian_draws(20, monkeypatch)
    f, one = distill.consistency(network, EDM, huber=1e3), {"a": jnp.float32(1.3)}

    def gradient(teacher):
        return float(jax.grad(lambda p: f(p, one, x0, u, Cond(), keys(), 20, teacher).mean())(one)["a"])

    trained, distilled = gradient(None), gradient(DATA.denoiser(EDM))
    assert trained == pytest.approx(distilled, rel=1e-4)  # a float32 sum of 160 terms
    wrong = lambda x, t, aux: 0.9 * DATA.denoiser(EDM)(x, t, aux)
    assert trained != pytest.approx(gradient(wrong), rel=1e-2)


def test_target_parameters_get_no_gradient():
    network = lambda p, x, t, c: p["a"] * x
    f = distill.consistency(network, EDM)
    value = lambda p, q: f(p, q, X0, jnp.linspace(0.01, 0.99, 64), Cond(), keys(), 10).mean()
    one = {"a": jnp.float32(0.4)}
    student, target = jax.grad(value, argnums=(0, 1))(one, one)
    assert np.isfinite(float(student["a"]))
    assert float(student["a"]) != 0
    assert float(target["a"]) == 0


def test_the_distance_is_pseudo_huber_over_the_interval(monkeypatch):
    x0, u = gaussian_draws(8, monkeypatch)
    f = distill.consistency(lambda p, x, t, c: p["a"] * x, EDM, huber=0.3)
    got = f({"a": 0.4}, {"a": 0.2}, x0, u, Cond(), keys(), 8)
    n = np.floor(np.asarray(u) * 8).astype(int)
    rising = grid.karras(EDM, 9, last=0.002 / 80)[:-1][::-1]
    t, s = rising[n + 1], rising[n]
    eps = np.asarray(loss.independent(keys(), x0), np.float64)

    def mapped(time, a):
        sigma = 80 * time[:, None]
        x = np.asarray(x0) + sigma * eps
        norm = np.sqrt(sigma**2 + 0.25)
        return 0.25 / ((sigma - 0.002) ** 2 + 0.25) * x + (sigma - 0.002) * 0.5 / norm * a * x / norm

    square = ((mapped(t, 0.4) - mapped(s, 0.2)) ** 2).sum(1)
    want = (np.sqrt(square + 2 * 0.09) - np.sqrt(2) * 0.3) / (80 * (t - s))
    np.testing.assert_allclose(got, want, rtol=2e-3)  # the smallest levels are differences of float32 times


def test_log_normal_positions_are_the_truncated_distribution():
    u = np.linspace(0.01, 0.99, 50)
    t = distill.karras_times(EDM, distill.log_normal_position(EDM, jnp.asarray(u, jnp.float32)))
    cdf = lambda sigma: scipy.stats.norm.cdf((np.log(sigma) + 1.1) / 2)
    want = (cdf(80 * np.asarray(t, np.float64)) - cdf(0.002)) / (cdf(80) - cdf(0.002))
    np.testing.assert_allclose(want, u, atol=1e-4)


def test_progressive_distillation_asks_for_what_two_steps_of_the_teacher_do():
    steps, asked = 4, {}

    def network(params, x, timestep, cond):
        asked["x"], asked["t"] = x, timestep / 999
        return params["x0"]

    teacher, u = DATA.denoiser(VP), jnp.linspace(0.01, 0.99, 64)
    f = distill.progressive(network, VP, "x0", loss.truncated_snr())
    f({"x0": X0}, teacher, X0, u, Cond(), keys(), steps)
    t = np.asarray(asked["t"], np.float64)
    assert len(np.unique(t)) == steps
    target = []
    for n in range(64):
        two = sampling.ddim(VP, np.array([t[n], t[n] - 1 / 8, max(t[n] - 1 / 4, 0)]))
        x_u = sampling.replay(two, teacher, np.asarray(asked["x"][n : n + 1], np.float64))[0][-1]
        one = sampling.ddim(VP, np.array([t[n], max(t[n] - 1 / 4, 0)]))
        target.append((x_u - one.A[0, 0, 0] * np.asarray(asked["x"][n])) / one.b[0, 0])
    perfect = jnp.asarray(np.concatenate(target), jnp.float32)
    assert float(jnp.max(f({"x0": perfect}, teacher, X0, u, Cond(), keys(), steps))) < 1e-5
    assert float(jnp.mean(f({"x0": perfect + 0.1}, teacher, X0, u, Cond(), keys(), steps))) > 5e-3


def test_stages_halve_and_double_by_the_rule_of_the_step():
    halved = [int(distill.intervals(step, 10, 8, 1)) for step in range(0, 60, 5)]
    assert halved == [8, 8, 4, 4, 2, 2, 1, 1, 1, 1, 1, 1]
    doubled = [int(distill.intervals(jnp.int32(step), 10, 10, 40)) for step in (0, 9, 10, 20, 99)]
    assert doubled == [10, 10, 20, 40, 40]
    assert int(distill.intervals(10**6, 1, 18, 18)) == 18


def test_the_teacher_of_a_stage_is_the_student_that_began_it():
    teacher, seen = {"a": jnp.float32(-1)}, []
    for step in range(9):
        teacher = distill.teacher({"a": jnp.float32(step)}, teacher, jnp.int32(step), 2, 4, 1)
        seen.append(float(teacher["a"]))
    # three stages of 4, 2 and 1 steps begin at 0, 2 and 4; the last goes on
    assert seen == [-1, -1, 2, 2, 4, 4, 4, 4, 4]
