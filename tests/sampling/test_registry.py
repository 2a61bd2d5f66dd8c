import pathlib

import numpy as np
import pytest

from jaxdiff import sampling
from jaxdiff.diffusion import schedule
from jaxdiff.sampling import registry

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "samplers.md").read_text()


@pytest.mark.parametrize("name", sampling.SAMPLERS)
def test_every_sampler_makes_a_finite_table_of_the_common_shape_and_is_on_the_page(name):
    s = schedule.flow(3.0) if name.startswith("flow") else schedule.scaled_linear()
    for grid in (None, "leading", *([] if name.startswith("flow") else ["karras"])):
        table = sampling.make_table(name, s, 20, grid=grid)
        assert table.slots == registry.SLOTS
        assert table.A.dtype == np.float64
        assert np.all(np.isfinite(table.A))
    assert f"| `{name}` |" in PAGE


def test_unknown_names_list_the_nearest_first():
    with pytest.raises(ValueError, match=r"unknown sampler 'dpmpp2m': expected one of dpmpp_2m, dpmpp_"):
        sampling.make_table("dpmpp2m", schedule.vp(), 10)


SPECIAL = ("consistency", "lcm", "tcd", "flow_euler", "flow_heun")


@pytest.mark.parametrize("name", sorted(sampling.SAMPLERS.keys() - {*SPECIAL}))
def test_by_default_every_sampler_starts_a_cosine_schedule_well(name):
    """Its first level is 2e4: on other grids Heun is off by 0.6 there, and PNDM by 5e4.

    For data N(0, 1/4) the exact denoiser is linear, so the result's deviation follows from the coefficients.
    """
    cosine, variance = schedule.cosine(), 0.25
    table = sampling.make_table(name, cosine, 20)
    alpha = cosine.alpha(table.t)
    total = alpha**2 * variance + cosine.sigma(table.t) ** 2
    covariance = np.zeros((table.slots, table.slots))
    covariance[0, 0] = total[0]
    for n in range(table.calls):
        M = table.A[n].copy()
        M[:, 0] += table.b[n] * alpha[n] * variance / total[n]
        covariance = M @ covariance @ M.T + np.outer(table.c[n], table.c[n])
    assert abs(covariance[0, 0] ** 0.5 - variance**0.5) < 0.1
