"""Denoisers that conditions steer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import schedule
from jaxdiff.pipelines import guided
from jaxdiff.typing import Cond


@pytest.mark.parametrize("kind", ["eps", "v", "x0"])
def test_two_guidances_take_a_time_for_each_picture(kind):
    """Row by row what one time for all gives, and equation 3 of the paper written out."""
    x, *images = jax.random.normal(jax.random.key(0), (4, 3, 4, 4, 2))
    s = schedule.linear()
    network = lambda params, x, t, cond: params["w"] * x + cond.image * t.reshape(-1, 1, 1, 1) / 1000
    conds, aux = tuple(Cond(image=image) for image in images), {"guidance": 3.0, "picture_guidance": 1.5}
    denoise = guided.instruct_guidance(network, {"w": 0.5}, conds, s, kind)
    times = jnp.array([0.9, 0.5, 0.2])
    several = denoise(x, times, aux)
    for n, t in enumerate(times):
        np.testing.assert_allclose(several[n], denoise(x, t, aux)[n], rtol=1e-5, atol=1e-5)
    text, picture, none = (network({"w": 0.5}, x, s.timestep(times), cond) for cond in conds)
    y = none + 3 * (text - picture) + 1.5 * (picture - none)
    alpha, sigma = (f(times).reshape(-1, 1, 1, 1) for f in (s.alpha, s.sigma))
    expected = {"eps": (x - sigma * y) / alpha, "v": alpha * x - sigma * y, "x0": y}[kind]
    np.testing.assert_allclose(several, expected, rtol=1e-4, atol=1e-4)
