"""Estimates within bounds, and estimates with a learned variance."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import sampling
from jaxdiff.diffusion import guidance, schedule, variance
from jaxdiff.sampling import bounds, grid
from jaxdiff.typing import Cond, Estimate

S = schedule.linear()
X = np.random.default_rng(0).normal(size=(3, 8)) * np.array([[0.5], [1.0], [4.0]])
TIMES = grid.trailing(S, 6)


def far(x, t, aux):
    return 1.5 * x + 0.2


@pytest.mark.parametrize("keep", [{"clip": 0.7}, {"threshold": (0.8, 2.0)}, {"threshold": (0.995, 1.0)}])
@pytest.mark.parametrize("name", ["ddpm", "ddim", "heun", "dpmpp_2m", "unipc", "pndm"])
def test_bounds_of_a_table_are_those_of_its_denoiser(name, keep):
    """For every sampler that takes nothing but the bounded estimate, as a Transform would give it."""
    inside = bounds.make(1, keep.get("clip"), keep.get("threshold"))
    inside = {field: value[0] for field, value in inside.items()}
    plain = sampling.make_table(name, S, 12)
    noise = np.random.default_rng(1).standard_normal((plain.calls, *X.shape))
    want, x0 = sampling.replay(plain, lambda x, t, aux: bounds.apply(far(x, t, aux), inside), X, noise)
    got, seen = sampling.replay(sampling.make_table(name, S, 12, **keep), far, X, noise)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_allclose(seen, x0, rtol=1e-12)


def test_dynamic_thresholding_is_the_transforms():
    got = bounds.apply(jnp.asarray(X, jnp.float32), {"limit": jnp.float32(2.5), "quantile": jnp.float32(0.7)})
    transform = guidance.dynamic_threshold(0.7, 2.5)
    want = transform(lambda x, t, aux: x)(jnp.asarray(X, jnp.float32), jnp.float32(0.5), {})
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_kept_eps_is_the_networks_own():
    """x' = alpha' clip(D) + sigma' (x - alpha D) / sigma, DDIM as released; with eps made anew it is another step."""
    table = sampling.make_table("ddim", S, 6, TIMES, clip=1.0, keep_eps=True)
    xs, _ = sampling.replay(table, far, X)
    x = X
    for t, to in itertools.pairwise(TIMES):
        D = far(x, t, {})
        x = S.alpha(to) * np.clip(D, -1, 1) + S.sigma(to) * (x - S.alpha(t) * D) / S.sigma(t)
    np.testing.assert_allclose(xs[-1], x, rtol=1e-10)
    anew, _ = sampling.replay(sampling.make_table("ddim", S, 6, TIMES, clip=1.0), far, X)
    assert np.abs(anew[2] - xs[2]).max() > 0.01  # the last step, to data, has no eps
    unbounded = sampling.make_table("ddim", S, 6, TIMES, keep_eps=True)
    np.testing.assert_allclose(unbounded.b, sampling.make_table("ddim", S, 6, TIMES).b, rtol=1e-12)


@pytest.mark.parametrize("keep", [{"clip": 1.0}, {"threshold": (0.9, 3.0)}])
def test_run_is_replay_and_another_sampler_compiles_nothing(keep):
    traces = []

    def denoise(x, t, aux):
        traces.append(1)
        return 1.5 * x + 0.2

    run = jax.jit(lambda table, x: sampling.run(table, denoise, x, None))
    for name, options in (("ddim", {"keep_eps": True}), ("dpmpp_2m", {}), ("deis", {})):
        table = sampling.make_table(name, S, 6, TIMES, **keep, **options)
        xs, _ = sampling.replay(table, far, X)
        np.testing.assert_allclose(run(table, jnp.asarray(X, jnp.float32)), xs[-1], atol=3e-5, rtol=3e-5)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        ({"clip": 0.0}, "clip = 0.0: expected a positive number"),
        ({"clip": float("nan")}, "clip = nan"),
        ({"threshold": (0.0, 2.0)}, "expected a quantile"),
        ({"threshold": (0.9, 0.5)}, "a limit of at least 1"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(keep, says):
    with pytest.raises(ValueError, match=says):
        sampling.make_table("ddim", S, 6, **keep)


def measured(name):
    """Each transform, as a user would make it."""
    picture = jnp.full((2, 4, 4, 1), 0.3)
    mask = jnp.zeros((2, 4, 4, 1)).at[:, :2].set(1.0)
    return {
        "static": guidance.static_threshold(0.2),
        "dynamic": guidance.dynamic_threshold(0.9),
        "inpaint": guidance.inpaint(picture, mask),
        "classifier": guidance.classifier(lambda x, t: -(x**2).sum((1, 2, 3)), S),
        "reconstruction": guidance.reconstruction(lambda x: x[:, :2], picture[:, :2], S),
    }[name]


@pytest.mark.parametrize("name", ["static", "dynamic", "inpaint", "classifier", "reconstruction"])
def test_every_transform_passes_a_learned_variance_through(name):
    transform = measured(name)
    network = lambda p, x, t, c: jnp.concatenate([1.5 * jnp.tanh(2 * x), jnp.sin(3 * x)], axis=-1)
    learned = variance.learned_denoiser(network, {}, Cond(), S, "x0")
    aux = {"log_variances": jnp.array([-3.0, -2.0])}
    x, t = jax.random.normal(jax.random.key(0), (2, 4, 4, 1)), jnp.float32(0.4)
    got = jax.jit(guidance.keep_scale(transform)(learned))(x, t, aux)
    assert isinstance(got, Estimate)
    np.testing.assert_allclose(got.x0, transform(lambda *at: learned(*at).x0)(x, t, aux), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(got.scale, learned(x, t, aux).scale, atol=1e-6)
    assert np.abs(got.x0 - learned(x, t, aux).x0).max() > 1e-3
