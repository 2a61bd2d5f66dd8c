import numpy as np
import pytest

from jaxdiff.diffusion import schedule
from jaxdiff.sampling import grid

S = schedule.scaled_linear()


@pytest.mark.parametrize("name", grid.GRIDS)
@pytest.mark.parametrize("s", [S, schedule.cosine(), schedule.vp(), schedule.ve(), schedule.edm()])
@pytest.mark.parametrize("steps", [1, 5, 50])
def test_every_grid_falls_strictly_to_its_final_time(name, s, steps):
    times = grid.GRIDS[name](s, steps)
    assert times.shape == (steps + 1,)
    assert times.dtype == np.float64
    assert np.all(np.diff(times) < 0)
    assert times[-1] == 0
    assert 0 < times[-2] <= times[0] <= 1


def test_spacings_call_the_published_steps():
    steps = lambda times: np.round(S.timestep(times[:-1]), 6).tolist()
    assert steps(grid.leading(S, 5)) == [800, 600, 400, 200, 0]
    assert steps(grid.leading(S, 5, offset=1)) == [801, 601, 401, 201, 1]
    assert steps(grid.trailing(S, 5)) == [999, 799, 599, 399, 199]
    assert steps(grid.linspace(S, 5)) == [999, 749.25, 499.5, 249.75, 0]
    assert steps(grid.quadratic(S, 5)) == [800, 450, 200, 50, 0]


def test_rules_for_noise_levels():
    levels = lambda times: np.exp(-S.log_snr(times[:-1]) / 2)
    np.testing.assert_allclose(np.diff(levels(grid.karras(S, 9)) ** (1 / 7), 2), 0, atol=1e-9)
    np.testing.assert_allclose(np.diff(np.log(levels(grid.exponential(S, 9))), 2), 0, atol=1e-9)
    np.testing.assert_allclose(levels(grid.align_your_steps(S, 11)), grid.ALIGN_YOUR_STEPS["sd15"], rtol=1e-3)
    edm = schedule.edm()
    np.testing.assert_allclose(80 * grid.karras(edm, 2, last=0.002 / 80), [80, 0.002, 0], rtol=1e-9)
    np.testing.assert_allclose(80 * grid.karras(edm, 2), [80, 0.002, 0], rtol=1e-9)
    np.testing.assert_allclose(edm.sigma(grid.few_steps(edm, 2)), edm.sigma(grid.karras(edm, 3))[[0, 1, 3]], rtol=1e-9)
    ve = schedule.ve()
    np.testing.assert_allclose(ve.sigma(grid.exponential(ve, 3)), [50, 0.5**0.5, 0.01, 0], rtol=1e-3)
    np.testing.assert_allclose(grid.beta(S, 101)[50], 0.5005, atol=1e-9)


def test_a_cut_grid_keeps_the_share_of_steps_that_strength_says():
    times = grid.trailing(S, 20)
    np.testing.assert_array_equal(grid.cut(times, 0.6), times[8:])
    np.testing.assert_array_equal(grid.cut(times, 1.0), times)
    for strength in (0.0, 0.01, 1.1):
        with pytest.raises(ValueError, match=f"strength = {strength}"):
            grid.cut(times, strength)


def test_bad_input_says_what_was_expected():
    with pytest.raises(ValueError, match=r"alpha is 0 at t = 1.0"):
        grid.karras(schedule.flow(), 5)
    with pytest.raises(ValueError, match="no such table 'sd3'"):
        grid.align_your_steps(S, 5, "sd3")
    with pytest.raises(ValueError, match="takes 1 to 1000 steps"):
        grid.leading(S, 1001)
