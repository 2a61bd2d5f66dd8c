import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import sampling
from jaxdiff.diffusion import distill, exact, schedule
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


def test_the_exact_consistency_function_has_next_to_no_distillation_loss():
    """With the exact denoiser as the teacher only the teacher's DDIM step is inexact, by the square of its length."""
    losses = []
    for steps in (40, 80):
        times = jnp.asarray(grid.karras(EDM, steps, last=0.01 / 80)[:-1], jnp.float32)
        f = distill.consistency(ideal, EDM, times, DATA.denoiser(EDM), distance="square")
        losses.append(float(f({}, {}, X0, Cond(), keys()).mean()))
    assert losses[0] < 1e-3
    assert losses[1] < 0.2 * losses[0]
    wrong = distill.consistency(lambda p, x, t, c: 0.5 * ideal(p, x, t, c), EDM, times, DATA.denoiser(EDM), "square")
    assert float(wrong({}, {}, X0, Cond(), keys()).mean()) > 20 * losses[1]


def test_consistency_training_has_the_gradient_of_distillation_on_average():
    """Both losses at the exact function differ by noise alone, whose gradient averages out (theorem 2 of the paper)."""
    times = jnp.asarray(grid.karras(EDM, 80, last=0.01 / 80)[:-1], jnp.float32)
    network = lambda p, x, t, c: p["a"] * ideal(p, x, t, c)
    x0 = jnp.asarray(DATA.sample(np.random.default_rng(1), 20_000), jnp.float32)

    def gradient(teacher, a):
        f = distill.consistency(network, EDM, times, teacher, "square")
        value = lambda p: f(p, {"a": jnp.float32(a)}, x0, Cond(), jax.random.split(jax.random.key(3), 20_000)).mean()
        return float(jax.grad(value)({"a": jnp.float32(a)})["a"])

    trained, distilled = gradient(None, 1.3), gradient(DATA.denoiser(EDM), 1.3)
    assert trained == pytest.approx(distilled, rel=0.25)
    assert abs(gradient(None, 1.0)) < 0.25 * abs(trained)


def test_target_parameters_get_no_gradient_and_huber_is_finite():
    times = jnp.asarray(grid.karras(EDM, 10, last=0.01 / 80)[:-1], jnp.float32)
    network = lambda p, x, t, c: p["a"] * x
    f = distill.consistency(network, EDM, times)
    value = lambda p, q: f(p, q, X0, Cond(), keys()).mean()
    one = {"a": jnp.float32(0.4)}
    student, target = jax.grad(value, argnums=(0, 1))(one, one)
    assert np.isfinite(float(student["a"]))
    assert float(student["a"]) != 0
    assert float(target["a"]) == 0
    with pytest.raises(ValueError, match="at least 2 times"):
        distill.consistency(network, EDM, times[:1])


def test_progressive_distillation_asks_for_what_two_steps_of_the_teacher_do():
    steps, asked = 4, {}

    def network(params, x, timestep, cond):
        asked["x"], asked["t"] = x, timestep / 999
        return params["x0"]

    teacher = DATA.denoiser(VP)
    batch_teacher = lambda x, t, aux: jax.vmap(lambda x, t: DATA.x0(x[None], VP.alpha(t), VP.sigma(t))[0])(x, t)
    f = distill.progressive(network, VP, "x0", steps)
    f({"x0": X0}, batch_teacher, X0, Cond(), keys())
    t = np.asarray(asked["t"], np.float64)
    target = []
    for n in range(64):
        two = sampling.ddim(VP, np.array([t[n], t[n] - 1 / 8, max(t[n] - 1 / 4, 0)]))
        x_u = sampling.replay(two, teacher, np.asarray(asked["x"][n : n + 1], np.float64))[0][-1]
        one = sampling.ddim(VP, np.array([t[n], max(t[n] - 1 / 4, 0)]))
        target.append((x_u - one.A[0, 0, 0] * np.asarray(asked["x"][n])) / one.b[0, 0])
    perfect = jnp.asarray(np.concatenate(target), jnp.float32)
    assert float(jnp.max(f({"x0": perfect}, batch_teacher, X0, Cond(), keys()))) < 1e-5
    assert float(jnp.mean(f({"x0": perfect + 0.1}, batch_teacher, X0, Cond(), keys()))) > 5e-3
