"""The process of a model that was trained here: any schedule, any sampler, planned without knots or trained steps."""

import numpy as np
import pytest

from jaxdiff.diffusion import schedule
from jaxdiff.pipelines import plan
from jaxdiff.pretrained.scheduler import native
from jaxdiff.sampling import SAMPLERS, grid, make_table

SCHEDULES = {
    "linear": (schedule.linear(), "eps"),
    "vp": (schedule.vp(), "v"),
    "edm": (schedule.edm(), "edm"),
    "flow": (schedule.flow(3.0), "flow"),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_plan_is_the_samplers_table_over_its_own_grid(name):
    s, kind = SCHEDULES[name]
    for sampler in ("ddim", "dpmpp_2m"):
        process = native(s, kind, sampler)
        made = plan.make(process, steps=6, weights={})
        want = make_table(sampler, s, 6)
        np.testing.assert_allclose(made.table.A, want.A, rtol=1e-6)
        np.testing.assert_allclose(made.noise, np.hypot(s.alpha(want.t[0]), s.sigma(want.t[0])), rtol=1e-6)
    other = plan.make(native(s, kind), steps=6, sampler="unipc", weights={})
    np.testing.assert_allclose(other.table.b, make_table("unipc", s, 6).b, rtol=1e-6)


def test_grid_options_and_strength_reach_the_table():
    s = schedule.vp()
    process = native(s, "v", "ddim", "quadratic", options={"eta": 0.5})
    np.testing.assert_array_equal(process.times(5), grid.quadratic(s, 5))
    assert np.any(plan.make(process, steps=5, weights={}).table.c)
    assert not np.any(plan.make(process, steps=5, weights={}, eta=0.0).table.c)
    tail = plan.make(process, steps=10, strength=0.5, start="picture", weights={})
    np.testing.assert_allclose(tail.table.t, grid.quadratic(s, 10)[5:-1], rtol=1e-6)
    np.testing.assert_allclose(tail.signal, s.alpha(tail.table.t[0]), rtol=1e-5)


def test_every_sampler_has_a_grid_that_exists():
    for name in SAMPLERS:
        assert native(schedule.vp(), "v", name).times(5)[-1] == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "noise"}, "unknown prediction kind 'noise'"),
        ({"sampler": "dimm"}, "unknown sampler 'dimm'"),
        ({"grid": "even"}, "unknown grid 'even'"),
        ({"schedule": schedule.flow(), "kind": "eps"}, "eps prediction divides by alpha"),
    ],
)
def test_what_cannot_be_is_named(change, says):
    with pytest.raises(ValueError, match=says):
        native(**{"schedule": schedule.vp(), "kind": "v", **change})
