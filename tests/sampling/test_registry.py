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


def test_heun_by_default_starts_a_cosine_schedule_as_well_as_ddim():
    # the first level is 2e4: averaged over one long step from there, the slopes would throw the picture away (0.59)
    cosine, variance = schedule.cosine(), 0.25

    def deviation(name):
        """The error of the result's, for data N(0, variance) under the exact denoiser, which is linear."""
        table = sampling.make_table(name, cosine, 20)
        alpha = cosine.alpha(table.t)
        total = alpha**2 * variance + cosine.sigma(table.t) ** 2
        y = np.zeros(table.slots)
        y[0] = total[0] ** 0.5
        for n in range(table.calls):
            y = table.A[n] @ y + table.b[n] * (alpha[n] * variance / total[n]) * y[0]
        return abs(abs(y[0]) - variance**0.5)

    assert deviation("heun") < 1.5 * deviation("ddim") < 0.06
