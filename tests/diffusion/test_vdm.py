import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import DATA, draw, init, known, network, perfect, train

from jaxdiff.diffusion import bound, draws, learned, loss, schedule, vdm
from jaxdiff.diffusion.process import ProcessConfig
from jaxdiff.typing import Cond

CONFIG = ProcessConfig(objective="bound", schedule="learned", bins=0)


def keys(n):
    return jax.random.split(jax.random.key(8), n)


def linear_network(params, x, t, cond):
    return 0.5 * x + 0.1


def start(seed, width=64):
    return learned.init(jax.random.key(seed), width=width)


def test_the_clock_has_the_gradient_of_the_square_and_everything_else_that_of_the_loss():
    a, b = jnp.array([0.3, -1.0]), jnp.array([0.5, 2.0])
    f = lambda a, b: jnp.sin(a) * b**2
    da, db = jax.grad(lambda a, b: vdm.squared_in(f)(a, b).sum(), argnums=(0, 1))(a, b)
    np.testing.assert_allclose(da, jax.grad(lambda a: f(a, b).sum())(a), rtol=1e-6)
    np.testing.assert_allclose(db, jax.grad(lambda b: (f(a, b) ** 2).sum())(b), rtol=1e-6)


def test_one_backward_pass_trains_the_network_and_the_ends_by_the_loss_and_the_clock_by_its_square():
    x0, u = draw(jax.random.key(0), 16), (jnp.arange(16.0) + 0.5) / 16
    net = lambda params, x, t, cond: params["w"] * x + 1e-2 * t[:, None]
    params = {"w": jnp.float32(0.3), "schedule": start(0)}

    def terms(params):
        return vdm.bound_loss(net, "eps", None)(params, CONFIG.make_schedule(params), x0, u, Cond(), keys(16))

    def plain(params):
        """The same loss with no rule for its gradient."""
        s = CONFIG.make_schedule(params)
        lam, slope = jax.jvp(s.log_snr, (u,), (jnp.ones_like(u),))
        eps = loss.independent(keys(16), x0)
        x = jnp.sqrt(jax.nn.sigmoid(lam))[:, None] * x0 + jnp.sqrt(jax.nn.sigmoid(-lam))[:, None] * eps
        return -bound.BITS * 0.5 * slope * ((net(params, x, lam, None) - eps) ** 2).mean(axis=1)

    @jax.jit
    def all_of(params):
        powers = (jax.grad(lambda p, power=power: (plain(p) ** power).mean())(params) for power in (1, 2))
        return terms(params).diffusion, plain(params), jax.grad(lambda p: terms(p).diffusion.mean())(params), *powers

    value, want, got, first, square = all_of(params)
    np.testing.assert_allclose(value, want, rtol=1e-4)
    assert float(got["w"]) == pytest.approx(float(first["w"]), rel=1e-4)
    np.testing.assert_allclose(got["schedule"]["ends"], first["schedule"]["ends"], rtol=1e-3)
    for name in ("slope", "inner_weight", "inner_bias", "outer_weight"):
        want = square["schedule"][name]
        np.testing.assert_allclose(got["schedule"][name], want, rtol=1e-2, atol=1e-3 * float(jnp.abs(want).max()))


def test_the_expected_loss_does_not_depend_on_the_clock(monkeypatch):
    monkeypatch.setattr(loss, "independent", lambda keys, x: jnp.ones_like(x))
    u, x0 = (jnp.arange(4096.0) + 0.5) / 4096, jnp.full((4096, 1), 0.7)
    means = []
    for outer in (-8.0, 1.0):
        s = learned.Learned(**{**start(3), "outer_weight": jnp.full(64, outer)})
        each = jax.jit(lambda s: vdm.bound_loss(linear_network, "eps", None)({}, s, x0, u, Cond(), keys(4096)))(s)
        means.append(float(each.diffusion.mean()))
    assert means[0] == pytest.approx(means[1], rel=1e-3)


def test_the_loss_of_a_fixed_schedule_is_the_bound_in_the_limit_of_many_steps(monkeypatch):
    monkeypatch.setattr(loss, "independent", lambda keys, x: jnp.ones_like(x))
    monkeypatch.setattr(draws, "noise_like", lambda keys, x: jnp.ones_like(x))
    s, u, x0 = schedule.vp(), (jnp.arange(512.0) + 0.5) / 512, jnp.full((512, 1), 0.7)
    monkeypatch.setattr(bound, "antithetic", lambda keys: u)
    got = jax.jit(lambda: vdm.bound_loss(linear_network, "eps", None)({}, s, x0, u, Cond(), keys(512)))()
    denoise = lambda x, t, aux: (x - s.sigma(t)[:, None] * linear_network({}, x, t, None)) / s.alpha(t)[:, None]
    want = jax.jit(lambda: bound.continuous(denoise, s, x0, keys(512), bins=None))()
    np.testing.assert_allclose(got.diffusion, want.diffusion, rtol=2e-2)  # float32 times from log-SNR
    assert float(got.diffusion.mean()) == pytest.approx(float(want.diffusion.mean()), rel=1e-3)
    np.testing.assert_allclose(got.prior, want.prior, rtol=1e-6)
    # x_first / alpha is off by sigma / alpha, one deviation
    log_var = -float(s.log_snr(np.float64(s.first)))
    np.testing.assert_allclose(got.reconstruction, 0.5 * (1 + log_var + np.log(2 * np.pi)) / np.log(2), rtol=1e-4)


def spread(params):
    """The deviation of the bound's middle term of the exact denoiser over 8192 draws."""
    n = 8192
    net = lambda params, x, t, cond: perfect(CONFIG.make_schedule(params), "eps")({}, x, t, cond)
    x0, u = draw(jax.random.key(7), n), draws.uniform(keys(n))
    f = jax.jit(
        lambda p: vdm.bound_loss(net, "eps", None)(p, CONFIG.make_schedule(p), x0, u, Cond(), keys(n)).diffusion
    )
    return float(jnp.std(f(params)))


@pytest.mark.heavy
def test_the_learned_schedule_lowers_the_variance_of_the_loss():
    net = lambda params, x, t, cond: perfect(CONFIG.make_schedule(params), "eps")({}, x, t, cond)
    params = CONFIG.init_params(jax.random.key(3))
    after, _, losses = train(CONFIG, net, params, {}, jax.random.key(1), 600, rate=1e-2)
    assert bool(jnp.isfinite(losses).all())
    assert spread(after) ** 2 < 0.85 * spread(params) ** 2


@pytest.mark.heavy
def test_the_bound_in_bits_falls_to_that_of_the_exact_denoiser():
    s = learned.Learned(**start(3))
    net, exact = network(s, "eps"), perfect(s, "eps")
    params = {**init(jax.random.key(0), 2), "schedule": start(3)}
    after, _, losses = train(CONFIG, net, params, {}, jax.random.key(1), 1500)
    assert bool(jnp.isfinite(losses).all())
    x0 = draw(jax.random.key(9), 8192)
    value = jax.jit(lambda p, net: CONFIG.loss(net)(p, known(), x0, Cond(), keys(8192))[0], static_argnums=1)
    begun, trained, best = float(value(params, net)), float(value(after, net)), float(value(after, exact))
    assert begun - best > 1
    assert trained - best < 0.02 * (begun - best)
    entropy = -DATA.log_prob(np.asarray(x0, np.float64)).mean() / (2 * np.log(2))
    deviation = spread(after) / np.sqrt(8192)
    assert abs(best - entropy) < 5 * deviation
