import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.metrics import pixels
from jaxdiff.metrics.fid import frechet_distance_of
from jaxdiff.objectives import likeness

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (3, 12, 17, 3)).astype(np.uint8)
Y = np.clip(X.astype(int) + RNG.integers(-40, 40, X.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["psnr", "ssim"])
def test_it_is_that_of_the_host(name):
    """To float32, whose variances are differences of means."""
    ours, theirs = getattr(likeness, name)(jnp.asarray(X), jnp.asarray(Y)), getattr(pixels, name)(X, Y)
    np.testing.assert_allclose(ours, theirs, rtol=2e-5)


def test_equal_images_are_as_near_as_can_be():
    x = jnp.asarray(X)
    assert (likeness.psnr(x, x) == 100).all()
    np.testing.assert_allclose(likeness.ssim(x, x), 1, rtol=1e-6)


def test_moments_of_parts_average_to_those_of_all():
    f = jnp.asarray(RNG.standard_normal((8, 5)), jnp.float32)
    whole, parts = likeness.moments(f), [likeness.moments(f[:4]), likeness.moments(f[4:])]
    for name in whole:
        np.testing.assert_allclose(whole[name], (parts[0][name] + parts[1][name]) / 2, atol=1e-6)


def test_the_frechet_distance_of_moments_is_that_of_the_features():
    """Of covariances that divide by n where others divide by n - 1."""
    from jaxdiff.tasks.first_stage_loss import LossConfig

    a, b = RNG.standard_normal((60, 6)), RNG.standard_normal((60, 6)) * 1.5 + 0.3
    moments = {name: likeness.moments(jnp.asarray(f, jnp.float32)) for name, f in (("real", a), ("made", b))}
    shift = ((a.mean(0) - b.mean(0)) ** 2).sum()
    expected = shift + (frechet_distance_of(a, b) - shift) * 59 / 60
    assert LossConfig().summary({"frechet": moments})["frechet"] == pytest.approx(expected, rel=1e-4)
