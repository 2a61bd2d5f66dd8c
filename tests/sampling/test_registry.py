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
