import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxdiff import sampling
from jaxdiff.diffusion import bound, draws, loss, prediction, schedule, variance
from jaxdiff.sampling import grid
from jaxdiff.typing import Cond

BETAS = np.linspace(1e-4, 0.02, 1000)
ABAR = np.cumprod(1 - BETAS)
S = schedule.linear()
X0 = jnp.round(jax.random.uniform(jax.random.key(5), (16, 2), minval=0, maxval=255)) / 127.5 - 1
STEPS = np.linspace(1, 1000, 16).round().astype(int)


def keys():
    return jax.random.split(jax.random.key(1), 16)


def network(params, x, t, cond):
    return jnp.concatenate([params["w"] * x, jnp.broadcast_to(jnp.tanh(params["v"]), x.shape)], axis=-1)


def published(x0, eps, w, v, bins):
    """Equations 9 to 16 of the paper in float64, term by term from the betas; L_0 and L_i in bits."""
    n = STEPS - 1
    abar, before, beta = ABAR[n, None], np.append(1.0, ABAR)[n, None], BETAS[n, None]
    x = np.sqrt(abar) * x0 + np.sqrt(1 - abar) * eps
    D = (x - np.sqrt(1 - abar) * w * x) / np.sqrt(abar)
    tilde = np.where(STEPS[:, None] > 1, beta * (1 - before) / (1 - abar), (BETAS[1] * (1 - ABAR[0])) / (1 - ABAR[1]))
    # the posterior of the first step has no variance: its log is taken from the second, as in the released code
    log_var = v * np.log(np.where(STEPS[:, None] > 1, beta, BETAS[1])) + (1 - v) * np.log(tilde)
    mean = lambda x0: np.sqrt(before) * beta / (1 - abar) * x0 + np.sqrt(1 - beta) * (1 - before) / (1 - abar) * x
    ratio = tilde / np.exp(log_var)
    kl = 0.5 * (ratio - np.log(ratio) - 1 + (mean(x0) - mean(D)) ** 2 / np.exp(log_var))
    normal = scipy.stats.norm(D, np.exp(log_var / 2))
    upper = np.where(x0 > 0.999, 1, normal.cdf(x0 + 1 / (bins - 1)))
    lower = np.where(x0 < -0.999, 0, normal.cdf(x0 - 1 / (bins - 1)))
    first = -np.log(np.maximum(upper - lower, 1e-300))
    term = np.where(STEPS[:, None] > 1, kl, first).mean(1) / np.log(2)
    return ((w * x - eps) ** 2).mean(1), term


def test_the_hybrid_loss_is_the_published_formula():
    w, v = 0.02, 0.3
    eps = np.asarray(loss.independent(keys(), X0), np.float64)
    simple, term = published(np.asarray(X0, np.float64), eps, w, (np.tanh(v) + 1) / 2, 256)
    params = {"w": jnp.float32(w), "v": jnp.float32(v)}
    got = variance.hybrid(network, S, "eps")(params, X0, jnp.asarray(STEPS / 1000, jnp.float32), Cond(), keys())
    # fresh variances of float32 log-SNR are good to 1e-4, and the bound's terms count once
    np.testing.assert_allclose(got, simple + 1e-3 * 1000 * term, rtol=2e-3)
    alone = variance.hybrid(network, S, "eps", bound=0.0)
    np.testing.assert_allclose(
        alone(params, X0, jnp.asarray(STEPS / 1000, jnp.float32), Cond(), keys()), simple, rtol=1e-5
    )


def test_the_bound_trains_only_the_variance():
    t = jnp.asarray(STEPS / 1000, jnp.float32)
    total = lambda p, bound: variance.hybrid(network, S, "eps", bound=bound)(p, X0, t, Cond(), keys()).mean()
    params = {"w": jnp.float32(0.5), "v": jnp.float32(0.3)}
    with_bound, simple = (jax.grad(total)(params, bound) for bound in (1e-3, 0.0))
    assert float(with_bound["w"]) == pytest.approx(float(simple["w"]), rel=1e-5)
    assert float(simple["v"]) == 0
    moved = {**params, "v": params["v"] + 1e-2}, {**params, "v": params["v"] - 1e-2}
    slope = (float(total(moved[0], 1e-3)) - float(total(moved[1], 1e-3))) / 2e-2
    assert float(with_bound["v"]) == pytest.approx(slope, rel=2e-2)  # a difference of float32 sums


def test_the_bound_counts_a_learned_variance_as_the_hybrid_loss_does():
    t, params = jnp.asarray(STEPS / 1000, jnp.float32), {"w": jnp.float32(0.02), "v": jnp.float32(0.3)}
    whole, simple = (variance.hybrid(network, S, "eps", bound=b)(params, X0, t, Cond(), keys()) for b in (1.0, 0.0))
    denoise = variance.learned_denoiser(network, params, Cond(), S, "eps")
    drawn = lambda: draws.fold(keys(), draws.NOISE)
    got = bound.diffusion(denoise, S, X0, drawn(), jnp.asarray(STEPS, jnp.float32), 1000)
    # a fresh variance of float32 log-SNR is good to 1e-4
    np.testing.assert_allclose(got[1:], (whole - simple)[1:] / 1000, rtol=2e-3)
    first = bound.reconstruction(denoise, S, X0, drawn(), 1e-3)
    np.testing.assert_allclose(first[0], (whole - simple)[0] / 1000, rtol=2e-3)


def test_the_smallest_learned_variance_has_the_bound_of_the_posterior():
    params = {"w": jnp.float32(0.02), "v": jnp.float32(-20)}
    learned = variance.learned_denoiser(network, params, Cond(), S, "eps")
    plain = prediction.denoiser(lambda *given: network(*given)[:, :2], params, Cond(), S, "eps")
    i = jnp.asarray(STEPS[1:], jnp.float32)
    one, other = (bound.diffusion(d, S, X0[1:], keys()[1:], i, 1000) for d in (learned, plain))
    np.testing.assert_allclose(one, other, rtol=2e-3)


def test_guidance_moves_the_mean_and_leaves_the_variance_to_the_condition():
    def told(params, x, t, cond):
        return jnp.concatenate([0.1 * x + cond.pooled, jnp.broadcast_to(jnp.tanh(cond.pooled), x.shape)], axis=-1)

    table = sampling.ddpm(S, grid.trailing(S, 10), "learned")
    good, bad = Cond(pooled=jnp.full((16, 2), 0.5)), Cond(pooled=jnp.full((1, 2), -0.5))
    x, t = jax.random.normal(jax.random.key(2), (16, 2)), jnp.float32(table.t[4])
    aux = {"log_variances": jnp.asarray(table.aux["log_variances"][4], jnp.float32)}
    make = lambda null: variance.learned_denoiser(told, {}, good, S, "eps", null)
    off, on = make(bad)(x, t, {**aux, "guidance": jnp.float32(1)}), make(bad)(x, t, {**aux, "guidance": jnp.float32(3)})
    alone, away = make(None)(x, t, aux), variance.learned_denoiser(told, {}, bad, S, "eps")(x, t, aux)
    np.testing.assert_allclose(off.x0, alone.x0, rtol=1e-5)
    np.testing.assert_allclose(on.x0, away.x0 + 3 * (alone.x0 - away.x0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(on.scale, alone.scale, rtol=1e-6)
    np.testing.assert_allclose(make(bad)(x, t, {"guidance": jnp.float32(3)}), on.x0)
